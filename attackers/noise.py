"""Random search: the best of many random points of the ball; the baseline any attack must beat."""

import torch
from torch import Tensor

from attackers.gradient import Logits
from attackers.losses import Loss, margin, misclassified
from attackers.random_streams import SampleGenerator
from attackers.threat import Threat


@torch.no_grad()
def random_search(
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    generator: SampleGenerator,
    loss: Loss = margin,
    steps: int = 50,
) -> Tensor:
    """Return the point of largest loss among ``steps`` random points of ball and box.

    It needs scores only, no gradient. Odd draws are random corners (signs at full radius pushed
    through `ascent`), which reach farther than points drawn inside.

    Args:
        logits: classifier; need not be differentiable.
        x0: (B, ...) in the box.
        labels: (B,) int64.
        threat: pointwise threat; ``delta`` is the radius, or one per sample.
        generator: random streams of the points.
        loss: per-sample loss to increase.
        steps: number of points.

    Returns:
        (B, ...) inside ball and box.
    """
    metric = threat.metric
    best = x0.clone()
    top = x0.new_full((len(x0),), -torch.inf)
    rows = torch.arange(len(x0), device=x0.device)
    radius = threat.delta
    for step in range(steps):
        streams, centre = generator.take(rows).fold(f"noise {step}"), x0[rows]
        r = radius[rows] if isinstance(radius, Tensor) else radius
        x = metric.sample(centre, r, streams)
        if step % 2:
            x = metric.farthest(centre, x - centre, r)
        scores = logits(x)
        value = loss(scores, labels[rows])
        fooled = misclassified(scores, labels[rows])
        better = fooled | (value > top[rows])
        best[rows[better]], top[rows[better]] = x[better], value[better]
        rows = rows[~fooled]
        if not len(rows):
            break
    return best
