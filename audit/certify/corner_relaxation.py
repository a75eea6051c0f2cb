"""Relaxations with an upper bound known at every corner of a ball; see `audit.certify.simplex`."""

from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from audit.certify.relaxation import Lines, dot


@dataclass(frozen=True)
class CornerLines(Lines):
    """Lines of a convex operation whose upper bound is known at corners.

    Attributes:
        upper_at_sample: (1, ...) float, the upper bound at the sample.
        remaining: (R, ...) zeros whose gradient is the coefficients left on the upper bound.
    """

    upper_at_sample: Tensor = field(default_factory=lambda: torch.zeros(0))
    remaining: Tensor = field(default_factory=lambda: torch.zeros(0))

    @classmethod
    def of(cls, lines: Lines, upper_at_sample: Tensor) -> "CornerLines":
        """Add the upper bound at the sample to lines that hold in the whole ball."""
        names = (
            "lower_slope",
            "lower_offset",
            "upper_slope",
            "upper_offset",
            "unstable",
            "min_slope",
        )
        kept = {name: getattr(lines, name) for name in names}
        return cls(**kept, upper_at_sample=upper_at_sample)

    def collecting(self, remaining: Tensor) -> Self:
        """Set the tensor that collects the remaining coefficients."""
        return replace(self, remaining=remaining)

    def attach(self, z: Tensor, bias: Tensor, value: Tensor) -> Tensor:
        """Return ``value``, the operation at ``z``, with the relaxation as its gradient."""
        out = RelaxedAtCorners.apply(z, bias, self.remaining, value, self)
        assert isinstance(out, Tensor)
        return out


class RelaxedAtCorners(torch.autograd.Function):
    """`Relaxed`, but negative coefficients of unstable neurons remain on the upper bound."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, bias: Tensor, remaining: Tensor, value: Tensor, lines: CornerLines
    ) -> Tensor:
        """Return ``value`` (R, ...), copies of one sample; ``remaining``: zeros of its shape."""
        del bias, remaining
        ctx.save_for_backward(z[:1], value[:1])
        ctx.lines = lines
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return coefficients of ``z``, the bias at the sample, and the remaining coefficients."""
        (lA,), (z, value), lines = grads, ctx.saved_tensors, ctx.lines
        assert lines.unstable is not None
        positive = lA.clamp_min(0)
        remaining = torch.where(lines.unstable, lA - positive, 0.0)
        stable = lA - positive - remaining
        below = lines.lower_slope * z + lines.lower_offset - value
        above = lines.upper_slope * z + lines.upper_offset - value
        bias = (
            dot(positive, below)
            + dot(stable, above)
            + dot(remaining, lines.upper_at_sample - value)
        )
        passed = positive * lines.lower_slope + stable * lines.upper_slope
        return passed, bias, remaining, None, None


@dataclass(frozen=True)
class CornerMaximum:
    """Maximum over the last axis whose upper bound is known at corners, for one sample.

    Attributes:
        best: (1, ..., 1) int64, the value that is the lower bound.
        upper_at_sample: (1, ...) float, the upper bound at the sample.
        decided: (1, ...) bool, True where the best value is the maximum at every corner.
        remaining: (R, ...) zeros whose gradient is the coefficients left on the upper bound.
    """

    best: Tensor
    upper_at_sample: Tensor
    decided: Tensor
    remaining: Tensor = field(default_factory=lambda: torch.zeros(0))

    def take(self, rows: Tensor) -> Self:
        """Return this relaxation unchanged, since there is only one sample."""
        del rows
        return self

    def collecting(self, remaining: Tensor) -> Self:
        """Set the tensor that collects the remaining coefficients."""
        return replace(self, remaining=remaining)

    def attach(self, z: Tensor, bias: Tensor, value: Tensor) -> Tensor:
        """Return ``value``, the maxima of ``z``, with the relaxation as their gradient."""
        winner = self.best.expand(len(z), *self.best.shape[1:])
        best = z.gather(-1, winner)[..., 0]
        one = torch.ones_like(self.upper_at_sample)
        zero = torch.zeros_like(self.upper_at_sample)
        lines = CornerLines(
            one, zero, one, zero, ~self.decided, 1.0, self.upper_at_sample, self.remaining
        )
        return lines.attach(best, bias, value)
