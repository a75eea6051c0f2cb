"""Learning-rate schedules: share of the peak rate after a share of the steps, in (0, 1]."""

import math
from collections.abc import Callable

WARM_UP = 0.05
"""Share of the steps over which the learning rate rises linearly to its peak."""


def cosine(done: float) -> float:
    """Return the share for a warm-up followed by half a cosine down to 0."""
    return min(done / WARM_UP, 1.0) * (1 + math.cos(math.pi * done)) / 2


def stepped(done: float) -> float:
    """Return the share for a warm-up, then the peak, a tenth from 60 %, a hundredth from 90 %."""
    return min(done / WARM_UP, 1.0) * (1.0 if done < 0.6 else 0.1 if done < 0.9 else 0.01)


def constant(done: float) -> float:
    """Return the share for a warm-up to the peak, which is then kept."""
    return min(done / WARM_UP, 1.0)


SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": cosine,
    "step": stepped,
    "constant": constant,
}
"""Schedules by the name that ``--schedule`` takes."""
