"""The smallest margin as a function of the radius, and the parabola that predicts its root."""

from dataclasses import dataclass

import torch
from torch import Tensor

from audit.certify.margins import Margins

FIRST_OF_LINEAR, FIRST_OF_LIMIT = 0.4, 0.75
"""Shares of two radii: up to the first one the network's linear part at the sample stays positive,
at the second one the sample breaks. The search starts at the smaller of the two products."""

EDGE = 0.03
"""Smallest distance of the next radius from the ends of its bracket, in units of the bracket's
width. Nearer radii would hardly shrink the bracket."""

UNPROVEN_SHARE = 0.9
"""Share of the root that is tried while nothing is proven: a radius that is proven is worth more
than a closer estimate."""


@dataclass
class MarginCurve:
    """Known values of the smallest margin as a function of the radius; all ``(B,)`` float64.

    Attributes:
        clean, slope: margin at radius 0, and the rate at which it decreases there.
        limit: radius beyond which no margin is positive.
        low, at_low: largest radius known to have a positive margin, and that margin.
        high, at_high: smallest radius known to have no positive margin, and its margin; inf and
            -inf until one is known.
    """

    clean: Tensor
    slope: Tensor
    limit: Tensor
    low: Tensor
    at_low: Tensor
    high: Tensor
    at_high: Tensor

    @classmethod
    def of(cls, linear: Margins, limit: Tensor) -> "MarginCurve":
        """Start from the bounds of a ball of radius 0: the network's linear part at the sample."""
        clean = linear.least().double()
        slope = clean / linear.positive_radius(4 * limit).clamp_min(1e-300)
        unknown = torch.full_like(limit, torch.inf)
        return cls(clean, slope, limit, torch.zeros_like(limit), clean, unknown, -unknown)

    def first_radius(self) -> Tensor:
        """Return the radius (B,) at which the search starts."""
        return torch.minimum(FIRST_OF_LINEAR * self.clean / self.slope, FIRST_OF_LIMIT * self.limit)

    def add(self, radius: Tensor, margin: Tensor) -> None:
        """Add the margins (B,) at radii (B,)."""
        holds = margin > 0
        self.low = torch.where(holds, radius, self.low)
        self.at_low = torch.where(holds, margin, self.at_low)
        self.high = torch.where(holds, self.high, radius)
        self.at_high = torch.where(holds, self.at_high, margin)

    def root(self, proven: Tensor) -> Tensor:
        """Predict the root of the margin, between ``proven`` (B,) and the least failing radius."""
        both = (self.low > 0) & self.high.isfinite()
        start = self._from_the_sample() * torch.where(self.low > 0, 1.0, UNPROVEN_SHARE)
        root = torch.where(both, self._through_three_points(), start)
        low, high = torch.maximum(self.low, proven), torch.minimum(self.high, self.limit)
        edge = EDGE * (high - low)
        return torch.where(high > low, torch.clamp(root, low + edge, high - edge), low)

    def _from_the_sample(self) -> Tensor:
        """Return the root of the parabola through one radius, and the value and slope at 0."""
        known = self.high.isfinite()
        radius = torch.where(known, self.high, self.low)
        margin = torch.where(known, self.at_high, self.at_low)
        lost = self.clean - self.slope * radius - margin
        curvature = (lost / radius.square().clamp_min(1e-300)).clamp_min(0)
        root = (self.slope.square() + 4 * curvature * self.clean).sqrt()
        return 2 * self.clean / (self.slope + root)

    def _through_three_points(self) -> Tensor:
        """Return the root of the parabola through the values at 0, low and high (Newton's form)."""
        width = self.high - self.low
        before = (self.at_low - self.clean) / self.low
        between = (self.at_high - self.at_low) / width
        curvature = ((between - before) / self.high).clamp_max(0)
        fall = curvature * width - between
        root = (fall.square() - 4 * curvature * self.at_low).sqrt()
        return self.low + 2 * self.at_low / (fall + root)
