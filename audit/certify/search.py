"""The search for certified radii, and their confirmation in float64.

Bounds made for a ball of radius R prove, whether or not they hold there, every radius r <= R at
which the linear functions stay positive; so each evaluation proves something. The next radius is
where a parabola through the margins that are known crosses 0: margins fall like one. The search
runs in float32, never beyond the radius at which the sample is known to break. One evaluation in
float64, with a margin for rounding, then says what is certified.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from attackers.rows import over
from audit.certify.margins import NOTHING, Hints, Margins, Prover
from audit.certify.network import Bounds

FIRST_REACH, FIRST_LIMIT = 0.4, 0.75
"""The radius that is tried first: the lesser of these shares of how far the network's linear part
at the sample stays positive, and of where the sample breaks."""

STEPS = 4
"""Radii that are tried."""

EDGE = 0.03
"""How near to an end of its bracket the next radius may lie, in units of the bracket."""

SHY = 0.9
"""Share of the root that is tried while nothing holds yet: to prove something comes first."""

NEAR = 1.3
"""A budget within this factor of what was proven is tried too."""

PAST = 1 + 1e-6
"""By how much it is passed, so that the radius is above it after rounding."""

MARGIN = 1e-6
"""What a margin has to exceed in float64, in units of the largest score."""


@dataclass(frozen=True)
class Radii:
    """What a search found.

    Attributes:
        radius: (B,) float64; 0 where nothing was proven.
        slopes: lower slopes of the bounds that proved it, by layer.
    """

    radius: Tensor
    slopes: Mapping[int, Tensor]


def certified_radii(
    prover: Prover,
    x0: Tensor,
    labels: Tensor,
    limit: Tensor,
    *,
    steps: int = STEPS,
    budgets: Tensor | None = None,
) -> Radii:
    """The largest radii found at which every margin is positive.

    Args:
        prover: of a float32 network.
        x0: (B, ...) float32 correctly classified samples.
        labels: (B,) int64.
        limit: (B,) float64 beyond which nothing can be certified: where the sample breaks.
        steps: radii that are tried.
        budgets: (D,) float64, ascending, at which the accuracy will be stated: where one lies just
            beyond what was proven, it is tried too.
    """
    curve = Curve.of(prover.margins(x0, labels, torch.zeros_like(limit)), limit)
    proven, hints = torch.zeros_like(limit), NOTHING
    slopes: dict[int, Tensor] = {}
    radius = curve.first()
    for _ in range(steps):
        found = prover.margins(x0, labels, radius, hints)
        certain = found.reach(radius)
        slopes = _merged(slopes, found.slopes, certain > proven)
        proven = torch.maximum(proven, certain)
        margin = found.least().double()
        # What was found in a larger ball holds in every smaller one.
        hints = Hints(_narrowed(hints.within, found.entering, margin <= 0), found.slopes)
        curve.add(radius, margin)
        radius = curve.root(proven)
    aim = _just_beyond(proven, limit, budgets)
    if bool((aim > proven).any()):
        found = prover.margins(x0, labels, aim, hints)
        certain = found.reach(aim)
        slopes = _merged(slopes, found.slopes, certain > proven)
        proven = torch.maximum(proven, certain)
    return Radii(proven, slopes)


def _just_beyond(proven: Tensor, limit: Tensor, budgets: Tensor | None) -> Tensor:
    """Past the least budget above each radius, if that is near; else the radius."""
    if budgets is None or not len(budgets):
        return proven
    place = torch.searchsorted(budgets, proven, right=True)
    aim = PAST * budgets[place.clamp_max(len(budgets) - 1)]
    near = (aim > proven) & (aim < limit) & (aim <= NEAR * proven)
    return torch.where(near, aim, proven)


@dataclass
class Curve:
    """The least margin as a function of the radius, as far as it is known; all ``(B,)`` float64.

    Attributes:
        clean, slope: at radius 0, value and how fast it falls.
        limit: beyond it nothing holds.
        low, at_low: the largest radius known to have a positive margin, and that margin.
        high, at_high: the least one known to have none, and its margin; inf and -inf before.
    """

    clean: Tensor
    slope: Tensor
    limit: Tensor
    low: Tensor
    at_low: Tensor
    high: Tensor
    at_high: Tensor

    @classmethod
    def of(cls, linear: Margins, limit: Tensor) -> "Curve":
        """From the bounds of a ball of radius 0: the network's own linear part."""
        clean = linear.least().double()
        slope = clean / linear.reach(4 * limit).clamp_min(1e-300)
        nowhere = torch.full_like(limit, torch.inf)
        return cls(clean, slope, limit, torch.zeros_like(limit), clean, nowhere, -nowhere)

    def first(self) -> Tensor:
        """The radius to begin with."""
        return torch.minimum(FIRST_REACH * self.clean / self.slope, FIRST_LIMIT * self.limit)

    def add(self, radius: Tensor, margin: Tensor) -> None:
        """Learn the margin at a radius."""
        holds = margin > 0
        self.low = torch.where(holds, radius, self.low)
        self.at_low = torch.where(holds, margin, self.at_low)
        self.high = torch.where(holds, self.high, radius)
        self.at_high = torch.where(holds, self.at_high, margin)

    def root(self, proven: Tensor) -> Tensor:
        """Where a parabola crosses 0, between what is proven and the least that fails."""
        both = (self.low > 0) & self.high.isfinite()
        start = self._from_the_sample() * torch.where(self.low > 0, 1.0, SHY)
        root = torch.where(both, self._through_three_points(), start)
        low, high = torch.maximum(self.low, proven), torch.minimum(self.high, self.limit)
        edge = EDGE * (high - low)
        return torch.where(high > low, torch.clamp(root, low + edge, high - edge), low)

    def _from_the_sample(self) -> Tensor:
        """With the value and slope at 0, and one radius more."""
        known = self.high.isfinite()
        radius = torch.where(known, self.high, self.low)
        margin = torch.where(known, self.at_high, self.at_low)
        lost = self.clean - self.slope * radius - margin
        bend = (lost / radius.square().clamp_min(1e-300)).clamp_min(0)
        return 2 * self.clean / (self.slope + (self.slope.square() + 4 * bend * self.clean).sqrt())

    def _through_three_points(self) -> Tensor:
        """Through the values at 0 and at both ends, in Newton's form."""
        width = self.high - self.low
        before = (self.at_low - self.clean) / self.low
        between = (self.at_high - self.at_low) / width
        bend = ((between - before) / self.high).clamp_max(0)
        fall = bend * width - between
        return self.low + 2 * self.at_low / (fall + (fall.square() - 4 * bend * self.at_low).sqrt())


def confirmed(
    exact: Prover, x0: Tensor, labels: Tensor, found: Radii, *, margin: float = MARGIN
) -> tuple[Tensor, Margins]:
    """The radii, at most those found, that float64 confirms, and the bounds that do.

    Args:
        exact: of a float64 network.
        x0: (B, ...) samples.
        labels: (B,) int64.
        found: by the search.
        margin: what every margin has to exceed, in units of the largest score.

    Returns:
        (B,) float64, and the margins in the balls that were found.
    """
    x = x0.double()
    with torch.no_grad():
        needed = margin * exact.network.run(x).abs().amax(1).clamp_min(1)
    bounds = exact.margins(x, labels, found.radius, Hints(slopes=found.slopes))
    return bounds.reach(found.radius, needed), bounds


def _merged(
    old: Mapping[int, Tensor], new: Mapping[int, Tensor], rows: Tensor
) -> dict[int, Tensor]:
    """The new slopes of the given samples; of the others the old ones."""
    return {
        place: torch.where(over(rows, slope), slope, old[place]) if place in old else slope
        for place, slope in new.items()
    }


def _narrowed(
    old: Mapping[int, Bounds], new: Mapping[int, Bounds], rows: Tensor
) -> dict[int, Bounds]:
    """The new bounds of the given samples; of the others the old ones, or none."""
    merged = {}
    for place, bounds in new.items():
        if place in old:
            low, high = old[place].low, old[place].high
        else:
            low = torch.full_like(bounds.low, -torch.inf)
            high = torch.full_like(bounds.high, torch.inf)
        mask = over(rows, bounds.low)
        merged[place] = Bounds(
            torch.where(mask, bounds.low, low), torch.where(mask, bounds.high, high)
        )
    return merged
