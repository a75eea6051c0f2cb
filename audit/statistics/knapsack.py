"""Distributional adversarial accuracy from per-sample radii: a fractional knapsack.

For a threat of order p the adversary may replace the data's law P by any Q with W_p(P, Q) <= delta.
With r the distance of a sample to its nearest misclassified point (0 if already wrong),

    1 - A_delta = max { E[a] : 0 <= a <= 1, E[a·r^p] <= delta^p }
                = min_{λ >= 0}  λ·delta^p + E[(1 - λ·r^p)_+]        (1 <= p < inf)

and for order inf 1 - A_delta = P(r <= delta). On N samples the nearest ones are flipped first while
the mean cost is within the budget, the last one fractionally. The value is monotone in r: verified
adversarial distances give an upper bound on A_delta, certified radii give a lower bound.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from audit.statistics.confidence import Floats


def adversarial_error(radii: ArrayLike, deltas: ArrayLike, order: float) -> Floats:
    """Return 1 - A_delta for every budget at once.

    Args:
        radii: (N,) non-negative distances, 0 if already misclassified, ``inf`` if no adversarial
            example was found.
        deltas: (K,) non-negative budgets, in the unit of the radii.
        order: p >= 1, or ``inf``.

    Returns:
        (K,) float64 in [0, 1]. At delta = 0 this is the clean error for every order.
    """
    flipped, n = _flipped_at(radii, deltas, order)
    return flipped / n


def adversarial_accuracy(radii: ArrayLike, deltas: ArrayLike, order: float) -> Floats:
    """Return A_delta for every budget; see `adversarial_error`.

    The samples that remain correct are counted: 2 of 100 give 0.02, not 1 - 0.98 with its rounding.
    """
    flipped, n = _flipped_at(radii, deltas, order)
    return (n - flipped) / n


def _flipped_at(radii: ArrayLike, deltas: ArrayLike, order: float) -> tuple[Floats, int]:
    r = np.sort(np.asarray(radii, dtype=np.float64))
    budgets = np.asarray(deltas, dtype=np.float64)
    if len(r) == 0:
        raise ValueError("no radii")
    if math.isinf(order):
        return np.searchsorted(r, budgets, side="right").astype(np.float64), len(r)
    return np.asarray([_flipped(r, float(budget), order) for budget in budgets]), len(r)


def _flipped(r: Floats, budget: float, order: float) -> float:
    """Return how many sorted radii a mean cost of budget^p pays for, the last one fractionally."""
    if budget == 0:
        return float(np.searchsorted(r, 0.0, side="right"))
    # Keep every radius that all budgets together could pay for alone, and the next radius.
    reach = np.searchsorted(r, budget * len(r) ** (1 / order), side="right") + 1
    # In units of the budget, a power that underflows costs nothing, and one that overflows cannot
    # be paid for, at any order.
    with np.errstate(over="ignore"):
        costs = (r[:reach] / budget) ** order
    spent = np.concatenate([[0.0], np.cumsum(costs)])
    whole = int(np.searchsorted(spent, len(r), side="right")) - 1
    return float(whole + ((len(r) - spent[whole]) / costs[whole] if whole < len(costs) else 0.0))
