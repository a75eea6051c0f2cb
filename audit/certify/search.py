"""The search for certified radii in float32, and their confirmation in float64.

Bounds for a ball of radius R, even if they are negative there, prove every radius r <= R up to
which the linear functions stay positive. So each evaluation proves some radius. The next radius is
the root of a parabola through the known margins, because margins decrease like a parabola. The
search runs in float32, and never beyond the radius at which the sample is known to break. One
evaluation in float64, with a tolerance for rounding, then decides what is certified.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from attackers.rows import over
from audit.certify.layers import Bounds
from audit.certify.margin_curve import MarginCurve
from audit.certify.margins import NO_HINTS, Hints, Margins, Prover

SEARCH_STEPS = 4
"""Default number of radii that are tried per sample."""

NEAR_BUDGET = 1.3
"""Factor of the proven radius within which a budget is tried as well. A larger factor spends
evaluations on budgets that may not hold."""

PAST_BUDGET = 1 + 1e-6
"""Factor by which a budget is exceeded, so that the radius is still above it after rounding."""

MARGIN_TOLERANCE = 1e-6
"""Value that a margin has to exceed in float64, in units of the largest score. It is far above the
rounding of float64, 2e-16 per operation."""


@dataclass(frozen=True)
class ProvenRadii:
    """Radii found by a search, before their confirmation in float64.

    Attributes:
        radius: (B,) float64; 0 where nothing was proven.
        slopes: lower slopes of the bounds that proved the radii, by index of the layer.
    """

    radius: Tensor
    slopes: Mapping[int, Tensor]


def certified_radii(
    prover: Prover,
    x0: Tensor,
    labels: Tensor,
    limit: Tensor,
    *,
    steps: int = SEARCH_STEPS,
    budgets: Tensor | None = None,
) -> ProvenRadii:
    """Search for the largest radii at which every margin is positive.

    Args:
        prover: prover of a float32 network.
        x0: (B, ...) float32 correctly classified samples.
        labels: (B,) int64.
        limit: (B,) float64 radii at which the samples break; nothing beyond them can be certified.
        steps: number of radii that are tried.
        budgets: (D,) float64, ascending, at which the accuracy is reported; a budget slightly
            beyond the proven radius is tried as well.

    Raises:
        UnsupportedOperator: the prover cannot bound this network in its metric.
    """
    curve = MarginCurve.of(prover.margins(x0, labels, torch.zeros_like(limit)), limit)
    proven, hints = torch.zeros_like(limit), NO_HINTS
    slopes: dict[int, Tensor] = {}
    radius = curve.first_radius()
    for _ in range(steps):
        found = prover.margins(x0, labels, radius, hints)
        certain = found.positive_radius(radius)
        slopes = _merged(slopes, found.slopes, certain > proven)
        proven = torch.maximum(proven, certain)
        margin = found.least().double()
        # Bounds that hold in a larger ball hold in every smaller one.
        hints = Hints(_narrowed(hints.intermediate, found.intermediate, margin <= 0), found.slopes)
        curve.add(radius, margin)
        radius = curve.root(proven)
    aim = _just_beyond(proven, limit, budgets)
    if bool((aim > proven).any()):
        found = prover.margins(x0, labels, aim, hints)
        certain = found.positive_radius(aim)
        slopes = _merged(slopes, found.slopes, certain > proven)
        proven = torch.maximum(proven, certain)
    return ProvenRadii(proven, slopes)


def confirmed(
    exact: Prover,
    x0: Tensor,
    labels: Tensor,
    found: ProvenRadii,
    *,
    tolerance: float = MARGIN_TOLERANCE,
) -> tuple[Tensor, Margins]:
    """Return the radii, at most those found, that float64 confirms, and the confirming bounds.

    Args:
        exact: prover of a float64 network.
        x0: (B, ...) samples.
        labels: (B,) int64.
        found: radii found by the search.
        tolerance: value that every margin has to exceed, in units of the largest score.

    Returns:
        Radii (B,) float64, and the margins in the balls of the found radii.

    Raises:
        UnsupportedOperator: the prover cannot bound this network in its metric.
    """
    x = x0.double()
    with torch.no_grad():
        needed = tolerance * exact.network.run(x).abs().amax(1).clamp_min(1)
    bounds = exact.margins(x, labels, found.radius, Hints(slopes=found.slopes))
    return bounds.positive_radius(found.radius, needed), bounds


def _just_beyond(proven: Tensor, limit: Tensor, budgets: Tensor | None) -> Tensor:
    """Return a radius slightly above the next budget if that is near, else the proven radius."""
    if budgets is None or not len(budgets):
        return proven
    index = torch.searchsorted(budgets, proven, right=True)
    aim = PAST_BUDGET * budgets[index.clamp_max(len(budgets) - 1)]
    near = (aim > proven) & (aim < limit) & (aim <= NEAR_BUDGET * proven)
    return torch.where(near, aim, proven)


def _merged(
    old: Mapping[int, Tensor], new: Mapping[int, Tensor], rows: Tensor
) -> dict[int, Tensor]:
    """Return the new slopes of the given samples (B,) bool, and the old slopes of the others."""
    return {
        index: torch.where(over(rows, slope), slope, old[index]) if index in old else slope
        for index, slope in new.items()
    }


def _narrowed(
    old: Mapping[int, Bounds], new: Mapping[int, Bounds], rows: Tensor
) -> dict[int, Bounds]:
    """Return the new bounds of the given samples (B,) bool, and any old bounds of the others."""
    merged = {}
    for index, bounds in new.items():
        if index in old:
            lower, upper = old[index].lower, old[index].upper
        else:
            lower = torch.full_like(bounds.lower, -torch.inf)
            upper = torch.full_like(bounds.upper, torch.inf)
        mask = over(rows, bounds.lower)
        merged[index] = Bounds(
            torch.where(mask, bounds.lower, lower), torch.where(mask, bounds.upper, upper)
        )
    return merged
