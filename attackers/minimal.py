"""Per-sample minimal radii from any fixed-radius attack: bisection, warm starts, line search.

One run gives the whole accuracy-versus-radius curve; a sample leaves as soon as its bracket is
narrow. The lower end of a bracket is only where the attack failed, never a certificate.
"""

from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from attackers.anchors import anchors
from attackers.boundary import nearest_on_segment
from attackers.generator import SampleGenerator
from attackers.geometry import Metric
from attackers.gradient import Logits, value_and_grad
from attackers.losses import margin, misclassified
from attackers.pgd import pgd
from attackers.rows import over
from attackers.threat import Threat

SHORT_PGD = partial(pgd, steps=25)
"""Warm starts make a shorter run enough: half the gradients for radii within a percent."""


class FixedRadiusAttack(Protocol):
    """An attack that answers 'is it broken at this radius', and accepts a warm start."""

    def __call__(
        self,
        logits: Logits,
        x0: Tensor,
        labels: Tensor,
        threat: Threat,
        *,
        generator: SampleGenerator,
        start: Tensor | None = None,
    ) -> Tensor:
        """Return the attacked inputs, ``(B, ...)``."""


def first_order_radius(logits: Logits, x0: Tensor, labels: Tensor, metric: Metric) -> Tensor:
    """Estimate each radius as -margin / ||grad margin||_*: exact for a linear model without box.

    Returns:
        (B,) in the dtype of ``x0``, between a thousandth of the sample's diameter and the diameter.
    """
    _, value, grad = value_and_grad(logits, margin, x0, labels)
    slope = metric.dual_norm(grad.nan_to_num())
    guess = torch.where(slope > 0, -value.double() / slope, torch.inf).to(x0)
    diameter = metric.diameter(x0).to(x0)
    return torch.minimum(torch.maximum(guess, 1e-3 * diameter), diameter)


def minimal_radius(
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    metric: Metric,
    *,
    generator: SampleGenerator,
    attack: FixedRadiusAttack = SHORT_PGD,
    rounds: int = 12,
    tolerance: float = 0.02,
) -> Tensor:
    """Find a near misclassified point for every sample.

    Each round attacks every open sample at its own radius: half-way into its bracket, from its
    nearest adversarial example so far scaled back onto that ball, or at a grown radius while none
    is known. Where even the whole box did not help, far points of it are tried instead. A success
    is walked back to the decision boundary before it becomes the upper end.

    Args:
        logits: differentiable classifier.
        x0: (B, ...) correctly classified points of the box.
        labels: (B,) int64.
        metric: what to minimise.
        generator: randomness of the attack's starts.
        attack: a fixed-radius attack that takes ``start``.
        rounds: how often the radius is changed.
        tolerance: relative width at which a bracket is closed.

    Returns:
        (B, ...) the nearest misclassified points found; ``x0`` itself where none was.
    """
    best = x0.clone()
    failed = x0.new_zeros(len(x0), dtype=torch.float64)
    found = torch.full_like(failed, torch.inf)
    diameter = metric.diameter(x0).double()
    trial = torch.minimum(1.5 * first_order_radius(logits, x0, labels, metric).double(), diameter)
    for round_ in range(rounds):
        rows = (found - failed > tolerance * found.clamp_max(1e300)).nonzero()[:, 0]
        if not len(rows):
            break
        centre, y, known = x0[rows], labels[rows], found[rows].isfinite()
        threat = Threat(metric, trial[rows])
        streams = generator.take(rows).fold(f"round {round_}")
        cold = metric.sample(centre, 0.5 * trial[rows], streams) if round_ else centre
        start = torch.where(over(known, x0), best[rows], cold)
        x = attack(logits, centre, y, threat, generator=streams, start=start)

        hopeless = (failed[rows] >= diameter[rows]).nonzero()[:, 0]
        if len(hopeless):
            x[hopeless] = _misclassified_anchor(
                logits, metric, centre[hopeless], y[hopeless], streams.take(hopeless)
            )
        broken = misclassified(_scores(logits, x), y)
        hit, miss = rows[broken], rows[~broken]
        if len(hit):
            near = nearest_on_segment(logits, x0[hit], x[broken], labels[hit], steps=6)
            distance = metric.distance(x0[hit], near)
            closer = distance < found[hit]
            best[hit[closer]], found[hit[closer]] = near[closer], distance[closer]
        failed[miss] = torch.maximum(failed[miss], trial[miss])
        # A success inside the bracket's failed part reopens it.
        failed = torch.where(failed >= found, 0.5 * found, failed)
        known = found.isfinite()
        grown = torch.minimum(2.5 * failed.clamp_min(1e-6), diameter)
        trial = torch.where(known, (failed + found) / 2, grown)
    return best


@torch.no_grad()
def _scores(logits: Logits, x: Tensor) -> Tensor:
    return logits(x)


def _misclassified_anchor(
    logits: Logits, metric: Metric, x0: Tensor, labels: Tensor, generator: SampleGenerator
) -> Tensor:
    """The nearest misclassified far point of each sample; ``x0`` itself where none is."""
    best, nearest = x0.clone(), torch.full_like(labels, torch.inf, dtype=torch.float64)
    for point in anchors(metric, x0, generator):
        fooled = misclassified(_scores(logits, point), labels)
        distance = torch.where(fooled, metric.distance(x0, point), torch.inf)
        better = distance < nearest
        best[better], nearest[better] = point[better], distance[better]
    return best
