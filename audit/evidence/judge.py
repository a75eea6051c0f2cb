"""The judge: attacks propose, the served model decides.

For every candidate, the distance is recomputed in float64, the box and finiteness are checked, and
the prediction is taken from the deployed runtime itself. For a model with integer inputs, a
candidate is first rounded to values that the model accepts. A confirmed example is moved back along
the segment to the original, up to the decision boundary of the same runtime. Nothing else counts as
broken.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attackers.boundary import nearest_on_segment
from attackers.geometry import Metric
from attackers.losses import outvoted
from attackers.rows import over
from audit.models.classifier import Classifier

LINE_SEARCH = 12
"""Number of bisection steps of the line search back to the decision boundary."""

SMOOTHED_LINE_SEARCH = 6
"""Number of bisection steps for a smoothed model, whose votes are undecided near the boundary."""

STRETCHES = (1.05, 1.15, 1.35, 1.7)
"""Factors by which a candidate is moved away from the original if the votes are undecided."""


@dataclass(frozen=True)
class Judgement:
    """Decision of the judge on a batch of candidates.

    Attributes:
        broken: (B,) bool, whether a valid adversarial example was confirmed.
        distance: (B,) float64, distance of the example; ``inf`` where not broken.
        x: (B, ...) the confirmed example; ``x0`` where not broken.
        prediction: (B,) int64, the served model's prediction on ``x``.
    """

    broken: Tensor
    distance: Tensor
    x: Tensor
    prediction: Tensor


def judge_candidates(
    classifier: Classifier,
    metric: Metric,
    x0: Tensor,
    candidates: Tensor,
    labels: Tensor,
    *,
    line_search: int = LINE_SEARCH,
) -> Judgement:
    """Confirm or reject candidates on the deployed model.

    Args:
        classifier: the model; its ``deployed`` scores decide.
        metric: the distance and the box.
        x0: (B, ...) originals, on the CPU.
        candidates: (B, ...) proposals of an attack.
        labels: (B,) int64.
        line_search: number of bisection steps back to the boundary; 0 keeps the candidates.
    """
    representable = classifier.spec.representable
    proposed = candidates.detach().to(x0)
    x = representable(proposed)
    valid = admissible(metric, x)
    x = torch.where(over(valid, x), x, x0)
    broken = valid & outvoted(classifier.deployed(x), labels)
    if not classifier.spec.dtype.is_floating_point:
        # Rounding to the nearest value may move a candidate back across the boundary. Rounding away
        # from x0 rarely does, even less so from a point a little farther out. The distance is
        # measured after rounding.
        for stretch in (1.0, 1.25):
            point = metric.clamp(x0 + stretch * (torch.where(over(valid, x), proposed, x0) - x0))
            farther = representable(point, away_from=x0)
            rescued = ~broken & valid & outvoted(classifier.deployed(farther), labels)
            x, broken = torch.where(over(rescued, x), farther, x), broken | rescued
    if classifier.base is not None:
        x, broken = _settle(classifier, metric, x0, x, labels, broken)
        line_search = min(line_search, SMOOTHED_LINE_SEARCH)
    rows = broken.nonzero()[:, 0]
    if line_search and len(rows):
        near = representable(
            nearest_on_segment(
                lambda point: classifier.deployed(representable(point)),
                x0[rows],
                x[rows],
                labels[rows],
                wrong=outvoted,
                steps=line_search,
            )
        )
        # After rounding, a point of the segment may be no nearer; then the candidate is kept.
        nearer = metric.distance(x0[rows], near) < metric.distance(x0[rows], x[rows])
        x[rows] = torch.where(over(nearer, near), near, x[rows])
    x = torch.where(over(broken, x), x, x0)
    distance = torch.where(broken, metric.distance(x0, x), torch.inf)
    return Judgement(broken, distance, x, classifier.predict(x))


def _settle(
    classifier: Classifier, metric: Metric, x0: Tensor, x: Tensor, labels: Tensor, broken: Tensor
) -> tuple[Tensor, Tensor]:
    """Move candidates outwards until the votes of a smoothed model decide that they are wrong.

    Attacks stop where their smooth surrogate changes its decision, and the votes are undecided
    near that point.

    Returns:
        Candidates and ``broken``; unchanged where the votes remain undecided.
    """
    x, broken = x.clone(), broken.clone()
    rows = (~broken & (x != x0).flatten(1).any(1)).nonzero()[:, 0]
    for stretch in STRETCHES:
        if not len(rows):
            break
        origin, farther = x0[rows], x0[rows] + stretch * (x[rows] - x0[rows])
        reach = stretch * metric.distance(origin, x[rows])
        farther = metric.project(origin, farther, reach)
        wrong = outvoted(classifier.deployed(farther), labels[rows]) & admissible(metric, farther)
        x[rows[wrong]], broken[rows[wrong]] = farther[wrong], True
        rows = rows[~wrong]
    return x, broken


def admissible(metric: Metric, x: Tensor) -> Tensor:
    """Return whether each candidate is finite and inside the box, ``(B,)`` bool."""
    rows = x.flatten(1)
    inside = (rows >= metric.low) & (rows <= metric.high)
    return (rows.isfinite() & inside).all(1)
