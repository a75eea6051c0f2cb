"""The judge: attacks propose, the served model decides.

Of every candidate the distance is recomputed in float64, the box and finiteness are checked, and
the prediction is taken from the deployed runtime itself; for a model of integer inputs a candidate
is first rounded to values that it can be given. What the judge confirms is walked back along the
segment to the decision boundary of that same runtime. Nothing else counts as broken.
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
"""Halvings of the walk back to the decision boundary."""

SMOOTHED_LINE_SEARCH = 6
"""The same for a smoothed model, whose votes settle nothing near the boundary."""

STRETCHES = (1.05, 1.15, 1.35, 1.7)
"""How much farther from the original a candidate is tried where votes do not settle it."""


@dataclass(frozen=True)
class Judgement:
    """What the served model says of a batch of candidates.

    Attributes:
        broken: (B,) bool, a valid adversarial example was confirmed.
        distance: (B,) float64, its distance; ``inf`` where not broken.
        x: (B, ...) the confirmed example, ``x0`` where not broken.
        prediction: (B,) int64, what the served model says of ``x``.
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
        classifier: its ``deployed`` side decides.
        metric: measures the distance.
        x0: (B, ...) originals, on the CPU.
        candidates: (B, ...) what an attack proposes.
        labels: (B,) int64.
        line_search: halvings of the walk back to the boundary; 0 leaves the candidates in place.
    """
    representable = classifier.spec.representable
    proposed = candidates.detach().to(x0)
    x = representable(proposed)
    valid = admissible(metric, x)
    x = torch.where(over(valid, x), x, x0)
    broken = valid & outvoted(classifier.deployed(x), labels)
    if not classifier.spec.dtype.is_floating_point:
        # Rounding to the nearest value may fall back across the boundary; away from x0 it rarely
        # does, and a little farther out hardly ever. What is farther is measured as such.
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
        # Rounding may make a point of the segment no nearer; then the candidate itself stands.
        nearer = metric.distance(x0[rows], near) < metric.distance(x0[rows], x[rows])
        x[rows] = torch.where(over(nearer, near), near, x[rows])
    x = torch.where(over(broken, x), x, x0)
    distance = torch.where(broken, metric.distance(x0, x), torch.inf)
    return Judgement(broken, distance, x, classifier.predict(x))


def _settle(
    classifier: Classifier, metric: Metric, x0: Tensor, x: Tensor, labels: Tensor, broken: Tensor
) -> tuple[Tensor, Tensor]:
    """Move candidates outwards until the votes of a smoothed model settle that they are wrong.

    Attacks stop where their smooth stand-in changes its decision: near there votes settle nothing.

    Returns:
        Candidates and ``broken``, as they were where nothing was settled.
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
    """Whether each candidate is finite and inside the box, ``(B,)`` bool."""
    rows = x.flatten(1)
    inside = (rows >= metric.low) & (rows <= metric.high)
    return (rows.isfinite() & inside).all(1)
