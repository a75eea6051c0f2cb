"""Intervals: against scipy, at their edges, and by simulation."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from audit.statistics.confidence import (
    ConfidenceInterval,
    bootstrap,
    clopper_pearson,
    dkw,
    dkw_slack,
    ratio,
)
from audit.statistics.knapsack import adversarial_accuracy

SLACK_95 = {1000: 0.03870, 5000: 0.01731, 10000: 0.01224}
# A_delta of the signed margins N(1.5, 1): (order, delta) to its value in the population.
POPULATION = {
    (2.0, 0.01): 0.915223,
    (2.0, 0.1): 0.836875,
    (2.0, 0.5): 0.579046,
    (math.inf, 0.1): 0.919243,
    (math.inf, 0.5): 0.841345,
}


@given(st.integers(1, 3000), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_clopper_pearson_is_scipys(n: int, share: float, confidence: float) -> None:
    k = round(share * n)
    low, high = clopper_pearson(k, n, confidence)
    exact = binomtest(k, n).proportion_ci(confidence, method="exact")
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert low <= k / n <= high


def test_clopper_pearson_at_its_edges() -> None:
    assert clopper_pearson(0, 10, 0.95) == pytest.approx((0.0, 0.3084971))
    assert clopper_pearson(10, 10, 0.95) == pytest.approx((0.6915029, 1.0))
    assert clopper_pearson(0, 1, 0.95) == pytest.approx((0.0, 0.975))


@pytest.mark.parametrize(("n", "slack"), SLACK_95.items())
def test_one_sided_slack(n: int, slack: float) -> None:
    assert dkw_slack(n, 0.05) == pytest.approx(slack, abs=5e-6)


def test_the_shared_oracle_says_the_same(shared: Path) -> None:
    oracles = json.loads((shared / "oracles.json").read_text())
    assert {int(n): s for n, s in oracles["dkw_one_sided_slack_95"].items()} == SLACK_95


def test_an_interval_spends_half_its_error_on_each_side() -> None:
    low, high = dkw(0.5, 1000, 0.95)
    slack = math.sqrt(math.log(1 / 0.025) / 2000)
    assert (0.5 - low, high - 0.5) == pytest.approx((slack, slack))
    assert dkw(0.01, 100, 0.95).low == 0
    assert dkw(0.99, 100, 0.95).high == 1


def test_the_band_covers_the_population_everywhere_at_once() -> None:
    random, n, draws = np.random.default_rng(0), 300, 400
    covered = {"dkw": 0, "binomial": 0}
    for _ in range(draws):
        radii = np.maximum(random.normal(1.5, 1, n), 0)
        found = {
            (order, d): float(adversarial_accuracy(radii, [d], order)[0]) for order, d in POPULATION
        }
        band = [(dkw(found[key], n, 0.9), true) for key, true in POPULATION.items()]
        covered["dkw"] += all(low <= true <= high for (low, high), true in band)
        low, high = clopper_pearson(round(found[math.inf, 0.1] * n), n, 0.9)
        covered["binomial"] += low <= POPULATION[math.inf, 0.1] <= high
    # Nominal coverage, less three standard deviations of the simulation.
    assert covered["dkw"] >= draws * (0.9 - 3 * math.sqrt(0.09 / draws))
    assert covered["binomial"] >= draws * (0.9 - 3 * math.sqrt(0.09 / draws))
    # Not by being useless: an interval ten times narrower does not cover.
    assert dkw(0.5, n, 0.9).high - dkw(0.5, n, 0.9).low < 0.15


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_ratio_holds_every_quotient_of_its_parts(a: float, b: float, s: float, t: float) -> None:
    above, below = (
        ConfidenceInterval(min(a, b), max(a, b)),
        ConfidenceInterval(min(s, t), max(s, t)),
    )
    low, high = ratio(above, below)
    assert 0 <= low <= high <= 1
    for numerator in above:
        for denominator in below:
            if denominator > 0:
                quotient = min(1.0, numerator / denominator)
                assert low <= quotient * (1 + 1e-12)
                assert quotient <= high * (1 + 1e-12)


def test_ratio_of_nothing_known() -> None:
    assert ratio(ConfidenceInterval(0.2, 0.4), ConfidenceInterval(0.0, 0.0)) == (0.0, 1.0)
    assert ratio(ConfidenceInterval(0.2, 0.4), ConfidenceInterval(0.5, 0.8)) == pytest.approx(
        (0.25, 0.8)
    )


def test_bootstrap_of_a_mean_is_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = bootstrap(values, np.mean, 0.95, 0)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.06)
    shuffled = np.random.default_rng(2).permutation(values)
    assert bootstrap(shuffled, np.mean, 0.95, 0) == (low, high)
    assert bootstrap(values, np.mean, 0.95, 1) != (low, high)


def test_bootstrap_of_one_value_says_nothing() -> None:
    assert bootstrap(np.array([3.0]), np.mean, 0.95, 0) == (-math.inf, math.inf)
