"""Projected gradient descent (Madry et al. 2018, section 2.1), for any metric.

The projection stays outside the autograd graph, the best iterate is returned, and a sample leaves
the batch as soon as it is misclassified: the three things that most often make a PGD number wrong
or slow when they are missing.
"""

import math

import torch
from torch import Tensor

from attackers.generator import SampleGenerator
from attackers.gradient import Logits, value_and_grad
from attackers.losses import Loss, margin, misclassified
from attackers.rows import expand
from attackers.threat import Threat


def pgd(
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    generator: SampleGenerator,
    loss: Loss = margin,
    steps: int = 40,
    start: Tensor | None = None,
    first_step: float = 0.5,
    momentum: float = 0.75,
) -> Tensor:
    """Maximise the loss over the ball of radius ``threat.delta`` and the box.

    The step falls from ``first_step`` radii to zero along a cosine, and each move keeps a share of
    the previous one: measured stronger than a constant step at equal cost, since the first steps
    cross the ball and the last ones settle.

    Args:
        logits: differentiable classifier.
        x0: (B, ...) in the box.
        labels: (B,) int64.
        threat: pointwise threat; ``delta`` is the radius, or one per sample.
        generator: draws the start where ``start`` is None.
        loss: what to increase, per sample.
        steps: number of gradients.
        start: (B, ...) first iterate, projected onto the ball; a random point of it by default.
        first_step: length of the first step in units of the radius.
        momentum: share of the previous displacement that is kept.

    Returns:
        (B, ...) inside ball and box: the first misclassified iterate of each sample, or the one
        of largest loss where none was.
    """
    metric = threat.metric
    if start is None:
        start = metric.sample(x0, threat.delta, generator)
    best = metric.project(x0, start, threat.delta)
    radius = expand(threat.delta, x0.double())
    rows = torch.arange(len(x0), device=x0.device)
    centre, x, y, top = x0, best, labels, x0.new_full((len(x0),), -torch.inf)
    previous = torch.zeros_like(x0)

    for step in range(steps + 1):
        scores, value, grad = value_and_grad(logits, loss, x, y)
        fooled = misclassified(scores, y)
        better = fooled | (value > top)
        best = best.index_put((rows[better],), x[better])
        if step == steps or bool(fooled.all()):
            break
        if bool(fooled.any()):
            keep = ~fooled
            rows, centre, x, y, radius = rows[keep], centre[keep], x[keep], y[keep], radius[keep]
            previous, grad, value, top = previous[keep], grad[keep], value[keep], top[keep]
        top = torch.maximum(top, value)
        grad = _unstuck(grad.nan_to_num(), generator, rows, step)
        length = radius.flatten() * (first_step * (1 + math.cos(math.pi * step / steps)) / 2)
        moved = metric.ascent(centre, x, grad, length) + momentum * previous
        # The displacement after projection is what momentum should remember.
        x, old = metric.project(centre, x + moved, radius.flatten()), x
        previous = x - old
    return best


def _unstuck(grad: Tensor, generator: SampleGenerator, rows: Tensor, step: int) -> Tensor:
    """Replace gradients that are exactly zero (dead units, a plateau) by random directions."""
    stuck = (grad.flatten(1) == 0).all(1).nonzero()[:, 0]
    if not len(stuck):
        return grad
    streams = generator.take(rows[stuck]).fold(f"stuck {step}")
    return grad.index_put((stuck,), streams.normal(grad[stuck]))
