"""Norms and registry of metrics: everything that differs between threats is in a metric.

`attackers.metric` defines the interface; the norms are here, the image-Wasserstein distance is
in `attackers.wasserstein`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attackers.balls import L1Ball, L2Ball, LinfBall
from attackers.metric import INWARD, Metric, Radius
from attackers.random_streams import SampleGenerator
from attackers.rows import expand, expand_down, flat, row_max, row_sum
from attackers.wasserstein import Wasserstein

__all__ = ["INWARD", "L1", "L2", "METRICS", "NORMS", "Linf", "Metric", "Radius", "Wasserstein"]


@dataclass(frozen=True)
class Linf(Metric):
    """Largest change of any coordinate."""

    name = "linf"
    prepared = LinfBall
    unit = "largest change of one input value"

    def distance(self, x0: Tensor, x: Tensor) -> Tensor:
        """max_i |x_i - x0_i|."""
        return row_max((x.double() - x0.double()).abs())

    def project(self, x0: Tensor, x: Tensor, radius: Radius) -> Tensor:
        """Clip to the intersection of the two boxes, which is exact."""
        r = expand_down(radius, x0)
        # One float inwards covers the rounding of x0 ± r; at r = 0 it changes nothing.
        lower = torch.nextafter(x0 - r, x0).clamp_min(self.low)
        upper = torch.nextafter(x0 + r, x0).clamp_max(self.high)
        return torch.minimum(torch.maximum(x, lower), upper)

    def ascent(self, x0: Tensor, x: Tensor, grad: Tensor, step: Radius) -> Tensor:
        """Each coordinate moves by the step or up to the box, whichever is nearer."""
        sign = grad.sign()
        return sign * torch.minimum(expand_down(step, x), self.room(x, sign))

    def direction(self, x0: Tensor, grad: Tensor) -> Tensor:
        """sign(g)."""
        return grad.sign()

    def dual_norm(self, x0: Tensor, grad: Tensor) -> Tensor:
        """The l1 norm."""
        return row_sum(grad.double().abs())

    def sample(self, x0: Tensor, radius: Radius, generator: SampleGenerator) -> Tensor:
        """Uniform in ball ∩ box, which is itself a box."""
        r = expand_down(radius, x0)
        lower, upper = self.clamp(x0 - r), self.clamp(x0 + r)
        return self.project(x0, lower + generator.uniform(x0) * (upper - lower), radius)

    def diameter(self, x0: Tensor) -> Tensor:
        """Distance to the farthest face of the box."""
        return row_max(torch.maximum(self.high - x0, x0 - self.low))


@dataclass(frozen=True)
class L2(Metric):
    """Euclidean length of the change."""

    name = "l2"
    prepared = L2Ball
    unit = "Euclidean norm of the change of the input"

    def distance(self, x0: Tensor, x: Tensor) -> Tensor:
        """||x - x0||_2."""
        return row_sum((x.double() - x0.double()).square()).sqrt()

    def project(self, x0: Tensor, x: Tensor, radius: Radius) -> Tensor:
        """Solve min ||z - x||_2 over ball ∩ box: z = clip(x0 + t (x - x0)), one dual scalar t.

        The Lagrangian of the ball gives z = clip((x + λ x0) / (1 + λ)); t = 1 / (1 + λ) <= 1.
        """
        moved = x - x0
        sign = moved.sign()
        length = _clipped_length(moved.abs(), self.room(x0, sign), expand_down(radius, x0), cap=1.0)
        return self.clamp(_moved(x0, sign, length))

    def ascent(self, x0: Tensor, x: Tensor, grad: Tensor, step: Radius) -> Tensor:
        """Clip t·g to the room that the box leaves, t such that the step is spent."""
        sign = grad.sign()
        return sign * _clipped_length(
            grad.abs(), self.room(x, sign), expand_down(step, x), cap=None
        )

    def direction(self, x0: Tensor, grad: Tensor) -> Tensor:
        """The gradient over its l2 norm; zero where the gradient is."""
        # In float64: the inverse of a tiny norm overflows in float32.
        norm, rows = self.dual_norm(x0, grad), grad.double()
        return (rows * expand(torch.where(norm > 0, 1 / norm, norm), rows)).to(grad)

    def dual_norm(self, x0: Tensor, grad: Tensor) -> Tensor:
        """The l2 norm."""
        return row_sum(grad.double().square()).sqrt()

    def sample(self, x0: Tensor, radius: Radius, generator: SampleGenerator) -> Tensor:
        """Uniform in the ball (Muller 1959), then projected onto ball ∩ box."""
        uniform = flat(generator.fold("radius").uniform(x0))[:, 0]
        length = uniform.double() ** (1 / flat(x0).shape[1])
        unit = self.direction(x0, generator.normal(x0))
        return self.project(x0, x0 + unit * expand(length, x0) * expand_down(radius, x0), radius)

    def diameter(self, x0: Tensor) -> Tensor:
        """Distance to the farthest corner of the box."""
        farthest = torch.maximum(self.high - x0, x0 - self.low)
        return row_sum(farthest.double().square()).sqrt().to(x0)


@dataclass(frozen=True)
class L1(Metric):
    """Sum of the absolute changes."""

    name = "l1"
    prepared = L1Ball
    unit = "sum of the absolute changes of the input"

    def distance(self, x0: Tensor, x: Tensor) -> Tensor:
        """||x - x0||_1."""
        return row_sum((x.double() - x0.double()).abs())

    def project(self, x0: Tensor, x: Tensor, radius: Radius) -> Tensor:
        """Solve min ||z - x||_2 over ball ∩ box: soft thresholding by θ, then the box's room."""
        moved = x - x0
        sign = moved.sign()
        length = _thresholded_length(moved.abs(), self.room(x0, sign), expand_down(radius, x0))
        return self.clamp(_moved(x0, sign, length))

    def ascent(self, x0: Tensor, x: Tensor, grad: Tensor, step: Radius) -> Tensor:
        """Spend the step on the coordinates of largest |g|, each up to the box (greedy, exact)."""
        sign = grad.sign()
        room = flat(self.room(x, sign) * sign.abs())
        order = flat(grad.abs()).argsort(dim=1, descending=True, stable=True)
        sorted_room = room.gather(1, order).double()
        budget = flat(expand_down(step, x)).double() * INWARD
        spent = sorted_room.cumsum(1) - sorted_room
        taken = torch.minimum(sorted_room, (budget - spent).clamp_min(0)).to(x)
        return sign * torch.zeros_like(room).scatter(1, order, taken).reshape(x.shape)

    def direction(self, x0: Tensor, grad: Tensor) -> Tensor:
        """sign(g_k) e_k, k the first coordinate of largest |g|."""
        rows = flat(grad)
        top = rows.abs().argmax(dim=1, keepdim=True)
        unit = torch.zeros_like(rows).scatter(1, top, rows.gather(1, top).sign())
        return unit.reshape(grad.shape)

    def corners(self, x0: Tensor, radius: float) -> Tensor:
        """The whole radius on one coordinate, up or down where there is room."""
        values = flat(x0)[0]
        up, down = (values < self.high).nonzero()[:, 0], (values > self.low).nonzero()[:, 0]
        moved = x0.new_zeros(len(up) + len(down), len(values))
        moved[torch.arange(len(up)), up] = radius
        moved[len(up) + torch.arange(len(down)), down] = -radius
        return moved.reshape(-1, *x0.shape[1:])

    def corner_count(self, x0: Tensor) -> Tensor:
        """Every value up and down, but for those at an end of the box."""
        return flat(x0 < self.high).sum(1) + flat(x0 > self.low).sum(1)

    def dual_norm(self, x0: Tensor, grad: Tensor) -> Tensor:
        """The linf norm."""
        return row_max(grad.double().abs())

    def sample(self, x0: Tensor, radius: Radius, generator: SampleGenerator) -> Tensor:
        """Uniform in the ball: exponential spacings with random signs, projected onto the box."""
        uniform = generator.uniform(x0)
        magnitude = -torch.log1p(-uniform.double())
        last = -torch.log1p(-flat(generator.fold("last").uniform(x0)).double()[:, 0])
        share = magnitude / expand(row_sum(magnitude) + last, magnitude)
        sign = torch.where(generator.fold("sign").uniform(x0) < 0.5, -1.0, 1.0)
        return self.project(x0, x0 + sign * share.to(x0) * expand_down(radius, x0), radius)

    def diameter(self, x0: Tensor) -> Tensor:
        """Distance to the farthest corner of the box."""
        farthest = torch.maximum(self.high - x0, x0 - self.low)
        return row_sum(farthest.double()).to(x0)


NORMS: dict[str, type[Metric]] = {"linf": Linf, "l2": L2, "l1": L1}
"""Metrics that are a norm of the change, for inputs of any shape."""

METRICS: dict[str, type[Metric]] = {**NORMS, "wasserstein": Wasserstein}
"""All metrics by name."""


def _moved(x0: Tensor, sign: Tensor, length: Tensor) -> Tensor:
    """Return x0 + sign·length rounded towards x0: no coordinate moves farther than its length."""
    x = x0 + sign * length
    beyond = (x.double() - x0.double()).abs() > length.double()
    return torch.where(beyond, torch.nextafter(x, x0), x)


def _clipped_length(size: Tensor, room: Tensor, radius: Tensor, cap: float | None) -> Tensor:
    """Return min(t·size, room) with the largest t (at most ``cap``) of Euclidean norm <= radius.

    With s = t², Σ min(s·size², room²) is concave, increasing and piecewise linear in s, so Newton
    from the left climbs monotonically to the root and stops there after finitely many steps; an
    iterate depends only on the set of saturated coordinates, hence is exact when that set rests.

    Args:
        size: (B, ...) non-negative direction.
        room: (B, ...) non-negative limits.
        radius: (B, 1, ...) Euclidean budget.
        cap: largest t, or None.
    """
    squares, limits = flat(size.double().square()), flat(room.double().square())
    budget = (flat(radius.double()) * INWARD).square()[:, 0]
    limit = float("inf") if cap is None else cap**2
    saturated = limits <= 0
    while True:
        free = row_sum(torch.where(saturated, 0.0, squares))
        left = (budget - row_sum(torch.where(saturated, limits, 0.0))).clamp_min(0)
        s = torch.where(free > 0, left / free, torch.inf).clamp_max(limit)
        grown = saturated | ((squares > 0) & (squares * s[:, None] >= limits))
        if torch.equal(grown, saturated):
            break
        saturated = grown
    # In float64: t overflows in float32 where all sizes are tiny.
    rows = torch.where(flat(size) > 0, flat(size).double() * s.sqrt()[:, None], 0.0)
    return torch.minimum(rows, flat(room).double()).to(size).reshape(size.shape)


def _thresholded_length(size: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """Return min((size - θ)_+, room) with the smallest θ >= 0 whose sum is at most the radius.

    The sum falls with θ, piecewise linearly, with kinks at size (a coordinate starts to move) and
    at size - room (it reaches the box): sort the kinks and walk down to the one that is crossed.

    Args:
        size: (B, ...) non-negative moves.
        room: (B, ...) non-negative limits.
        radius: (B, 1, ...) l1 budget.
    """
    top, limit = flat(size).double(), flat(room).double()
    budget = flat(radius).double() * INWARD
    kinks = torch.cat([top, (top - limit).clamp_min(0), torch.zeros_like(top[:, :1])], dim=1)
    turns = torch.cat([torch.ones_like(top), -torch.ones_like(top)], dim=1)
    kinks, order = kinks.sort(dim=1, descending=True, stable=True)
    moving = torch.cat([turns, torch.zeros_like(top[:, :1])], dim=1).gather(1, order).cumsum(1)
    gaps = kinks[:, :-1] - kinks[:, 1:]
    total = torch.cat([torch.zeros_like(budget), (moving[:, :-1] * gaps).cumsum(1)], dim=1)
    # The last kink whose total still fits; from there the sum grows with slope `moving`.
    fits = (total <= budget).sum(dim=1, keepdim=True) - 1
    slope = moving.gather(1, fits)
    rest = torch.where(slope > 0, (budget - total.gather(1, fits)) / slope, 0.0)
    threshold = (kinks.gather(1, fits) - rest).clamp_min(0)
    return torch.minimum((top - threshold).clamp_min(0), limit).to(size).reshape(size.shape)
