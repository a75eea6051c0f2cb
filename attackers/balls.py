"""Balls prepared for a loop: the steps and projections of a metric, made cheap.

`Metric.project` and `Metric.ascent` are exact and rounded inwards. An attack takes hundreds of
steps, so here both are a few passes over the data: what they return is inside ball and box up to
float rounding, and an attack sends what it returns through `Metric.project` once.

Elementwise selection by a random mask costs forty times a sum or a product on a CPU (branches that
cannot be predicted), so masks are numbers and products here.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from attackers.metric import Ball
from attackers.rows import over, row_max, row_sum

L2_STEP_EVALUATIONS, L2_PROJECTION_EVALUATIONS = 3, 2
"""Evaluations of the norm of a clipped l2 step, and of an l2 projection. More are slower and
use the length or the radius more fully."""

L1_BISECTIONS = 12
"""Bisections of the level of an l1 step or projection. More are slower and use the radius more
fully; the result is inside the ball after any number."""


@dataclass(frozen=True)
class LinfBall(Ball):
    """Intersection of two boxes, whose faces are computed once."""

    lower: Tensor = field(init=False)
    upper: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Intersect ball and box."""
        object.__setattr__(self, "lower", self.clamp(self.x0 - self.radius))
        object.__setattr__(self, "upper", self.clamp(self.x0 + self.radius))

    def step(self, x: Tensor, grad: Tensor, length: Tensor) -> Tensor:
        """The sign of the gradient times the length; the projection clips it."""
        return grad.sign().mul_(over(length.to(x), x))

    def project(self, x: Tensor) -> Tensor:
        """Clip, which is exact."""
        return torch.clamp(x, self.lower, self.upper)


@dataclass(frozen=True)
class L2Ball(Ball):
    """Ball whose methods clip a multiple t of a direction to the box, for a given norm n(t)."""

    def step(self, x: Tensor, grad: Tensor, length: Tensor) -> Tensor:
        """Clip t·g to the box, t such that about the whole length is spent.

        A step that the box cuts must be stretched a hundredfold to keep its length, and that
        pays: on a model trained against linf attacks the median l2 radius falls by a fifth. The
        norm grows like a power of t, which the last two values tell (as a power of two, by
        products alone: logarithms round differently at the end of a batch).
        """
        free = grad * self.room(x, grad.sign()).sign()
        wanted, tiny = length.to(x), torch.finfo(x.dtype).tiny
        t = (wanted / _norm(free).clamp_min(tiny)).clamp_max(1 / tiny)
        before, stretch = torch.full_like(t, tiny), torch.ones_like(t)
        for _ in range(L2_STEP_EVALUATIONS):
            spent = _norm(self._clipped(x, free, t)).clamp_min(tiny)
            growth, needed = (spent / before).clamp_max(1e3), (wanted / spent).clamp(1e-3, 1e3)
            for _ in range(3):
                growth = growth * growth
                steeper = (growth < stretch) & (needed > 1)
                needed = torch.where(steeper, needed * needed, needed).clamp_max(1e3)
            before, stretch = spent, needed
            t = (t * stretch).clamp_max(1 / tiny)
        return self._clipped(x, free, t)

    def project(self, x: Tensor) -> Tensor:
        """Move from the centre by min(t·|x - x0|, room), t <= 1 from below.

        As n(c·t) <= c·n(t) for c >= 1, t·radius/n(t) never overshoots.
        """
        moved, radius = x - self.x0, self.radius.flatten()
        tiny = torch.finfo(x.dtype).tiny
        t = (radius / _norm(moved).clamp_min(tiny)).clamp_max(1)
        for _ in range(L2_PROJECTION_EVALUATIONS):
            spent = _norm(self._clipped(self.x0, moved, t))
            t = (t * (radius / spent.clamp_min(tiny)).clamp_min(1)).clamp_max(1)
        return self.clamp(self.x0 + moved * over(t, x))

    def _clipped(self, x: Tensor, move: Tensor, t: Tensor) -> Tensor:
        return self.clamp(x + move * over(t, x)).sub_(x)


@dataclass(frozen=True)
class L1Ball(Ball):
    """Ball whose methods bisect one level per sample, instead of sorting all coordinates."""

    def step(self, x: Tensor, grad: Tensor, length: Tensor) -> Tensor:
        """Fill the coordinates of largest |g| up to the box until the length is spent.

        The rest goes in equal shares to the coordinates just below the level.
        """
        sign, size, budget = grad.sign(), grad.abs(), length.to(x)
        room = self.room(x, sign)
        top = row_max(size)
        low, high = top * 1e-6, top.clone()
        for _ in range(L1_BISECTIONS):
            level = (low * high).sqrt()
            fits = row_sum(room * _above(size, level)) <= budget
            low, high = torch.where(fits, low, level), torch.where(fits, level, high)
        whole, band = room * _above(size, high), room * _above(size, low)
        spent, more = row_sum(whole), row_sum(band)
        share = ((budget - spent) / (more - spent).clamp_min(_tiny(x))).clamp(0, 1)
        return sign * (whole + (band - whole) * over(share, x))

    def project(self, x: Tensor) -> Tensor:
        """Move by min((|x - x0| - level)_+, room), the level from above."""
        moved, radius = x - self.x0, self.radius.flatten()
        sign, size = moved.sign(), moved.abs()
        room = self.room(self.x0, sign)

        def spent(level: Tensor) -> Tensor:
            return row_sum(torch.minimum((size - over(level, x)).clamp_min(0), room))

        low, high = torch.zeros_like(radius), row_max(size)
        at_low, at_high = spent(low), torch.zeros_like(radius)
        inside = at_low <= radius
        for round_ in range(L1_BISECTIONS):
            # Secant and midpoint in turn: exact on a linear piece, and never slower than halving.
            share = (at_low - radius) / (at_low - at_high).clamp_min(_tiny(x))
            level = low + (high - low) * (share.clamp(0, 1) if round_ % 2 else 0.5)
            at_level = spent(level)
            fits = at_level <= radius
            low, at_low = torch.where(fits, low, level), torch.where(fits, at_low, at_level)
            high, at_high = torch.where(fits, level, high), torch.where(fits, at_level, at_high)
        level = torch.where(inside, 0, high)
        return self.clamp(self.x0 + sign * (size - over(level, x)).clamp_min(0))


def _above(size: Tensor, level: Tensor) -> Tensor:
    """1 where the entry is larger than its row's level, 0 elsewhere."""
    return (size - over(level, size)).sign().clamp_min(0)


def _norm(x: Tensor) -> Tensor:
    return row_sum(x.square()).sqrt()


def _tiny(x: Tensor) -> float:
    return torch.finfo(x.dtype).tiny
