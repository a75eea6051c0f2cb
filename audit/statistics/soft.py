"""Soft accuracy: the probability that one noisy draw of the served model is right, under attack.

Of a smoothed model `--smooth` certifies radii of the *vote*. The probability p behind the vote is
worth more than its being above one half: within d of a sample it is at least h(d), which falls
slowly. With Q any law in the ball of order p around the data's, weak duality gives for every λ >= 0

    E_Q P(f(X + noise) = Y)  >=  -λ·delta^p + E[ min_d h(d) + λ·d^p ],

the soft form of the fractional knapsack. For Gaussian noise h(d) = Φ(Φ⁻¹(p) - d/sigma). That is
never less than the bound of Kumar, Levine, Goldstein, Feizi 2022, which knows the mean of p only.

For every λ the bracket is a growing function of p in [0, 1], a mixture of indicators of p > s: the
Dvoretzky-Kiefer-Wolfowitz slack holds for all λ, orders and budgets at once.
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
"""h: lower bounds (N, 1) at samples and distances (1, M) to lower bounds (N, M) there."""

DISTANCES = 2048
"""At which h is evaluated; between two of them the farther value and the nearer cost are taken."""

FAR = 1e-3
"""Distances reach until h has fallen to this everywhere."""


@dataclass(frozen=True)
class Soft:
    """The probability of every sample's label under the noise, and how it falls.

    Attributes:
        probability: (N,) lower bounds; 0 where nothing is known.
        kept: what is left of them at a distance.
        scale: a distance over which they fall by much.
    """

    probability: Floats
    kept: Kept
    scale: float


def gaussian(sigma: float, stretch: float = 1.0) -> Kept:
    """h(d) = Φ(Φ⁻¹(p) - stretch·d/sigma); ``stretch`` turns distances into l2.

    Source: Cohen, Rosenfeld, Kolter 2019, of which the radius is where h is 1/2.
    """

    def kept(p: Floats, d: Floats) -> Floats:
        return np.asarray(norm.cdf(norm.ppf(p) - stretch * d / sigma))

    return kept


def laplace(sigma: float) -> Kept:
    """h(d) = 1 - (1 - p)·exp(2·d/sigma): noise on flows; see `certify.smoothing`."""

    def kept(p: Floats, d: Floats) -> Floats:
        with np.errstate(over="ignore"):
            return np.maximum(0.0, 1 - (1 - p) * np.exp(np.minimum(2 * d / sigma, 700.0)))

    return kept


def soft_accuracy(soft: Soft, delta: float, order: float) -> float:
    """A lower bound of the soft accuracy on the samples, in every law of the ball."""
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
    """A distance beyond which h is small, so that 0 is taken there."""
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
    """The curves of the report, with the end of a one-sided band.

    Args:
        soft: of a smoothed model; None gives no curves.
        orders: of the curves.
        deltas: of their points.
        confidence: of an interval that has two ends; one is used.
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
