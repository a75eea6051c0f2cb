"""Context that flushes denormal numbers to zero in the CPU arithmetic of one thread."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Flush denormal numbers to zero in this thread's CPU arithmetic, then restore the old mode.

    Kernels e^{-C/ε} contain many of them, and on some processors each costs a hundred cycles.
    torch can set the mode but not report it, so `denormals_are_flushed` tests it.
    """
    before = denormals_are_flushed()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def denormals_are_flushed() -> bool:
    """Return True if half of the smallest normal float64 is zero on this thread's CPU."""
    smallest = torch.tensor(torch.finfo(torch.float64).tiny, dtype=torch.float64, device="cpu")
    return bool(smallest / 2 == 0)
