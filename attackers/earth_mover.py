"""Exact optimal transport between images of equal mass, by POT's network simplex.

The Euclidean distance is a metric on pixels, so what both images hold may stay where it is
(Kantorovich-Rubinstein): only the change is transported, from the pixels that lose to those that
gain. Up to `DENSE` pairs of those all are given to the solver; beyond, only pairs within a radius,
which grows until the dual solution proves that no farther pair could help. A plan is feasible in
any case, so its cost never understates the distance.
"""

import warnings
from dataclasses import dataclass
from importlib import import_module
from math import hypot
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

DENSE = 400 * 400
"""Pairs of pixels that are all given to the solver."""

PAIRS = 4_000_000
"""The most pairs that are given to the solver at all."""

FIRST_RADIUS = 3.0
"""Pixels between pairs at first, where not all are given."""

PIVOTS = 10_000_000
"""Of the network simplex."""

SLACK = 1e-9
"""By which a dual solution may miss, in pixels."""

Floats = NDArray[np.float64]
Pixels = NDArray[np.int64]


@dataclass(frozen=True)
class Transport:
    """A plan that turns one channel into another; the witness of their distance.

    Attributes:
        cost: Σ amount × Euclidean distance, in mass × pixels.
        source: (K, 2) int64 rows and columns that mass leaves.
        target: (K, 2) int64 where it goes.
        amount: (K,) float64 mass.
        optimal: whether no plan costs less; otherwise the cost is an upper bound.
    """

    cost: float
    source: Pixels
    target: Pixels
    amount: Floats
    optimal: bool = True


def transport_plan(change: Floats) -> Transport:
    """The cheapest plan that makes a change of zero sum.

    Args:
        change: (H, W) float64; what does not add up to zero by rounding is left out.

    Returns:
        The plan. Where even `PAIRS` pairs do not connect all mass, one across the image's
        diagonal is assumed, which no plan can exceed: ``optimal`` is False then, as it is
        where the last radius that fits was not proven to suffice.
    """
    losing, gaining = np.argwhere(change < 0), np.argwhere(change > 0)
    if not len(losing) or not len(gaining):
        nowhere = np.zeros((0, 2), dtype=np.int64)
        return Transport(0.0, nowhere, nowhere, np.zeros(0))
    lost, gained = -change[change < 0], change[change > 0]
    gained = gained * (lost.sum() / gained.sum())
    if len(losing) * len(gaining) <= DENSE:
        plan = _solver().emd(lost, gained, cdist(losing, gaining), numItermax=PIVOTS)
        used = plan.nonzero()
        return _planned(losing[used[0]], gaining[used[1]], plan[used], optimal=True)
    return _by_near_pairs(losing, lost, gaining, gained, hypot(*change.shape))


def _solver() -> ModuleType:
    """POT, imported when it is first needed: it takes seconds."""
    return import_module("ot")


def _by_near_pairs(
    losing: Pixels, lost: Floats, gaining: Pixels, gained: Floats, diagonal: float
) -> Transport:
    sources, targets = KDTree(losing), KDTree(gaining)
    # A plan across the whole image: right of every one, and replaced by the first that is found.
    best = Transport(float(lost.sum()) * diagonal, losing[:0], gaining[:0], lost[:0], False)
    radius = FIRST_RADIUS
    while True:
        whole = radius >= diagonal
        if int(sources.count_neighbors(targets, radius)) > PAIRS:
            return best
        pairs = sources.sparse_distance_matrix(targets, radius, output_type="ndarray")
        costs = coo_matrix(
            (
                np.ascontiguousarray(pairs["v"]),
                (np.ascontiguousarray(pairs["i"]), np.ascontiguousarray(pairs["j"])),
            ),
            shape=(len(losing), len(gaining)),
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Problem infeasible")
            plan, log = _solver().emd(lost, gained, costs, numItermax=PIVOTS, log=True)
        if log["warning"] is None:
            proven = whole or _suffices(losing, log["u"], gaining, log["v"], radius)
            best = _planned(losing[plan.row], gaining[plan.col], plan.data, optimal=proven)
            if proven:
                return best
        radius *= 1.5


def _suffices(losing: Pixels, u: Floats, gaining: Pixels, v: Floats, radius: float) -> bool:
    """Whether u_i + v_j <= C_ij also for the pairs that are farther apart than the radius."""
    doubtful = u + v.max() > radius
    if int(doubtful.sum()) * len(gaining) > PAIRS:
        return False
    reduced = u[doubtful, None] + v[None] - cdist(losing[doubtful], gaining)
    return not reduced.size or float(reduced.max()) <= SLACK


def _planned(source: Pixels, target: Pixels, amount: Floats, *, optimal: bool) -> Transport:
    moved = amount > 0
    source, target, amount = source[moved], target[moved], amount[moved]
    lengths = np.sqrt(((source - target).astype(np.float64) ** 2).sum(1))
    return Transport(float(amount @ lengths), source, target, amount, optimal)
