"""Finite-sample intervals: Clopper-Pearson, Dvoretzky-Kiefer-Wolfowitz, and the bootstrap.

All assume N iid samples and a model fixed beforehand. An interval of confidence 1 - η spends η/2 on
each side.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


class ConfidenceInterval(NamedTuple):
    """The two ends of an interval."""

    low: float
    high: float


def clopper_pearson(successes: int, n: int, confidence: float) -> ConfidenceInterval:
    """Return the exact interval of a proportion after ``successes`` of ``n`` trials.

    P(low <= p <= high) >= confidence for every p (Clopper & Pearson 1934).
    """
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(stats.beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(stats.beta.isf(tail, successes + 1, n - successes))
    return ConfidenceInterval(low, high)


def dkw_slack(n: int, eta: float) -> float:
    """Return the one-sided Dvoretzky-Kiefer-Wolfowitz slack sqrt(ln(1/eta) / (2n)).

    With probability 1 - eta the empirical mean of every mixture of indicators 1{r < s} is within
    this slack of its expectation, on one side, uniformly (Massart 1990; valid for eta <= 1/2).
    """
    return math.sqrt(math.log(1 / eta) / (2 * n))


def dkw(value: float, n: int, confidence: float) -> ConfidenceInterval:
    """Return an interval of A_delta around its empirical value, for all budgets and orders at once.

    t -> (1 - λt)_+ is a mixture of indicators 1{t < s} for every λ >= 0, so the inequality holds
    for their minimum over λ, which by duality is the distributional accuracy.
    """
    slack = dkw_slack(n, (1 - confidence) / 2)
    return ConfidenceInterval(max(0.0, value - slack), min(1.0, value + slack))


def ratio(above: ConfidenceInterval, below: ConfidenceInterval) -> ConfidenceInterval:
    """Return the interval of a ratio of two proportions, each with half the error (Bonferroni)."""
    high = min(1.0, above.high / below.low) if below.low > 0 else 1.0
    low = above.low / below.high if below.high > 0 else 0.0
    return ConfidenceInterval(min(low, 1.0), high)


def bootstrap(
    values: Floats, statistic: Callable[..., Floats], confidence: float, seed: int
) -> ConfidenceInterval:
    """Return the percentile bootstrap interval of a statistic of iid values (Efron 1979).

    Args:
        values: (N,) one number per sample.
        statistic: function of an array, vectorised over ``axis``.
        confidence: confidence level of the interval.
        seed: seed of the resampling; the order of the values does not matter.
    """
    if len(values) < 2:
        return ConfidenceInterval(-math.inf, math.inf)
    result = stats.bootstrap(
        (np.sort(values),),
        statistic,
        vectorized=True,
        n_resamples=999,
        batch=max(1, 2**22 // len(values)),
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return ConfidenceInterval(float(low), float(high))


def bootstrap_indices(n: int, *, draws: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of each resample of n samples, with replacement; a seed repeats them."""
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        yield rng.integers(0, n, n)
