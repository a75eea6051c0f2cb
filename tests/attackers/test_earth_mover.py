"""Exact transport of one channel: by hand, against the whole linear program, and by its laws."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_mass import Floats, cheapest
from numpy.typing import NDArray

from attackers import earth_mover
from attackers.earth_mover import Transport, transport_plan

SHAPES = [(4, 5), (1, 9), (7, 1), (6, 6)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
seeds = st.integers(0, 2**32 - 1)


def change(shape: tuple[int, int], seed: int = 0, still: float = 0.2) -> Floats:
    """A change of zero sum that leaves some pixels alone."""
    random = np.random.default_rng(seed)
    found = random.normal(size=shape) * (random.random(shape) >= still)
    found[found != 0] -= found[found != 0].mean() if found.any() else 0
    return found


def moved(*moves: tuple[tuple[int, int], tuple[int, int], float]) -> Floats:
    found = np.zeros((8, 8))
    for source, target, amount in moves:
        found[source] -= amount
        found[target] += amount
    return found


def applied(plan: Transport, shape: tuple[int, int]) -> Floats:
    """What a plan does to an image."""
    done = np.zeros(shape)
    np.subtract.at(done, tuple(plan.source.T), plan.amount)
    np.add.at(done, tuple(plan.target.T), plan.amount)
    return done


def pairs(plan: Transport) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    def places(where: NDArray[np.int64]) -> list[tuple[int, ...]]:
        return [tuple(row) for row in where.tolist()]

    return set(zip(places(plan.source), places(plan.target), strict=True))


def test_one_pixel_that_moves_three_down_and_four_right() -> None:
    plan = transport_plan(moved(((1, 2), (4, 6), 0.5)))
    assert plan.cost == 2.5
    assert pairs(plan) == {((1, 2), (4, 6))}
    assert plan.amount.tolist() == [0.5]
    assert plan.optimal


def test_crossing_ways_are_swapped() -> None:
    # Said as two diagonals across a square of 1 × 3; the two long sides are shorter.
    plan = transport_plan(moved(((0, 0), (1, 3), 1.0), ((1, 0), (0, 3), 1.0)))
    assert plan.cost == 6.0
    assert pairs(plan) == {((0, 0), (0, 3)), ((1, 0), (1, 3))}


def test_what_both_hold_stays() -> None:
    # One unit steps into the place of another that leaves it: one move of two pixels.
    plan = transport_plan(moved(((3, 3), (3, 4), 1.0), ((3, 4), (3, 5), 1.0)))
    assert plan.cost == 2.0
    assert pairs(plan) == {((3, 3), (3, 5))}


def test_one_source_feeds_two() -> None:
    plan = transport_plan(moved(((0, 0), (0, 1), 0.25), ((0, 0), (2, 0), 0.75)))
    assert plan.cost == 1.75
    assert sorted(plan.amount.tolist()) == [0.25, 0.75]


def test_nothing_moved() -> None:
    for nothing in (np.zeros((5, 5)), np.zeros((1, 1)), np.full((3, 3), 1e-9), -np.eye(3)):
        plan = transport_plan(nothing)
        assert plan.cost == 0
        assert plan.source.shape == plan.target.shape == (0, 2)
        assert plan.amount.shape == (0,)
        assert plan.optimal


@every_shape
@pytest.mark.parametrize("seed", range(4))
def test_no_plan_costs_less_by_the_whole_linear_program(shape: tuple[int, int], seed: int) -> None:
    wanted = change(shape, seed)
    plan = transport_plan(wanted)
    assert plan.optimal
    assert plan.cost == pytest.approx(cheapest(wanted), rel=1e-9)


@every_shape
@pytest.mark.parametrize("dense", [True, False])
def test_a_plan_makes_the_change_at_the_cost_it_names(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], dense: bool
) -> None:
    if not dense:
        monkeypatch.setattr(earth_mover, "DENSE_PAIRS", 0)
    wanted = change(shape, 7)
    plan = transport_plan(wanted)
    np.testing.assert_allclose(applied(plan, shape), wanted, rtol=0, atol=1e-13)
    assert (plan.amount > 0).all()
    steps = (plan.source - plan.target).astype(np.float64)
    assert plan.cost == pytest.approx(plan.amount @ np.hypot(*steps.T), rel=1e-14)


def test_what_does_not_add_up_is_left_out() -> None:
    wanted = moved(((0, 0), (0, 2), 1.0))
    wanted[0, 2] += 1e-9
    plan = transport_plan(wanted)
    assert plan.amount.tolist() == [1.0]


@pytest.mark.parametrize("shape", [*SHAPES, (20, 20)], ids=str)
def test_near_pairs_give_the_same_cost_and_say_so(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    # Few pixels change, far from each other: the first radius is too small for them.
    wanted = change(shape, 3, still=0.8 if shape == (20, 20) else 0.2)
    dense = transport_plan(wanted)
    monkeypatch.setattr(earth_mover, "DENSE_PAIRS", 0)
    sparse = transport_plan(wanted)
    assert dense.optimal
    assert sparse.optimal
    assert sparse.cost == pytest.approx(dense.cost, rel=1e-9)


def test_near_pairs_grow_until_the_far_ones_are_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(earth_mover, "DENSE_PAIRS", 0)
    plan = transport_plan(moved(((0, 0), (7, 7), 1.0), ((0, 7), (0, 6), 1.0)))
    assert plan.cost == pytest.approx(1 + 7 * math.sqrt(2), rel=1e-12)
    assert plan.optimal


def test_pairs_that_connect_all_mass_need_not_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round a horseshoe all mass finds a place within three pixels; a way across it saves more."""
    losing, gaining = ([0, 4, 6, 3], [0, 0, 3, 5]), ([3, 6, 4, 0], [0, 2, 5, 5])
    wanted = np.zeros((7, 6))
    wanted[losing], wanted[gaining] = -1.0, 1.0
    assert sum(map(math.dist, np.transpose(losing), np.transpose(gaining))) > 11
    monkeypatch.setattr(earth_mover, "DENSE_PAIRS", 0)
    plan = transport_plan(wanted)
    assert plan.cost == pytest.approx(8, rel=1e-12)
    assert plan.optimal
    # Where the pairs of the next radius are too many, the near ones are an upper bound.
    monkeypatch.setattr(earth_mover, "MAX_PAIRS", 10)
    assert transport_plan(wanted).cost > 11
    assert not transport_plan(wanted).optimal


@pytest.mark.parametrize("limit", [1, 300, 2000, 10_000])
def test_too_many_pairs_give_an_upper_bound_that_admits_it(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    wanted = change((16, 16), 5)
    exact = transport_plan(wanted)
    monkeypatch.setattr(earth_mover, "DENSE_PAIRS", 0)
    monkeypatch.setattr(earth_mover, "MAX_PAIRS", limit)
    bound = transport_plan(wanted)
    assert bound.cost >= exact.cost * (1 - 1e-12)
    assert bound.optimal == (limit == 10_000)
    most = np.abs(wanted).sum() / 2 * math.hypot(*wanted.shape)
    assert bound.cost <= most * (1 + 1e-12)
    if limit == 1:
        assert bound.cost == pytest.approx(most)


@given(st.sampled_from(SHAPES), seeds)
@settings(max_examples=60)
def test_the_cost_is_a_norm_of_the_change(shape: tuple[int, int], seed: int) -> None:
    a, b = change(shape, seed), change(shape, seed + 1)
    there = transport_plan(a).cost
    assert (there > 0) == bool(a.any())
    assert transport_plan(-a).cost == pytest.approx(there, rel=1e-9)
    for scale in (1e-6, 0.3, 255.0):
        assert transport_plan(scale * a).cost == pytest.approx(scale * there, rel=1e-9)
    assert transport_plan(a + b).cost <= (there + transport_plan(b).cost) * (1 + 1e-9)


@given(st.sampled_from(SHAPES), seeds)
@settings(max_examples=30)
def test_the_cost_is_that_of_the_picture_however_it_is_turned(
    shape: tuple[int, int], seed: int
) -> None:
    wanted = change(shape, seed)
    cost = transport_plan(wanted).cost
    for other in (wanted.T, wanted[::-1], wanted[:, ::-1], np.pad(wanted, 3)):
        assert transport_plan(np.ascontiguousarray(other)).cost == pytest.approx(cost, rel=1e-9)
