"""Per-sample minimal radii: several hunts along the decision boundary, the nearest find counts.

One run gives the whole accuracy-versus-radius curve. Hunts differ in loss and start, since two
short different ones find more than one long one (measured on every model that was tried); where
none finds anything, far points of the box are tried, because a model that is flat around a sample
still changes its mind somewhere.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from attackers.anchors import anchors
from attackers.boundary import nearest_on_segment
from attackers.fmn import fmn
from attackers.geometry import Metric
from attackers.gradient import Logits, value_and_grad
from attackers.losses import LOSSES, Loss, margin, misclassified, targeted_margin
from attackers.random_streams import SampleGenerator
from attackers.restarts import rivals
from attackers.rows import over
from attackers.transport import WIDE_REACH, minimal_transport
from attackers.wasserstein import Wasserstein

RUN_LOSSES = ("margin", "ce", "dlr")
"""Losses of successive hunts; the first one starts beyond the boundary that looks nearest."""

START_SHARE = 0.1
"""Where later hunts start: a random point at most this share of the diameter away."""

START_RADIUS = 0.1
"""The same in the image-Wasserstein distance, as a radius."""

RIVALS, OVERSHOOT = 9, 1.1
"""Classes whose boundaries are compared for the first hunt, and how far beyond the nearest it
starts."""

SEGMENT_BISECTIONS = 6
"""Halvings of the segment to the nearest find, towards the sample."""


def minimal_radius(
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    metric: Metric,
    *,
    generator: SampleGenerator,
    hunts: int = 2,
    first: int = 0,
    steps: int = 50,
) -> Tensor:
    """Find a near misclassified point for every sample.

    Args:
        logits: differentiable classifier.
        x0: (B, ...) correctly classified points of the box.
        labels: (B,) int64.
        metric: what to minimise.
        generator: randomness of the starts.
        hunts: how many.
        first: number of the first one; earlier ones were made before, and are not repeated.
        steps: gradients of each.

    Returns:
        (B, ...) the nearest misclassified points found; ``x0`` itself where none was.
    """
    best, nearest = x0.clone(), torch.full_like(labels, torch.inf, dtype=torch.float64)

    @torch.no_grad()
    def offer(x: Tensor, rows: Tensor) -> None:
        distance = metric.distance(x0[rows], x)
        closer = misclassified(logits(x), labels[rows]) & (distance < nearest[rows])
        best[rows[closer]], nearest[rows[closer]] = x[closer], distance[closer]

    every = torch.arange(len(x0), device=x0.device)
    for hunt in range(first, first + hunts):
        streams = generator.fold(f"hunt {hunt}")
        loss = LOSSES[RUN_LOSSES[hunt % len(RUN_LOSSES)]]
        offer(_one_run(logits, x0, labels, metric, streams, hunt, loss, steps), every)
    lost = nearest.isinf().nonzero()[:, 0]
    if len(lost):
        for point in _far_candidates(logits, x0[lost], labels[lost], metric, generator.take(lost)):
            offer(point, lost)
    found = nearest.isfinite().nonzero()[:, 0]
    if len(found):
        # A hunt ends within a permille of the boundary, an anchor anywhere.
        offer(
            nearest_on_segment(
                logits, x0[found], best[found], labels[found], steps=SEGMENT_BISECTIONS
            ),
            found,
        )
        offer(
            nearest_on_steepest_path(
                logits, x0[found], best[found], labels[found], metric, nearest[found]
            ),
            found,
        )
    return best


def _one_run(
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    metric: Metric,
    generator: SampleGenerator,
    hunt: int,
    loss: Loss,
    steps: int,
) -> Tensor:
    """One hunt; mass is moved by its own attack, the norms share one."""
    if isinstance(metric, Wasserstein):
        start = metric.sample(x0, START_RADIUS, generator) if hunt else None
        return minimal_transport(
            logits, x0, labels, metric, generator=generator, loss=loss, steps=steps, start=start
        )
    if hunt:
        start = metric.sample(x0, START_SHARE * metric.diameter(x0), generator)
    else:
        start = beyond_nearest_class(logits, x0, labels, metric)
    return fmn(logits, x0, labels, metric, generator=generator, loss=loss, steps=steps, start=start)


def _far_candidates(
    logits: Logits, x0: Tensor, labels: Tensor, metric: Metric, generator: SampleGenerator
) -> Iterator[Tensor]:
    """Far points of the box; with mass conserved, a hunt that may carry it far."""
    if isinstance(metric, Wasserstein):
        yield minimal_transport(logits, x0, labels, metric, generator=generator, reach=WIDE_REACH)
    else:
        yield from anchors(metric, x0, generator)


def beyond_nearest_class(logits: Logits, x0: Tensor, labels: Tensor, metric: Metric) -> Tensor:
    """A point a little beyond the linearised boundary to the class that is nearest by it.

    The class with the second largest score need not be the nearest one: where scores have unequal
    slopes, climbing the margin from the sample itself leads to the wrong boundary.

    Args:
        logits: differentiable classifier.
        x0: (B, ...) correctly classified points of the box.
        labels: (B,) int64.
        metric: of the distance.

    Returns:
        (B, ...) points of the box.

    Source: Moosavi-Dezfooli, Fawzi, Frossard 2016 (DeepFool), equation 8, in any metric; of the
    `RIVALS` classes of largest score.
    """
    with torch.no_grad():
        targets = rivals(logits(x0), labels, RIVALS)
    nearest, chosen = torch.full_like(labels, torch.inf, dtype=torch.float64), torch.zeros_like(x0)
    for target in targets.T:
        aimed = partial(targeted_margin, targets=target)
        _, value, grad = value_and_grad(logits, aimed, x0, labels)
        grad = grad.nan_to_num()
        slope = metric.dual_norm(x0, grad)
        radius = torch.where(slope > 0, -value.double() / slope, torch.inf)
        closer = radius < nearest
        nearest = torch.where(closer, radius, nearest)
        chosen = torch.where(over(closer, x0), grad, chosen)
    length = torch.minimum(OVERSHOOT * nearest, metric.diameter(x0).double())
    return metric.farthest(x0, chosen, length)


@torch.no_grad()
def nearest_on_steepest_path(
    logits: Logits,
    x0: Tensor,
    x: Tensor,
    labels: Tensor,
    metric: Metric,
    radius: Tensor,
    *,
    steps: int = SEGMENT_BISECTIONS + 4,
) -> Tensor:
    """Bisect r for the smallest misclassified x0 + argmax {<grad, d> : d(x0, x0 + d) <= r, box}.

    With the gradient of the margin at a point of the decision boundary this is the nearest
    misclassified point of a linear model, in every metric and whatever the box cuts off.

    Args:
        logits: differentiable classifier.
        x0: (B, ...) correctly classified.
        x: (B, ...) points of the boundary, where the gradient is taken.
        labels: (B,) int64.
        metric: of the path.
        radius: (B,) float64, the largest r.
        steps: halvings.

    Returns:
        (B, ...) misclassified points of the path; ``x`` itself where none was found.
    """
    _, _, grad = value_and_grad(logits, margin, x, labels)
    grad = grad.nan_to_num()
    best, low, high = x, torch.zeros_like(radius), radius
    for _ in range(steps):
        middle = (low + high) / 2
        point = metric.farthest(x0, grad, middle)
        wrong = misclassified(logits(point), labels)
        best = torch.where(over(wrong, x), point, best)
        low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
    return best
