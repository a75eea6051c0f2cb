"""Soft accuracy: published numbers, a linear program, and laws."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.special import erf

from audit.certify.smoothing import kept_of, l2_radius, wasserstein_radius
from audit.statistics.soft import Soft, gaussian, laplace, soft_accuracy, soft_curves


def drawn() -> Soft:
    p = np.random.default_rng(1).beta(4, 1, 2000)
    return Soft(p, gaussian(0.25), 0.25)


@pytest.mark.parametrize(
    ("order", "delta", "wanted"),
    [(1.0, 0.1, 0.6478), (1.0, 0.25, 0.4436), (2.0, 0.1, 0.6852), (2.0, 0.25, 0.4938)],
)
def test_known_numbers(order: float, delta: float, wanted: float) -> None:
    found = soft_accuracy(drawn(), delta, order)
    assert found <= wanted + 1e-4
    assert found == pytest.approx(wanted, abs=2e-3)


@pytest.mark.parametrize("order", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("delta", [0.05, 0.1, 0.25, 0.5])
def test_more_than_the_mean_alone_gives(order: float, delta: float) -> None:
    """Kumar et al. 2022: the mean falls by at most erf(delta / (2·√2·sigma))."""
    soft = drawn()
    mean_only = soft.probability.mean() - erf(delta / (2 * math.sqrt(2) * 0.25))
    assert soft_accuracy(soft, delta, order) >= mean_only - 1e-3


@given(st.integers(0, 10_000), st.sampled_from([1.0, 2.0]), st.floats(0.02, 1.0))
@settings(max_examples=25, deadline=None)
def test_never_above_the_linear_program(seed: int, order: float, delta: float) -> None:
    p = np.random.default_rng(seed).random(5)
    soft = Soft(p, gaussian(0.5), 0.5)
    # Mass of each sample may move to any of many distances.
    distances = np.linspace(0, 4, 401)
    kept = soft.kept(p[:, None], distances[None])
    found = linprog(
        kept.ravel() / 5,
        A_ub=np.tile(distances**order, 5)[None] / 5,
        b_ub=[delta**order],
        A_eq=np.kron(np.eye(5), np.ones(401)),
        b_eq=np.ones(5),
        bounds=(0, None),
        method="highs",
    )
    value = soft_accuracy(soft, delta, order)
    assert value <= found.fun + 1e-6
    assert value >= found.fun - 0.02


def test_order_inf_moves_every_sample_by_delta() -> None:
    soft = Soft(np.array([0.9, 0.6]), gaussian(1.0), 1.0)
    assert soft_accuracy(soft, 0.5, math.inf) == pytest.approx(
        soft.kept(soft.probability[:, None], np.array([[0.5]])).mean()
    )


def test_a_radius_is_where_half_is_left() -> None:
    for p in (0.6, 0.9, 0.999):
        at = np.array([[p]])
        assert gaussian(0.3)(at, np.array([[l2_radius(p, 0.3)]])) == pytest.approx(0.5)
        assert laplace(0.02)(at, np.array([[wasserstein_radius(p, 0.02)]])) == pytest.approx(0.5)
        linf = np.array([[l2_radius(p, 0.3) / 10]])
        assert kept_of("linf", 0.3, 100)(at, linf) == pytest.approx(0.5)


@given(st.integers(0, 1000), st.sampled_from([1.0, 2.0, math.inf]), st.booleans())
@settings(max_examples=20, deadline=None)
def test_less_with_more_budget_and_nothing_at_zero_probability(
    seed: int, order: float, flows: bool
) -> None:
    p = np.random.default_rng(seed).random(40)
    soft = Soft(p, laplace(0.3) if flows else gaussian(0.3), 0.3)
    values = [soft_accuracy(soft, delta, order) for delta in (0.0, 0.01, 0.1, 1.0, 5.0)]
    assert values[0] == pytest.approx(p.mean())
    assert values == sorted(values, reverse=True)
    assert soft_accuracy(Soft(np.zeros(4), soft.kept, 0.3), 0.1, order) == 0.0


def test_curves_have_a_lower_end_that_counts_failures_in() -> None:
    def lows(failure: float) -> list[float | None]:
        curves = soft_curves(
            drawn(), orders=(math.inf, 2.0), deltas=(0.1,), confidence=0.95, failure=failure
        )
        assert [curve.order for curve in curves] == ["inf", "2"]
        assert all(point.certified.high is None for curve in curves for point in curve.points)
        return [point.certified.low for curve in curves for point in curve.points]

    assert all(
        a is not None and b is not None and a < b
        for a, b in zip(lows(0.02), lows(0.0), strict=True)
    )
    assert soft_curves(None, orders=(2.0,), deltas=(0.1,), confidence=0.95, failure=0.0) == []
