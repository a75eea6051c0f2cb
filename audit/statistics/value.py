"""The loss under the strongest adversary, V(delta) = sup of E_Q J over the ball, bracketed.

The lower end is attained by an attack. With gains g_i of verified examples at distances d_i, the
best use of the budget is a fractional knapsack, max { E[a·g] : 0 <= a <= 1, E[a·d^p] <= delta^p }.

The upper end follows from weak duality (Blanchet & Murthy 2019): for every λ >= 0

    V(delta) <= λ·delta^p + E[ sup_x' J(x', y) - λ·d(x, x')^p ],

and where J <= u_k within d_k of a sample, for radii 0 = d_0 < d_1 < … < d_K and u_(K+1) everywhere,
the supremum is at most max_k u_k - λ·d_(k-1)^p, as a loss above u_(k-1) needs more than d_(k-1).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from audit.schema import Interval, Sensitivity, ValuePoint
from audit.statistics.confidence import Floats

STEPS = 16
"""Number of radii of the envelope up to the largest budget, in addition to the budgets."""

FINEST = 0.02
"""Smallest radius of the envelope, in units of the smallest budget."""

WIDEST = 1e9
"""Range of λ, in units of the largest loss over the cost of the budget."""


@dataclass(frozen=True)
class Envelope:
    """Upper bounds of a loss around every sample.

    Attributes:
        radii: (K,) radii, ascending and positive.
        clean: (N,) loss of each sample.
        within: (N, K) upper bounds in the balls of the radii, nowhere less than ``clean``.
        everywhere: (N,) upper bounds in the whole box.
    """

    radii: Floats
    clean: Floats
    within: Floats
    everywhere: Floats


def grid_of(deltas: tuple[float, ...]) -> Floats:
    """Return the radii of an envelope: the positive, finite budgets and smaller radii."""
    budgets = np.array(sorted({delta for delta in deltas if 0 < delta < math.inf}))
    if not len(budgets):
        return budgets
    finer = np.geomspace(FINEST * budgets[0], budgets[-1], STEPS)
    return np.unique(np.concatenate([budgets, finer]))


def cross_entropy_bound(margins: Tensor) -> Tensor:
    """Return log(1 + Σ exp(-m_k)), ``(B,)``, for lower bounds m (B, K - 1) of margins f_y - f_k."""
    zero = margins.new_zeros(len(margins), 1)
    return torch.cat([zero, -margins], dim=1).logsumexp(1)


def at_most(envelope: Envelope, delta: float, order: float) -> float:
    """Return an upper bound of V(delta) on the samples of an envelope."""
    if delta == 0:
        return float(np.mean(np.sort(envelope.clean)))
    levels = np.column_stack([envelope.clean, envelope.within, envelope.everywhere])
    levels = np.maximum.accumulate(levels, axis=1)
    if math.isinf(order):
        place = 1 + int(np.searchsorted(envelope.radii, delta, side="left"))
        return float(np.mean(np.sort(levels[:, place])))
    # Use the inner end of every step; the first step begins at the sample itself.
    with np.errstate(over="ignore"):
        costs = np.concatenate([[0.0, 0.0], (envelope.radii / delta) ** order])
    top = float(np.ptp(levels))
    if top == 0:
        return float(levels[0, 0])

    def dual(price: float) -> float:
        worst = np.max(levels - price * np.minimum(costs, 1e300), axis=1)
        return price + float(np.mean(np.sort(worst)))

    found = minimize_scalar(
        lambda log: dual(math.exp(log)),
        bounds=(math.log(top / WIDEST), math.log(top * WIDEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return min(float(found.fun), dual(0.0))


def at_least(clean: Floats, gains: Floats, distances: Floats, delta: float, order: float) -> float:
    """Return E J with the budget spent on the examples with the best gain per cost.

    Args:
        clean: (N,) loss of the samples.
        gains: (N,) increase of the loss by their examples; negative gains are not used.
        distances: (N,) distances of the examples, ``inf`` for samples without one.
        delta: the budget.
        order: p >= 1 or ``inf``.
    """
    useful = (gains > 0) & np.isfinite(distances)
    base = float(np.mean(np.sort(clean)))
    if math.isinf(order):
        return base + float(np.sum(np.sort(gains[useful & (distances <= delta)]))) / len(clean)
    gain, distance = gains[useful], distances[useful]
    free = distance == 0
    total = float(np.sum(np.sort(gain[free])))
    gain, distance = gain[~free], distance[~free]
    if delta > 0 and len(gain):
        with np.errstate(over="ignore"):
            cost = np.minimum((distance / delta) ** order, 1e300)
        rank = np.argsort(-gain / cost, kind="stable")
        before = np.concatenate([[0.0], np.cumsum(cost[rank])[:-1]])
        share = np.clip((len(clean) - before) / cost[rank], 0.0, 1.0)
        total += float(np.sum(share * gain[rank]))
    return base + total / len(clean)


def bracketed(
    entry: Sensitivity,
    clean: Floats,
    attacked: Floats,
    envelope: Envelope | None,
    order: float,
) -> Sensitivity:
    """Add both bounds of V(delta) to the estimates V(0) + delta·Upsilon.

    Args:
        entry: estimates for one loss and order, with values that their first-order attack attains.
        clean: (N,) that loss at the samples.
        attacked: (N,) verified adversarial distances; 0 if misclassified, ``inf`` if unbroken.
        envelope: bounds of the cross-entropy, if a certifier provides them.
        order: order of the entry.
    """

    def point(found: ValuePoint) -> ValuePoint:
        attained, bounded = found.attained, None
        if entry.loss == "redlr":
            # This loss is never positive, and 0 for misclassified points.
            bounded = 0.0
            best = at_least(clean, -clean, attacked, found.delta, order)
            attained = best if attained is None else max(attained, best)
        elif entry.loss == "ce" and envelope is not None:
            bounded = at_most(envelope, found.delta, order)
        return ValuePoint(
            delta=found.delta,
            attained=attained,
            first_order=found.first_order,
            bounded=bounded,
            outside=outside(attained, found.first_order, bounded),
        )

    return entry.model_copy(update={"value": [point(found) for found in entry.value]})


def outside(
    attained: float | None, estimate: float, bounded: float | None
) -> Literal["below", "above"] | None:
    """Return the side of the bracket on which an estimate lies; None if not shown to be outside."""
    if attained is not None and estimate < attained:
        return "below"
    return "above" if bounded is not None and estimate > bounded else None


def first_order_points(
    upsilon: Interval, at_zero: Interval, attained: dict[float, float]
) -> list[ValuePoint]:
    """Return the estimate at every budget, next to the value that its own attack attains."""
    start, slope = at_zero.value, upsilon.value
    assert start is not None
    assert slope is not None
    return [
        ValuePoint(
            delta=delta,
            attained=max(start, value),
            first_order=start + delta * slope,
            bounded=None,
            outside=None,
        )
        for delta, value in attained.items()
    ]
