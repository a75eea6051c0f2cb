"""Row-wise arithmetic whose result for a sample never depends on the samples beside it."""

import torch
from torch import Tensor

DIVISOR_FLOOR = 1e-300
"""Smallest divisor of float64 quotients that would otherwise divide by zero: 0 / 1e-300 is 0."""


def flat(x: Tensor) -> Tensor:
    """View ``(B, ...)`` as ``(B, D)``."""
    return x.flatten(1)


def row_sum(x: Tensor) -> Tensor:
    """Sum each row: ``(B, ...) -> (B,)``, bit-identical for every batch size.

    With a single row torch splits the reduction between threads, which changes the rounding;
    a second row makes it split between rows instead.
    """
    rows = flat(x)
    if len(rows) == 1:
        return rows.expand(2, -1).sum(1)[:1]
    return rows.sum(1)


def row_max(x: Tensor) -> Tensor:
    """Largest entry of each row: ``(B, ...) -> (B,)``."""
    return flat(x).amax(1)


def expand(value: Tensor | float, like: Tensor) -> Tensor:
    """Broadcast a per-sample ``(B,)`` value, or a number, against ``like``, ``(B, ...)``."""
    if not isinstance(value, Tensor):
        value = like.new_full((len(like),), value)
    return value.to(like).reshape(-1, *[1] * (like.dim() - 1))


def over(mask: Tensor, like: Tensor) -> Tensor:
    """Broadcast a per-sample mask ``(B,)`` against ``like``, ``(B, ...)``."""
    return mask.reshape(-1, *[1] * (like.dim() - 1))


def expand_down(value: Tensor | float, like: Tensor) -> Tensor:
    """Like `expand`, rounding towards zero: no radius becomes larger than the one meant."""
    if not isinstance(value, Tensor):
        value = like.new_full((len(like),), value, dtype=torch.float64)
    rounded = value.to(like)
    larger = rounded.double() > value.double()
    rounded = torch.where(larger, torch.nextafter(rounded, torch.zeros_like(rounded)), rounded)
    return rounded.reshape(-1, *[1] * (like.dim() - 1))
