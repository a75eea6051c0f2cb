"""Linear bounds of nonlinear operations, and how coefficients pass backwards through them.

Between the bounds [l, u] of its input z, an operation a(z) lies between two lines,

    lower_slope·z + lower_offset <= a(z) <= upper_slope·z + upper_offset.

Passing a lower bound Σ A·a backwards, a positive coefficient takes the lower line and a negative
one the upper (Zhang et al. 2018, theorem 3.2). That is a backward pass, so it is written as one:
`Relaxed` computes the operation itself, and its gradient is the rule. What the line loses against
the value that was computed is collected in a second gradient, the *gap*: at the point where the
network was evaluated, the linear bound is the network's own value plus the gap.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

BISECTIONS = 40
"""Of the point where a line from the end of the interval touches an S-shaped function."""

MARGIN = 1e-6
"""By which lines found by bisection are moved outwards, relative to the function's range."""


@dataclass(frozen=True)
class Lines:
    """The two lines of every value, all of the shape of the input ``(B, ...)``.

    Attributes:
        lower_slope, lower_offset, upper_slope, upper_offset: of the lines.
        free: bool, where the lower line may have any slope between ``flattest`` and 1 (the bend of
            the operation, at 0, lies inside the bounds); None where no slope may be changed.
        flattest: the slope of the operation below its bend.
    """

    lower_slope: Tensor
    lower_offset: Tensor
    upper_slope: Tensor
    upper_offset: Tensor
    free: Tensor | None = None
    flattest: float = 0.0

    def take(self, rows: Tensor) -> Self:
        """The lines of some samples, perhaps repeated; ``rows``: (R,) int64."""
        return replace(
            self,
            lower_slope=self.lower_slope[rows],
            lower_offset=self.lower_offset[rows],
            upper_slope=self.upper_slope[rows],
            upper_offset=self.upper_offset[rows],
            free=None if self.free is None else self.free[rows],
        )

    def applied(self, z: Tensor, gap: Tensor, value: Tensor) -> Tensor:
        """The operation's ``value`` at ``z``, which passes linear bounds when differentiated."""
        out = Relaxed.apply(z, gap, value, self)
        assert isinstance(out, Tensor)
        return out

    def sloped(self, slope: Tensor) -> Self:
        """The same with other slopes of the lower line, where it is free to have them."""
        if self.free is None:
            return self
        allowed = slope.to(self.lower_slope).clamp(self.flattest, 1.0)
        return replace(self, lower_slope=torch.where(self.free, allowed, self.lower_slope))


class Relaxed(torch.autograd.Function):
    """An operation on each value whose backward pass propagates a linear lower bound.

    The lines may belong to each row, or be one sample's, of which all rows are values.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, gap: Tensor, value: Tensor, lines: Lines) -> Tensor:
        """Return ``value``, what the operation makes of ``z``; ``gap``: (B,) zeros."""
        del gap
        shared = len(lines.lower_slope) == 1
        ctx.save_for_backward(*(x[:1] if shared else x for x in (z, value)))
        ctx.lines = lines
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Coefficients of the output to those of ``z``, and what the lines lose."""
        (coefficients,), (z, value), lines = grads, ctx.saved_tensors, ctx.lines
        # A negative coefficient takes the upper line, a positive one the lower: all take the upper
        # one, and the positive ones the difference too.
        positive = coefficients.clamp_min(0)
        above = lines.upper_slope * z + lines.upper_offset - value
        below = lines.lower_slope * z + lines.lower_offset - value
        lost = dot(coefficients, above) + dot(positive, below - above)
        steeper = lines.lower_slope - lines.upper_slope
        passed = torch.addcmul(coefficients * lines.upper_slope, positive, steeper)
        return passed, lost, None, None


def dot(rows: Tensor, others: Tensor) -> Tensor:
    """Products of rows ``(R, ...)`` with their own others, or all with one, ``(R,)``."""
    if len(others) == 1:
        return rows.flatten(1) @ others.flatten()
    return (rows * others).flatten(1).sum(1)


def kinked(low: Tensor, high: Tensor, negative: float) -> Lines:
    """ReLU (``negative`` = 0) or leaky ReLU: z above 0, negative·z below; 0 <= negative <= 1.

    Above lies the chord. Below lies the one of the two pieces that leaves the smaller area
    (adaptive slope, Zhang et al. 2018).
    """
    active, dead = low >= 0, high <= 0
    width = (high - low).clamp_min(torch.finfo(low.dtype).tiny)
    chord = (high - negative * low) / width
    offset = negative * low - chord * low
    one, slope = torch.ones_like(low), torch.full_like(low, negative)
    below = torch.where(high > -low, one, slope)
    zero = torch.zeros_like(low)
    # Rounded upwards: the chord has to lie above at both ends.
    offset = offset + 4 * torch.finfo(low.dtype).eps * (chord * low).abs()
    return Lines(
        torch.where(active, one, torch.where(dead, slope, below)),
        zero,
        torch.where(active, one, torch.where(dead, slope, chord)),
        torch.where(active | dead, zero, offset),
        free=~(active | dead),
        flattest=negative,
    )


def clipped(low: Tensor, high: Tensor, floor: float, ceiling: float) -> Lines:
    """min(max(z, floor), ceiling): the sum of a ReLU at the floor and minus one at the ceiling.

    Its lower line is that of the first minus the upper of the second, each an exact bound.
    """
    rising = kinked(low - floor, high - floor, 0.0)
    capped = kinked(low - ceiling, high - ceiling, 0.0)
    lower_slope = rising.lower_slope - capped.upper_slope
    upper_slope = rising.upper_slope - capped.lower_slope
    lower = Lines(
        lower_slope,
        floor
        - rising.lower_slope * floor
        + rising.lower_offset
        + capped.upper_slope * ceiling
        - capped.upper_offset,
        upper_slope,
        floor
        - rising.upper_slope * floor
        + rising.upper_offset
        + capped.lower_slope * ceiling
        - capped.lower_offset,
    )
    # A flat line at what the function can reach there may be tighter, at the middle.
    bottom, top = low.clamp(floor, ceiling), high.clamp(floor, ceiling)
    flat_low = _at_middle(lower.lower_slope, lower.lower_offset, low, high) < bottom
    flat_high = _at_middle(lower.upper_slope, lower.upper_offset, low, high) > top
    zero = torch.zeros_like(low)
    return Lines(
        torch.where(flat_low, zero, lower.lower_slope),
        torch.where(flat_low, bottom, lower.lower_offset),
        torch.where(flat_high, zero, lower.upper_slope),
        torch.where(flat_high, top, lower.upper_offset),
    )


def _at_middle(slope: Tensor, offset: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """A line's value at the middle of the interval."""
    return slope * (low + high) / 2 + offset


def s_shaped(
    function: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]
) -> Callable[[Tensor, Tensor], Lines]:
    """Lines of an increasing function that is convex below 0 and concave above.

    On an interval of one sign: the chord, and the tangent at the middle. Across 0: the tangent
    through the far end where it touches inside the interval, else the chord.
    """

    def lines(low: Tensor, high: Tensor) -> Lines:
        at_low, at_high = function(low), function(high)
        width = high - low
        narrow = width < 1e-6
        chord = torch.where(narrow, slope(low), (at_high - at_low) / width.clamp_min(1e-12))
        middle = (low + high) / 2
        tangent = slope(middle)
        offset_of_tangent = function(middle) - tangent * middle
        offset_of_chord = at_low - chord * low
        concave, convex = low >= 0, high <= 0
        above = _touching(function, slope, low, high, upper=True)
        below = _touching(function, slope, low, high, upper=False)

        def chosen(
            straight: Tensor, curved: Tensor, crossing: tuple[Tensor, Tensor]
        ) -> tuple[Tensor, Tensor]:
            steep = torch.where(straight, chord, torch.where(curved, tangent, crossing[0]))
            offset = torch.where(
                straight, offset_of_chord, torch.where(curved, offset_of_tangent, crossing[1])
            )
            return steep, offset

        lower_slope, lower_offset = chosen(concave, convex, below)
        upper_slope, upper_offset = chosen(convex, concave, above)
        # Rounding and a bisection that stops early are paid for at the ends.
        room = MARGIN * (at_high - at_low) + 8 * torch.finfo(low.dtype).eps
        return Lines(lower_slope, lower_offset - room, upper_slope, upper_offset + room)

    return lines


def _touching(
    function: Callable[[Tensor], Tensor],
    slope: Callable[[Tensor], Tensor],
    low: Tensor,
    high: Tensor,
    *,
    upper: bool,
) -> tuple[Tensor, Tensor]:
    """The line through one end that touches the far branch, or the chord where none does.

    Above: through the low end, touching at d in [0, high] with f'(d) (d - low) = f(d) - f(low).
    The steepest of the lines through the end that stay outside is the least d at which the tangent
    passes beyond the end.
    """
    end = low if upper else high
    inner, outer = torch.zeros_like(low), (high if upper else low)
    at_end = function(end)

    def passes_outside(at: Tensor) -> Tensor:
        value = function(at) + slope(at) * (end - at)
        return value >= at_end if upper else value <= at_end

    fits = passes_outside(outer)
    for _ in range(BISECTIONS):
        middle = (inner + outer) / 2
        outside = passes_outside(middle)
        outer = torch.where(outside, middle, outer)
        inner = torch.where(outside, inner, middle)
    steep = slope(outer)
    offset = function(outer) - steep * outer
    width = (high - low).clamp_min(1e-12)
    chord = (function(high) - function(low)) / width
    return (
        torch.where(fits, steep, chord),
        torch.where(fits, offset, function(low) - chord * low),
    )


sigmoid = s_shaped(torch.sigmoid, lambda z: torch.sigmoid(z) * (1 - torch.sigmoid(z)))
tanh = s_shaped(torch.tanh, lambda z: 1 - torch.tanh(z).square())


@dataclass(frozen=True)
class Candidates:
    """Which of the last axis' values bound their maximum.

    Attributes:
        best: (B, ..., 1) int64, the one of largest lower bound.
        ceiling: (B, ...) largest upper bound.
        decided: (B, ...) bool, no other one can exceed the best.
    """

    best: Tensor
    ceiling: Tensor
    decided: Tensor

    @classmethod
    def of(cls, low: Tensor, high: Tensor) -> "Candidates":
        """Compare bounds ``(B, ..., K)``."""
        floor, best = low.max(-1, keepdim=True)
        rivals = high.scatter(-1, best, -torch.inf).amax(-1)
        return cls(best, high.amax(-1), rivals <= floor[..., 0])

    def take(self, rows: Tensor) -> "Candidates":
        """Those of some samples, perhaps repeated; ``rows``: (R,) int64."""
        return Candidates(self.best[rows], self.ceiling[rows], self.decided[rows])

    def applied(self, z: Tensor, gap: Tensor, value: Tensor) -> Tensor:
        """The maxima ``value`` of ``z``, which pass linear bounds when differentiated."""
        out = RelaxedMaximum.apply(z, gap, value, self)
        assert isinstance(out, Tensor)
        return out


class RelaxedMaximum(torch.autograd.Function):
    """The maximum over the last axis: below it lies its best value, above that or a constant.

    The candidates may belong to each row, or be one sample's, of which all rows are values.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, gap: Tensor, maxima: Tensor, found: Candidates) -> Tensor:
        """Return the maxima of ``z`` (B, ..., K); ``gap``: (B,) zeros."""
        del gap
        ctx.save_for_backward(z, maxima)
        ctx.candidates = found
        return maxima.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Coefficients go to the best value; undecided negative ones to the constant."""
        (coefficients,), (z, maxima), found = grads, ctx.saved_tensors, ctx.candidates
        to_best = torch.where(found.decided, coefficients, coefficients.clamp_min(0))
        winner = found.best.expand(len(z), *found.best.shape[1:])
        best = z.gather(-1, winner)[..., 0]
        lost = to_best * (best - maxima) + (coefficients - to_best) * (found.ceiling - maxima)
        passed = torch.zeros_like(z).scatter(-1, winner, to_best[..., None])
        return passed, lost.flatten(1).sum(1), None, None


@dataclass(frozen=True)
class CornerLines(Lines):
    """Lines of a convex operation whose upper bound is known at corners; see `simplex`.

    Attributes:
        top: (1, ...) the upper bound at the sample.
        left: (R, ...) zeros, whose gradient is what stays on the upper bound.
    """

    top: Tensor = field(default_factory=lambda: torch.zeros(0))
    left: Tensor = field(default_factory=lambda: torch.zeros(0))

    @classmethod
    def of(cls, lines: Lines, top: Tensor) -> "CornerLines":
        """From the lines over the whole ball."""
        names = ("lower_slope", "lower_offset", "upper_slope", "upper_offset", "free", "flattest")
        return cls(**{name: getattr(lines, name) for name in names}, top=top)

    def leaving(self, left: Tensor) -> Self:
        """The same, with what collects the coefficients that stay."""
        return replace(self, left=left)

    def applied(self, z: Tensor, gap: Tensor, value: Tensor) -> Tensor:
        """The operation's ``value`` at ``z``, which passes linear bounds when differentiated."""
        out = RelaxedAtCorners.apply(z, gap, self.left, value, self)
        assert isinstance(out, Tensor)
        return out


class RelaxedAtCorners(torch.autograd.Function):
    """`Relaxed`, but negative coefficients of values that may bend stay on the upper bound."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, gap: Tensor, left: Tensor, value: Tensor, lines: CornerLines
    ) -> Tensor:
        """Return ``value`` (R, ...), of one sample; ``left``: zeros of its shape."""
        del gap, left
        ctx.save_for_backward(z[:1], value[:1])
        ctx.lines = lines
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Coefficients of ``z``, what the lines lose at the sample, and what stays."""
        (coefficients,), (z, value), lines = grads, ctx.saved_tensors, ctx.lines
        assert lines.free is not None
        positive = coefficients.clamp_min(0)
        stays = torch.where(lines.free, coefficients - positive, 0.0)
        straight = coefficients - positive - stays
        below = lines.lower_slope * z + lines.lower_offset - value
        above = lines.upper_slope * z + lines.upper_offset - value
        lost = dot(positive, below) + dot(straight, above) + dot(stays, lines.top - value)
        passed = positive * lines.lower_slope + straight * lines.upper_slope
        return passed, lost, stays, None, None


@dataclass(frozen=True)
class CornerMaximum:
    """A maximum whose upper bound is known at corners; see `simplex`.

    Attributes:
        best: (1, ..., 1) int64, the value below.
        top: (1, ...) the upper bound at the sample.
        decided: (1, ...) bool, the best is the maximum at every corner.
        left: (R, ...) zeros, whose gradient is what stays on the upper bound.
    """

    best: Tensor
    top: Tensor
    decided: Tensor
    left: Tensor = field(default_factory=lambda: torch.zeros(0))

    def take(self, rows: Tensor) -> Self:
        """There is one sample."""
        del rows
        return self

    def leaving(self, left: Tensor) -> Self:
        """The same, with what collects the coefficients that stay."""
        return replace(self, left=left)

    def applied(self, z: Tensor, gap: Tensor, value: Tensor) -> Tensor:
        """The maxima ``value`` of ``z``, which pass linear bounds when differentiated."""
        winner = self.best.expand(len(z), *self.best.shape[1:])
        best = z.gather(-1, winner)[..., 0]
        one = torch.ones_like(self.top)
        zero = torch.zeros_like(self.top)
        lines = CornerLines(one, zero, one, zero, ~self.decided, 1.0, self.top, self.left)
        return lines.applied(best, gap, value)
