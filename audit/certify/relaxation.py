"""Linear relaxations of elementwise operations, and the backward pass of coefficients through them.

Between the bounds [l, u] of its input z, an operation a(z) lies between two lines,

    lower_slope·z + lower_offset <= a(z) <= upper_slope·z + upper_offset.

To propagate a lower bound Σ lA·a backwards, a positive coefficient takes the lower line and a
negative one the upper line (Zhang et al. 2018, theorem 3.2). This is a backward pass, so it is
implemented as one: `Relaxed` computes the operation itself, and its gradient follows that rule. The
difference between the lines and the computed value is collected as the gradient of a second input,
the *bias*: at the point where the network was evaluated, the linear bound equals the network's
value plus the bias.

Source: Zhang, Weng, Chen, Hsieh, Daniel 2018 (CROWN).
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Lines:
    """Lower and upper line of every value; all tensors have the shape ``(B, ...)`` of the input.

    Attributes:
        lower_slope, lower_offset: float, the lower line.
        upper_slope, upper_offset: float, the upper line.
        unstable: bool, True for neurons whose bounds contain the breakpoint at 0, so that any slope
            between ``min_slope`` and 1 gives a lower line; None if no slope may be changed.
        min_slope: slope of the operation below its breakpoint.
    """

    lower_slope: Tensor
    lower_offset: Tensor
    upper_slope: Tensor
    upper_offset: Tensor
    unstable: Tensor | None = None
    min_slope: float = 0.0

    def take(self, rows: Tensor) -> Self:
        """Select the lines of samples ``rows`` (R,) int64; a sample may occur more than once."""
        return replace(
            self,
            lower_slope=self.lower_slope[rows],
            lower_offset=self.lower_offset[rows],
            upper_slope=self.upper_slope[rows],
            upper_offset=self.upper_offset[rows],
            unstable=None if self.unstable is None else self.unstable[rows],
        )

    def attach(self, z: Tensor, bias: Tensor, value: Tensor) -> Tensor:
        """Return ``value``, the operation at ``z``, with the relaxation as its gradient."""
        out = Relaxed.apply(z, bias, value, self)
        assert isinstance(out, Tensor)
        return out

    def with_lower_slope(self, slope: Tensor) -> Self:
        """Replace the lower slopes of unstable neurons by ``slope``, clamped to valid slopes."""
        if self.unstable is None:
            return self
        allowed = slope.to(self.lower_slope).clamp(self.min_slope, 1.0)
        return replace(self, lower_slope=torch.where(self.unstable, allowed, self.lower_slope))


class Relaxed(torch.autograd.Function):
    """Elementwise operation whose backward pass propagates a linear lower bound.

    The lines either have one row per row of ``z``, or belong to one sample, and all rows are copies
    of it.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, bias: Tensor, value: Tensor, lines: Lines) -> Tensor:
        """Return ``value``, the operation at ``z``; ``bias`` holds zeros ``(B,)``."""
        del bias
        shared = len(lines.lower_slope) == 1
        ctx.save_for_backward(*(x[:1] if shared else x for x in (z, value)))
        ctx.lines = lines
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Map coefficients of the output to coefficients of ``z`` and to the bias of the lines."""
        (lA,), (z, value), lines = grads, ctx.saved_tensors, ctx.lines
        # A negative coefficient takes the upper line, a positive one the lower line. Here all take
        # the upper line, and the positive ones add the difference of the two lines.
        positive = lA.clamp_min(0)
        above = lines.upper_slope * z + lines.upper_offset - value
        below = lines.lower_slope * z + lines.lower_offset - value
        bias = dot(lA, above) + dot(positive, below - above)
        steeper = lines.lower_slope - lines.upper_slope
        passed = torch.addcmul(lA * lines.upper_slope, positive, steeper)
        return passed, bias, None, None


def dot(rows: Tensor, others: Tensor) -> Tensor:
    """Return inner products ``(R,)`` of rows ``(R, ...)`` with as many other rows, or with one."""
    if len(others) == 1:
        return rows.flatten(1) @ others.flatten()
    return (rows * others).flatten(1).sum(1)
