"""Threat: the metric, budget and order that bound an adversary."""

import math
from dataclasses import dataclass

from attackers.geometry import Metric, Radius


@dataclass(frozen=True)
class Threat:
    """Metric, budget, and how the budget is shared between samples.

    Order ``inf`` is the pointwise threat: every sample may move by ``delta``, which may then be one
    radius per sample ``(B,)``. A finite order p >= 1 bounds E[d^p]^(1/p) over the data.
    """

    metric: Metric
    delta: Radius
    order: float = math.inf
