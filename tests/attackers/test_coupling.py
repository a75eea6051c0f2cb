"""Local couplings: a window's sums, and plans that never leave budget, box or mass."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_mass import images, noise
from torch import Tensor

from attackers import coupling
from attackers.coupling import Coupling, Window
from attackers.earth_mover import transport_plan
from attackers.wasserstein import with_unit_slope

SHAPES = [(3, 1, 5, 5), (2, 2, 4, 6), (2, 1, 1, 9), (1, 3, 7, 2), (2, 1, 1, 1)]
seeds = st.integers(0, 2**32 - 1)
budgets = st.floats(-6, 1).map(lambda exponent: 10.0**exponent)
reaches = st.integers(1, 3)


def cold(x: Tensor, budget: float | Tensor, reach: int = 2, level: float = 8.0) -> Coupling:
    """Duals of images in [0, 1] before their first potential."""
    every = torch.as_tensor(budget).expand(len(x))
    return Coupling.of(x.double(), 1 - x.double(), every, reach, level)


def as_it_promises(one: Coupling, change: Tensor, cost: Tensor) -> None:
    """Inside the box, of the same mass, and no cheaper plan is dearer than what is said."""
    assert change.dtype == cost.dtype == torch.float64
    assert (change >= -one.mass * (1 + 1e-12)).all()
    assert (change <= one.room * (1 + 1e-9) + 1e-12).all()
    assert change.sum((2, 3)).abs().max() <= 1e-9
    assert (cost >= 0).all()
    assert (cost <= one.budget * (1 + 1e-12)).all()
    exact = [sum(transport_plan(channel.numpy()).cost for channel in image) for image in change]
    bound = cost * (1 + 1e-9) + 1e-12
    assert (torch.tensor(exact, dtype=torch.float64) <= bound).all(), (exact, cost)


def values(one: Coupling) -> list[Tensor]:
    """All that has a row per image."""
    every = [getattr(one, field.name) for field in dataclasses.fields(one)]
    return [value for value in every if isinstance(value, Tensor)]


def same(a: list[Tensor], b: list[Tensor]) -> None:
    """Equal to the bit."""
    for one, other in zip(a, b, strict=True):
        assert torch.equal(one, other)


def test_a_window_of_one_pixel_has_sides_and_corners() -> None:
    assert Window(1).classes == ((1.0, ((0, 1), (1, 0))), (math.sqrt(2), ((1, 1),)))
    assert Window(1).costs == (1.0, math.sqrt(2))


@pytest.mark.parametrize("reach", [1, 2, 3, 5, 8])
def test_a_window_holds_every_offset_once_by_its_distance(reach: int) -> None:
    window = Window(reach)
    offsets = [offset for _, members in window.classes for offset in members]
    quarter = {(r, c) for r in range(reach + 1) for c in range(reach + 1)} - {(0, 0)}
    assert set(offsets) == quarter
    assert len(offsets) == len(quarter)
    for cost, members in window.classes:
        assert [math.hypot(*offset) for offset in members] == pytest.approx([cost] * len(members))
    assert list(window.costs) == sorted(set(window.costs))


@pytest.mark.parametrize("reach", [1, 2, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_are_those_of_a_loop_over_the_neighbours(shape: tuple[int, ...], reach: int) -> None:
    x = noise(torch.zeros(shape).double())
    window = Window(reach)
    found = window.sums(x)
    assert len(found) == len(window.classes)
    *_, height, width = shape
    for (cost, _), total in zip(window.classes, found, strict=True):
        expected = torch.zeros_like(x)
        for i, j, k, m in np.ndindex(height, width, height, width):
            near = max(abs(i - k), abs(j - m)) <= reach
            if near and math.hypot(i - k, j - m) == pytest.approx(cost):
                expected[..., i, j] += x[..., k, m]
        torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)


def test_one_pixel_goes_where_it_is_worth_most() -> None:
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 0.8
    worth = torch.zeros_like(x)
    worth[0, 0, 2, 3], worth[0, 0, 0, 0] = 1.0, -1.0
    one = cold(x, 0.5)
    for _ in range(20):
        one, change, cost = one.moved(worth, 30.0)
    assert float(change[0, 0, 2, 3]) == pytest.approx(0.5, abs=1e-6)
    assert float(change[0, 0, 2, 2]) == pytest.approx(-0.5, abs=1e-6)
    assert float(cost) == pytest.approx(0.5)


def test_a_pixel_takes_no_more_than_it_has_room_for() -> None:
    x = torch.zeros(1, 1, 1, 2)
    x[0, 0, 0, 0], x[0, 0, 0, 1] = 0.9, 0.7
    _, change, cost = cold(x, 10.0, 1).moved(torch.tensor([0.0, 1.0]).expand(1, 1, 1, 2), 40.0)
    assert float(change[0, 0, 0, 1]) == pytest.approx(0.3, abs=1e-6)
    assert float(cost) >= 0.3 * (1 - 1e-6)


def test_a_full_pixel_passes_mass_on() -> None:
    # Beyond the window, behind a full pixel, and worth the way there and nothing shorter.
    x = torch.tensor([0.5, 1.0, 0.5]).reshape(1, 1, 1, 3)
    one, potential = cold(x, 0.4, 1), torch.tensor([0.0, 1.5, 1.6]).reshape(1, 1, 1, 3)
    for _ in range(12):
        one, change, cost = one.moved(potential, 20.0)
    as_it_promises(one, change, cost)
    assert change.flatten().tolist() == pytest.approx([-0.2, 0, 0.2], abs=0.01)


@given(st.sampled_from(SHAPES), seeds, budgets, reaches, st.floats(-30, 30))
@settings(max_examples=80)
def test_no_potential_makes_a_plan_that_breaks_its_promises(
    shape: tuple[int, ...], seed: int, budget: float, reach: int, exponent: float
) -> None:
    x = images(shape, seed)
    spread = torch.linspace(0.3, 1, len(x)).double()
    one = cold(x, budget * spread, reach, 5.0)
    for step, level in enumerate((5.0, 30.0, 40.0, 5.0)):
        potential = noise(x.double(), seed + step) * 10**exponent
        new, change, cost = one.moved(potential, level)
        as_it_promises(one, change, cost)
        one = new


@given(st.sampled_from([0.5, 0.9, 0.97]), seeds, st.floats(-1.5, 1.5), reaches)
@settings(max_examples=40)
def test_no_pixel_overflows_where_most_are_full(
    full: float, seed: int, exponent: float, reach: int
) -> None:
    """Much mass, little room, a large budget: where a repair by scaling alone does not end."""
    random = torch.Generator().manual_seed(seed)
    x, face = torch.rand((8, 1, 10, 10), generator=random), noise(torch.zeros(8, 1, 10, 10), seed)
    x = torch.where(torch.special.ndtr(face) < full, 1.0 - 1e-3 * x * (seed % 2), x)
    one = cold(x, 10.0**exponent, reach, 5.0)
    for step, level in enumerate((5.0, 30.0, 60.0)):
        one, change, cost = one.moved(noise(x, seed + step), level)
        assert (change <= one.room + 1e-11).all()
        assert (change >= -one.mass - 1e-11).all()
        assert change.sum((2, 3)).abs().max() <= 1e-9
        assert (cost <= one.budget * (1 + 1e-12)).all()


@given(st.sampled_from(SHAPES), seeds)
@settings(max_examples=40)
def test_potentials_of_huge_slope_or_none_keep_them_too(shape: tuple[int, ...], seed: int) -> None:
    x = images(shape, seed)
    spiky = torch.where(noise(x, seed) > 1, 1e6, 0.0) * noise(x, seed + 1)
    one = cold(x, 0.3)
    for potential in (spiky, torch.zeros_like(x), torch.full_like(x, -7.0), spiky):
        one, change, cost = one.moved(potential, 40.0)
        as_it_promises(one, change, cost)


def test_the_whole_budget_is_spent_where_there_is_room() -> None:
    x = 0.2 + 0.6 * torch.rand((4, 2, 8, 8), generator=torch.Generator().manual_seed(1))
    one = cold(x, torch.tensor([0.1, 0.5, 1.0, 2.0]))
    potential = with_unit_slope(noise(x).double())
    one, _, cost = one.moved(potential, 10.0)
    assert (cost >= 0.9 * one.budget).all()
    for _ in range(12):
        one, _, cost = one.moved(potential, 10.0)
        assert (cost >= 0.99 * one.budget).all()
    # The level wanted is reached by sharpening or flattening the potential.
    assert one.level.tolist() == pytest.approx([10.0] * 4, rel=0.02)


def test_no_budget_no_mass_and_no_room_move_nothing() -> None:
    grey = torch.full((1, 1, 4, 4), 0.4)
    for x, budget in ((grey, 0.0), (torch.zeros_like(grey), 1.0), (torch.ones_like(grey), 1.0)):
        one = cold(x, budget)
        for _ in range(3):
            one, change, _ = one.moved(noise(x), 10.0)
            assert change.abs().max() <= 1e-12


def test_take_resized_and_together() -> None:
    x = images((5, 1, 6, 6))
    one, _, _ = cold(x, torch.linspace(0.1, 1, 5)).moved(noise(x), 10.0)
    mask = torch.tensor([True, False, True, False, False])
    assert len(values(one)) == 7
    for chosen in (mask, torch.tensor([0, 2])):
        same(values(one.take(chosen)), [value[[0, 2]] for value in values(one)])
    parts = [one.take(torch.tensor(rows)) for rows in ([0, 1], [2], [3, 4])]
    same(values(parts[0].together(parts[1:])), values(one))
    other = one.resized(torch.full((5,), 7.0))
    assert other.budget.tolist() == [7.0] * 5
    assert other.budget.dtype == torch.float64
    same(values(other.resized(one.budget)), values(one))
    assert one.window == parts[1].window


@pytest.mark.parametrize("together", [1, 40, 100, 2**15])
def test_bits_do_not_depend_on_what_is_worked_on_together(
    monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    # Of odd size: vectorised loops begin and end elsewhere in every image.
    x = images((7, 1, 5, 7), 3)
    potentials = [noise(x, seed) for seed in range(3)]
    budget = torch.linspace(0.05, 2, 7)

    def run(rows: Tensor) -> list[Tensor]:
        one, results = cold(x[rows], budget[rows]), []
        for potential in potentials:
            one, change, cost = one.moved(potential[rows], 20.0)
            results += [change, cost]
        return [*values(one), *results]

    every = torch.arange(7)
    whole = run(every)
    monkeypatch.setattr(coupling, "VALUES_PER_PART", together)
    same(run(every), whole)
    for rows in (every[2:3], every[3:], torch.tensor([5, 0, 6, 3, 1, 4, 2])):
        same(run(rows), [part[rows] for part in whole])


def test_results_do_not_change_what_was_given() -> None:
    x = images((2, 1, 5, 5))
    one, potential = cold(x, 0.3), noise(x)
    before, kept = [value.clone() for value in values(one)], potential.clone()
    one.moved(potential, 10.0)
    same(values(one), before)
    assert torch.equal(potential, kept)
