"""Soft accuracy: the probability that one noisy draw of the served model is correct, under attack.

For a smoothed model, `--smooth` certifies radii of the *vote*. The probability p behind the vote
carries more information than p > 1/2: within d of a sample it is at least h(d), which falls slowly.
With Q any law in the ball of order p around the data's, weak duality gives for every λ >= 0

    E_Q P(f(X + noise) = Y)  >=  -λ·delta^p + E[ min_d h(d) + λ·d^p ],

the soft form of the fractional knapsack. For Gaussian noise h(d) = Φ(Φ⁻¹(p) - d/sigma). That is
never less than the bound of Kumar, Levine, Goldstein, Feizi 2022, which uses only the mean of p.

For every λ the bracket is an increasing function of p in [0, 1], a mixture of indicators of p > s.
So the Dvoretzky-Kiefer-Wolfowitz slack holds for all λ, orders and budgets at once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from audit.schema import Interval, SoftCurve, SoftPoint
from audit.statistics.confidence import Floats, dkw_slack
from audit.values import order_name

Kept = Callable[[Floats, Floats], Floats]
"""The function h: from lower bounds (N, 1) at samples and distances (1, M) to bounds (N, M)."""

DISTANCES = 2048
"""Number of distances at which h is evaluated; between two distances, the value at the farther one
and the cost of the nearer one are used."""

FAR = 1e-3
"""Value of h at or below which it has fallen everywhere at the largest distance."""


@dataclass(frozen=True)
class Soft:
    """Probability of every sample's label under the noise, and its decrease with the distance.

    Attributes:
        probability: (N,) lower bounds; 0 where nothing is known.
        kept: returns lower bounds at a distance from the sample.
        scale: distance over which the bounds decrease considerably.
    """

    probability: Floats
    kept: Kept
    scale: float


def gaussian(sigma: float, stretch: float = 1.0) -> Kept:
    """Return h(d) = Φ(Φ⁻¹(p) - stretch·d/sigma); ``stretch`` converts distances to l2.

    Source: Cohen, Rosenfeld, Kolter 2019; their radius is the distance at which h is 1/2.
    """

    def kept(p: Floats, d: Floats) -> Floats:
        return np.asarray(norm.cdf(norm.ppf(p) - stretch * d / sigma))

    return kept


def laplace(sigma: float) -> Kept:
    """Return h(d) = 1 - (1 - p)·exp(2·d/sigma), for noise on flows; see `certify.smoothing`."""

    def kept(p: Floats, d: Floats) -> Floats:
        with np.errstate(over="ignore"):
            return np.maximum(0.0, 1 - (1 - p) * np.exp(np.minimum(2 * d / sigma, 700.0)))

    return kept


def soft_accuracy(soft: Soft, delta: float, order: float) -> float:
    """Return a lower bound of the soft accuracy on the samples, for every law in the ball."""
    levels, counts = np.unique(soft.probability, return_counts=True)
    p, weight = levels[:, None], counts / len(soft.probability)
    if delta == 0:
        return float(weight @ levels)
    if math.isinf(order):
        return float(weight @ soft.kept(p, np.array([[delta]]))[:, 0])
    ends = np.linspace(0.0, _far(soft), DISTANCES + 1)
    after = soft.kept(p, ends[None, 1:])
    with np.errstate(over="ignore"):
        costs = np.minimum((ends / delta) ** order, 1e300)

    def dual(price: float) -> float:
        steps = after + price * costs[None, :-1]
        least = np.minimum(steps.min(axis=1), price * costs[-1])
        return -price + float(weight @ np.minimum(least, levels))

    found = minimize_scalar(
        lambda log: -dual(math.exp(log)),
        bounds=(math.log(1e-9), math.log(1e6)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return max(0.0, -float(found.fun))


def _far(soft: Soft) -> float:
    """Return a distance beyond which h is small, so that 0 is used there."""
    far = soft.scale
    top = np.array([[float(soft.probability.max(initial=0.0))]])
    while float(soft.kept(top, np.array([[far]]))[0, 0]) > FAR:
        far *= 1.5
    return far


def soft_curves(
    soft: Soft | None,
    *,
    orders: tuple[float, ...],
    deltas: tuple[float, ...],
    confidence: float,
    failure: float,
) -> list[SoftCurve]:
    """Return the curves of the report, with the lower end of a one-sided band.

    Args:
        soft: probabilities of a smoothed model; None gives no curves.
        orders: orders of the curves.
        deltas: budgets of their points.
        confidence: confidence level of a two-sided interval, of which the lower end is used.
        failure: probability that any of the bounds on p does not hold.
    """
    if soft is None:
        return []
    eta = (1 - confidence) / 2 - failure
    slack = dkw_slack(len(soft.probability), eta) if eta > 0 else 1.0

    def point(delta: float, order: float) -> SoftPoint:
        value = soft_accuracy(soft, delta, order)
        least = Interval(value=value, low=max(0.0, value - slack), high=None)
        return SoftPoint(delta=delta, certified=least)

    return [
        SoftCurve(order=order_name(order), points=[point(delta, order) for delta in deltas])
        for order in orders
    ]
