"""The knapsack identity: known answers, duality, linear programs, limits, invariances."""

import json
import math
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import norm

from audit.statistics.knapsack import Floats, adversarial_accuracy, adversarial_error

HAND_RADII = [0.0, 0.1, 0.2, 0.3, 0.5]
# (order, delta, error)
HAND = [
    (2, 0.1, 0.6),
    (2, 0.15, 0.7388888888888889),
    (2, 0.2, 0.848),
    (1, 0.1, 0.7333333333333333),
    (1, 0.15, 0.86),
    (2, 1.0, 1.0),
]
# Signed margins m ~ N(1.5, 1), radius max(m, 0): A_delta by order and delta.
GAUSSIAN = {
    2: {0.01: 0.915223, 0.05: 0.876214, 0.1: 0.836875, 0.3: 0.701483, 0.5: 0.579046},
    math.inf: {0.01: 0.931888, 0.05: 0.926471, 0.1: 0.919243, 0.3: 0.884930, 0.5: 0.841345},
}
# Signed margins m ~ U(-0.5, 2).
UNIFORM = {
    1: {0.01: 0.710557, 0.05: 0.600000, 0.2: 0.400000},
    2: {0.01: 0.763658, 0.05: 0.693734, 0.2: 0.532227},
    4: {0.01: 0.783349, 0.05: 0.739658, 0.2: 0.617078},
}
QUANTILES = (np.arange(400_000) + 0.5) / 400_000

positive = st.floats(1e-3, 10)
radius_lists = st.lists(st.just(0.0) | positive | st.just(math.inf), min_size=1, max_size=12)
orders = st.sampled_from([1.0, 1.5, 2.0, 3.0, 7.0])


def error(radii: list[float], delta: float, order: float) -> float:
    return float(adversarial_error(radii, [delta], order)[0])


def cells(table: dict[float, dict[float, float]]) -> list[tuple[float, float, float]]:
    return [(order, d, value) for order, row in table.items() for d, value in row.items()]


@pytest.mark.parametrize(("order", "delta", "expected"), HAND)
def test_by_hand(order: float, delta: float, expected: float) -> None:
    assert error(HAND_RADII, delta, order) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("order", "delta", "accuracy"), cells(UNIFORM))
def test_uniform_margins(order: float, delta: float, accuracy: float) -> None:
    radii = np.maximum(-0.5 + 2.5 * QUANTILES, 0)
    assert adversarial_accuracy(radii, [delta], order) == pytest.approx(accuracy, abs=1.5e-6)


@pytest.mark.parametrize(("order", "delta", "accuracy"), cells(GAUSSIAN))
def test_gaussian_margins(order: float, delta: float, accuracy: float) -> None:
    radii = np.maximum(norm.ppf(QUANTILES, 1.5, 1), 0)
    assert adversarial_accuracy(radii, [delta], order) == pytest.approx(accuracy, abs=1e-4)


def test_the_shared_oracles_say_the_same(shared: Path) -> None:
    oracles = json.loads((shared / "oracles.json").read_text())
    assert oracles["hand"]["radii"] == HAND_RADII
    hand = [(c["order"], c["delta"], c["error"]) for c in oracles["hand"]["cases"]]
    assert hand == HAND

    def table(entry: dict[str, dict[str, float]], order: float) -> dict[float, float]:
        return {float(d): v for d, v in entry[f"order_{order:g}"].items()}

    assert {order: table(oracles["gaussian_margins"], order) for order in GAUSSIAN} == GAUSSIAN
    assert {order: table(oracles["uniform_margins"], order) for order in UNIFORM} == UNIFORM


def dual(radii: np.ndarray, delta: float, order: float) -> float:
    """min over λ of λ·delta^p + E[(1 - λ·r^p)_+]; the minimum lies at 0 or at some r^-p."""
    costs = radii**order
    multipliers = 1 / costs[(costs > 0) & np.isfinite(costs)]
    # A sample that was never broken, at an infinite cost, adds nothing for any λ > 0.
    values = [float(m * delta**order + np.maximum(1 - m * costs, 0).mean()) for m in multipliers]
    return min([float((costs < math.inf).mean()), 1.0, *values])


def primal(radii: np.ndarray, delta: float, order: float) -> float:
    """max E[a], 0 <= a <= 1, E[a·r^p] <= delta^p, by a linear program."""
    row = radii**order / len(radii)
    gain = [-1 / len(radii)] * len(radii)
    return -float(linprog(gain, A_ub=[row], b_ub=[delta**order], bounds=(0, 1)).fun)


@given(radius_lists, positive, orders)
def test_knapsack_is_its_dual(radii: list[float], delta: float, order: float) -> None:
    r = np.array(radii) / delta
    assert error(radii, delta, order) == pytest.approx(dual(r, 1.0, order), abs=1e-9)


@given(
    st.lists(st.just(0.0) | st.floats(0.1, 3), min_size=1, max_size=12),
    st.floats(0.1, 3),
    st.sampled_from([1.0, 1.5, 2.0, 3.0]),
)
@settings(max_examples=150)
def test_knapsack_is_its_linear_program(radii: list[float], delta: float, order: float) -> None:
    # In units of the budget, so that the solver's absolute tolerances mean something.
    r = np.array(radii) / delta
    assert error(radii, delta, order) == pytest.approx(primal(r, 1.0, order), abs=1e-6)


@given(radius_lists, orders | st.just(math.inf))
def test_more_budget_never_means_fewer_errors(radii: list[float], order: float) -> None:
    deltas = np.geomspace(1e-4, 100, 200)
    errors = adversarial_error(radii, deltas, order)
    assert (np.diff(errors) >= -1e-12).all()
    assert ((errors >= 0) & (errors <= 1)).all()


@given(radius_lists, positive, orders | st.just(math.inf), st.floats(0, 1), st.integers(0, 11))
def test_a_smaller_radius_never_means_fewer_errors(
    radii: list[float], delta: float, order: float, shrink: float, which: int
) -> None:
    nearer = list(radii)
    nearer[which % len(radii)] *= shrink if math.isfinite(nearer[which % len(radii)]) else 1
    assert error(nearer, delta, order) >= error(radii, delta, order) - 1e-12


@given(radius_lists, positive, orders, st.floats(1e-6, 1e6))
def test_the_unit_does_not_matter(
    radii: list[float], delta: float, order: float, unit: float
) -> None:
    scaled = error([r * unit for r in radii], delta * unit, order)
    assert scaled == pytest.approx(error(radii, delta, order), abs=1e-9)


@given(radius_lists, positive, orders | st.just(math.inf), st.randoms())
def test_order_of_the_samples_changes_no_bit(
    radii: list[float], delta: float, order: float, random: Random
) -> None:
    shuffled = list(radii)
    random.shuffle(shuffled)
    assert error(shuffled, delta, order) == error(radii, delta, order)


@given(radius_lists, positive)
def test_higher_orders_bind_more_and_end_at_the_pointwise_threat(
    radii: list[float], delta: float
) -> None:
    errors = [error(radii, delta, p) for p in (1.0, 2.0, 5.0, 20.0, 100.0, 1000.0, math.inf)]
    assert (np.diff(errors) <= 1e-12).all()


@pytest.mark.parametrize("order", [100.0, 400.0, 1e4])
def test_a_very_high_order_is_nearly_pointwise(order: float) -> None:
    """Powers of small numbers underflow there; nothing may become free for that."""
    radii = [1e-4, 0.1, 0.2, 0.3, 0.5]
    for delta in (1e-5, 0.05, 0.15, 0.25, 0.45, 0.6):
        slack = 1 + 2 * math.log(len(radii)) / order
        least = error(radii, delta, math.inf)
        most = error(radii, delta * slack, math.inf)
        assert least <= error(radii, delta, order) <= most + 1e-3


@given(radius_lists, orders | st.just(math.inf))
def test_without_budget_only_the_wrong_samples_are_errors(radii: list[float], order: float) -> None:
    assert error(radii, 0.0, order) == pytest.approx(radii.count(0.0) / len(radii))


def test_one_sample_is_flipped_by_a_fraction() -> None:
    assert error([0.5], 0.25, 1) == 0.5
    assert error([0.5], 0.25, 2) == 0.25
    assert error([0.5], 0.25, math.inf) == 0
    assert error([0.5], 0.5, math.inf) == 1  # at the radius itself it is broken
    assert error([0.5], 7.0, 1) == 1
    assert error([0.0], 0.0, 1) == 1


def test_what_was_never_broken_costs_no_budget_and_stays() -> None:
    radii = [0.0, math.inf, math.inf, 0.1]
    for order in (1.0, 2.0, math.inf):
        assert error(radii, 1e9, order) == 0.5
        assert error([math.inf] * 3, 1e9, order) == 0
    # The budget that a sample beyond reach leaves is there for the others.
    assert error(radii, 0.025, 1) == 0.5


def test_all_budgets_at_once() -> None:
    deltas = [0.1, 0.0, 0.2]
    errors: Floats = adversarial_error(HAND_RADII, deltas, 2)
    assert errors.tolist() == [error(HAND_RADII, d, 2) for d in deltas]
    assert errors.dtype == np.float64


def test_no_radii_are_refused() -> None:
    with pytest.raises(ValueError, match="no radii"):
        adversarial_error([], [0.1], 1)
