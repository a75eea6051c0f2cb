"""The bracket of V(delta): known laws from both sides, and left ends of every step."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from fakes import samples_of
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import convolutional, images
from scipy.optimize import linprog
from test_crown import served

from attackers.geometry import Linf
from audit.certify import bounding
from audit.certify.bounding import BoundSettings
from audit.schema import Interval, Sensitivity, ValuePoint
from audit.statistics.value import (
    Envelope,
    at_least,
    at_most,
    bracketed,
    cross_entropy_bound,
    grid_of,
    outside,
)

ORDERS = (1.0, 2.0, 4.0, math.inf)


def logistic(every: int = 800, n: int = 400_000) -> np.ndarray:
    """Signed margins m ~ N(1.5, 1) at every so manyth of n quantiles; J(m) = log(1 + e^-2m)."""
    from scipy.stats import norm

    return norm.ppf((np.arange(n) + 0.5) / n)[::every] + 1.5


def loss(margin: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, -2 * margin)


def envelope_of(margins: np.ndarray, radii: np.ndarray, reach: float) -> Envelope:
    """J falls with the margin, so within d it is at most J(m - d)."""
    return Envelope(radii, loss(margins), loss(margins[:, None] - radii), loss(margins - reach))


@pytest.mark.parametrize(
    ("order", "delta", "exact"),
    [
        (2.0, 0.02, 0.2003275),
        (2.0, 0.05, 0.2148681),
        (2.0, 0.1, 0.2405254),
        (2.0, 0.2, 0.2969787),
        (math.inf, 0.05, 0.2044528),
        (math.inf, 0.2, 0.2498385),
    ],
)
def test_the_logistic_law_lies_between(order: float, delta: float, exact: float) -> None:
    margins = logistic()
    radii = np.sort(np.append(np.geomspace(1e-4, 40, 4000), delta))
    above = at_most(envelope_of(margins, radii, 40.0), delta, order)
    assert exact - 1e-7 <= above <= exact + 2e-3
    # The optimal shift spends in proportion to the gradient; an attack along it comes near.
    slope = 2 / (1 + np.exp(2 * margins))
    size = delta if math.isinf(order) else delta * slope / math.sqrt(float(np.mean(slope**2)))
    below = float(np.mean(loss(margins - size)))
    assert exact - 2e-3 <= below <= exact + 1e-7


def test_a_step_costs_its_inner_end() -> None:
    """One sample, loss 1 from a distance just above 0.1 on: half the budget buys half the mass."""
    steps = Envelope(np.array([0.1, 0.2]), np.zeros(1), np.array([[0.0, 1.0]]), np.ones(1))
    assert at_most(steps, 0.05, 1.0) == pytest.approx(0.5, abs=1e-5)
    assert at_most(steps, 0.1, math.inf) == 0.0
    assert at_most(steps, 0.11, math.inf) == 1.0
    # By outer ends it would be 0.25, which 0.5 of the mass moved by just above 0.1 exceeds.
    assert at_most(steps, 0.05, 1.0) > 0.45


@given(st.integers(0, 10_000), st.sampled_from(ORDERS[:3]), st.floats(0.01, 2.0))
@settings(max_examples=40, deadline=None)
def test_both_sides_are_the_linear_programs(seed: int, order: float, delta: float) -> None:
    draws, n = np.random.default_rng(seed), 6
    clean, gains = draws.random(n), draws.random(n) - 0.2
    distances = np.where(draws.random(n) < 0.2, np.inf, draws.random(n) * 2)
    there = np.isfinite(distances)
    cost = np.where(there, distances, 0.0) ** order
    found = linprog(
        -gains,
        A_ub=cost[None],
        b_ub=[n * delta**order],
        bounds=[(0, float(known)) for known in there],
        method="highs",
    )
    attained = at_least(clean, gains, distances, delta, order)
    assert attained == pytest.approx(clean.mean() - found.fun / n, abs=1e-6)

    radii = np.sort(draws.random(4)) + 0.05
    steps = np.sort(draws.random((n, 6)), axis=1)
    envelope = Envelope(radii, steps[:, 0], steps[:, 1:5], steps[:, 5])
    inner = np.concatenate([[0.0, 0.0], radii]) ** order
    # Mass w[i, k] of sample i goes to step k.
    program = linprog(
        -steps.ravel() / n,
        A_ub=np.tile(inner, n)[None] / n,
        b_ub=[delta**order],
        A_eq=np.kron(np.eye(n), np.ones(6)),
        b_eq=np.ones(n),
        bounds=(0, None),
        method="highs",
    )
    above = at_most(envelope, delta, order)
    assert above >= -program.fun - 1e-9
    assert above == pytest.approx(-program.fun, abs=1e-4)


@given(st.integers(0, 10_000), st.sampled_from(ORDERS))
@settings(max_examples=30, deadline=None)
def test_both_sides_grow_with_the_budget(seed: int, order: float) -> None:
    draws = np.random.default_rng(seed)
    clean, gains, distances = (draws.random(20) for _ in range(3))
    steps = np.sort(draws.random((20, 5)), axis=1)
    envelope = Envelope(np.array([0.1, 0.2, 0.4]), steps[:, 0], steps[:, 1:4], steps[:, 4])
    deltas = (0.0, 0.05, 0.1, 0.3, 0.6)
    for values in (
        [at_least(clean, gains, distances, delta, order) for delta in deltas],
        [at_most(envelope, delta, order) for delta in deltas],
    ):
        assert all(a <= b + 1e-6 for a, b in pairwise(values))


def test_the_envelope_of_a_network_holds_at_examples() -> None:
    model, x = served(convolutional("Relu")), images(8)
    samples, limit = samples_of(model, x), torch.full((8,), 0.5).double()
    deltas = (0.01, 0.05)
    found = bounding.certify(
        model, Linf(), samples, limit, BoundSettings("crown", 3, 3, 0.0, deltas=deltas)
    )
    assert found is not None
    envelope = found.envelope
    assert envelope is not None
    assert set(deltas) <= set(envelope.radii.tolist())
    for place, radius in enumerate(envelope.radii):
        for draw in range(8):
            noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(draw))
            moved = Linf().farthest(x, noise, float(radius))
            scores = model.deployed(moved)
            losses = torch.nn.functional.cross_entropy(scores, samples.labels, reduction="none")
            assert bool((losses.numpy() <= envelope.within[:, place] + 1e-5).all())
    assert bool((envelope.within >= envelope.clean[:, None]).all())
    assert bool((envelope.everywhere >= envelope.within.max(1) - 1e-9).all())


def test_the_bound_of_the_loss_is_exact_at_known_margins() -> None:
    scores = torch.tensor([[2.0, 0.5, -1.0]]).double()
    margins = torch.tensor([[1.5, 3.0]]).double()
    exact = torch.nn.functional.cross_entropy(scores, torch.tensor([0]))
    assert float(cross_entropy_bound(margins)) == pytest.approx(float(exact))


def test_an_estimate_outside_is_said_to_be() -> None:
    assert outside(0.5, 0.4, 1.0) == "below"
    assert outside(0.5, 1.2, 1.0) == "above"
    assert outside(0.5, 0.7, 1.0) is None
    assert outside(0.5, 1.2, None) is None
    assert outside(None, 0.2, 1.0) is None


def test_redlr_takes_what_examples_attain_and_its_own_ceiling() -> None:
    entry = Sensitivity(
        order="inf",
        loss="redlr",
        upsilon=Interval(value=1.0, low=None, high=None),
        value_at_zero=Interval(value=-0.5, low=None, high=None),
        points=[],
        value=[ValuePoint(delta=0.1, attained=-0.45, first_order=-0.4, bounded=None, outside=None)],
    )
    clean = np.array([-0.8, -0.2, 0.0, -1.0])
    (point,) = bracketed(entry, clean, np.array([0.05, 0.2, 0.0, np.inf]), None, math.inf).value
    assert point.attained == pytest.approx((0.0 - 0.2 + 0.0 - 1.0) / 4)
    assert point.bounded == 0.0
    assert point.outside == "below"


def test_a_grid_holds_the_budgets() -> None:
    grid = grid_of((0.0, 0.1, 0.3, math.inf))
    assert {0.1, 0.3} <= set(grid.tolist())
    assert grid[0] < 0.01
    assert not len(grid_of(()))
