"""Exact optimal transport between images of equal mass, by POT's network simplex.

The Euclidean distance is a metric on pixels, so what both images hold may stay where it is
(Kantorovich-Rubinstein): only the change is transported, from pixels that lose mass to pixels that
gain it. The solver receives all of these pairs where there are at most `DENSE_PAIRS`; otherwise
only pairs within a radius, which grows until the dual solution proves that no longer pair could
lower the cost. Every plan is feasible, so its cost never understates the distance.
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

DENSE_PAIRS = 400 * 400
"""Number of pixel pairs up to which the solver receives all of them. More need more memory and
time in the solver; fewer need repeated solves with growing radii."""

MAX_PAIRS = 4_000_000
"""Largest number of pixel pairs that the solver receives: bounds memory and time. A larger number
proves optimality for larger images."""

FIRST_RADIUS = 3.0
"""First radius in pixels where not all pairs are given. A larger one makes each solve slower, a
smaller one needs more solves."""

MAX_PIVOTS = 10_000_000
"""Largest number of pivots of the network simplex."""

DUAL_TOLERANCE = 1e-9
"""Tolerance of dual feasibility in pixels, for the rounding of the solver."""

FloatArray = NDArray[np.float64]
Pixels = NDArray[np.int64]


@dataclass(frozen=True)
class Transport:
    """Plan that turns one channel into another; its cost is a witness of their distance.

    Attributes:
        cost: Σ amount × Euclidean distance, in mass × pixels.
        source: (K, 2) int64 rows and columns that mass leaves.
        target: (K, 2) int64 rows and columns where it arrives.
        amount: (K,) float64 mass.
        optimal: True if no plan costs less; otherwise the cost is an upper bound.
    """

    cost: float
    source: Pixels
    target: Pixels
    amount: FloatArray
    optimal: bool = True


def transport_plan(change: FloatArray) -> Transport:
    """Compute the cheapest plan that produces a change of zero sum.

    Args:
        change: (H, W) float64, finite; the gains are rescaled to sum to the losses, which removes
            rounding.

    Returns:
        The plan. Where even `MAX_PAIRS` pairs do not connect all mass, its cost is that of moving
        all mass across the diagonal of the image, which no plan can exceed. Then ``optimal`` is
        False, as it is where the last radius within `MAX_PAIRS` was not proven to suffice.
    """
    losing, gaining = np.argwhere(change < 0), np.argwhere(change > 0)
    if not len(losing) or not len(gaining):
        nowhere = np.zeros((0, 2), dtype=np.int64)
        return Transport(0.0, nowhere, nowhere, np.zeros(0))
    lost, gained = -change[change < 0], change[change > 0]
    gained = gained * (lost.sum() / gained.sum())
    if len(losing) * len(gaining) <= DENSE_PAIRS:
        plan = _solver().emd(lost, gained, cdist(losing, gaining), numItermax=MAX_PIVOTS)
        used = plan.nonzero()
        return _planned(losing[used[0]], gaining[used[1]], plan[used], optimal=True)
    return _by_near_pairs(losing, lost, gaining, gained, hypot(*change.shape))


def _solver() -> ModuleType:
    """Import POT at its first use, since the import takes seconds."""
    return import_module("ot")


def _by_near_pairs(
    losing: Pixels, lost: FloatArray, gaining: Pixels, gained: FloatArray, diagonal: float
) -> Transport:
    sources, targets = KDTree(losing), KDTree(gaining)
    # The cost across the whole diagonal bounds every plan; the first plan found replaces it.
    best = Transport(float(lost.sum()) * diagonal, losing[:0], gaining[:0], lost[:0], False)
    radius = FIRST_RADIUS
    while True:
        whole = radius >= diagonal
        if int(sources.count_neighbors(targets, radius)) > MAX_PAIRS:
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
            plan, log = _solver().emd(lost, gained, costs, numItermax=MAX_PIVOTS, log=True)
        if log["warning"] is None:
            proven = whole or _suffices(losing, log["u"], gaining, log["v"], radius)
            best = _planned(losing[plan.row], gaining[plan.col], plan.data, optimal=proven)
            if proven:
                return best
        radius *= 1.5


def _suffices(losing: Pixels, u: FloatArray, gaining: Pixels, v: FloatArray, radius: float) -> bool:
    """Return True if u_i + v_j <= C_ij also for the pairs farther apart than the radius."""
    doubtful = u + v.max() > radius
    if int(doubtful.sum()) * len(gaining) > MAX_PAIRS:
        return False
    reduced = u[doubtful, None] + v[None] - cdist(losing[doubtful], gaining)
    return not reduced.size or float(reduced.max()) <= DUAL_TOLERANCE


def _planned(source: Pixels, target: Pixels, amount: FloatArray, *, optimal: bool) -> Transport:
    moved = amount > 0
    source, target, amount = source[moved], target[moved], amount[moved]
    lengths = np.sqrt(((source - target).astype(np.float64) ** 2).sum(1))
    return Transport(float(amount @ lengths), source, target, amount, optimal)
