"""Relaxation of a maximum over the last axis: bounded by its best candidate, or by a constant."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Candidates:
    """Values along the last axis that bound their maximum.

    Attributes:
        best: (B, ..., 1) int64, the value with the largest lower bound.
        ceiling: (B, ...) float, the largest upper bound.
        decided: (B, ...) bool, True where no other value can exceed the best one.
    """

    best: Tensor
    ceiling: Tensor
    decided: Tensor

    @classmethod
    def of(cls, lower: Tensor, upper: Tensor) -> "Candidates":
        """Compare lower and upper bounds ``(B, ..., K)`` of K values."""
        floor, best = lower.max(-1, keepdim=True)
        rivals = upper.scatter(-1, best, -torch.inf).amax(-1)
        return cls(best, upper.amax(-1), rivals <= floor[..., 0])

    def take(self, rows: Tensor) -> "Candidates":
        """Select samples ``rows`` (R,) int64; a sample may occur more than once."""
        return Candidates(self.best[rows], self.ceiling[rows], self.decided[rows])

    def attach(self, z: Tensor, bias: Tensor, value: Tensor) -> Tensor:
        """Return ``value``, the maxima of ``z``, with the relaxation as their gradient."""
        out = RelaxedMaximum.apply(z, bias, value, self)
        assert isinstance(out, Tensor)
        return out


class RelaxedMaximum(torch.autograd.Function):
    """Maximum over the last axis whose backward pass propagates a linear lower bound.

    The lower line is the best candidate. The upper line is also the best candidate where it is
    decided, and the constant ceiling elsewhere. The candidates either have one row per row of
    ``z``, or belong to one sample, and all rows are copies of it.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, bias: Tensor, maxima: Tensor, found: Candidates) -> Tensor:
        """Return the maxima of ``z`` (B, ..., K); ``bias`` holds zeros ``(B,)``."""
        del bias
        ctx.save_for_backward(z, maxima)
        ctx.candidates = found
        return maxima.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Pass coefficients to the best value, undecided negative ones to the constant."""
        (lA,), (z, maxima), found = grads, ctx.saved_tensors, ctx.candidates
        to_best = torch.where(found.decided, lA, lA.clamp_min(0))
        winner = found.best.expand(len(z), *found.best.shape[1:])
        best = z.gather(-1, winner)[..., 0]
        bias = to_best * (best - maxima) + (lA - to_best) * (found.ceiling - maxima)
        passed = torch.zeros_like(z).scatter(-1, winner, to_best[..., None])
        return passed, bias.flatten(1).sum(1), None, None
