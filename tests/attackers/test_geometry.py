"""Every metric: projections and ascents against independent solvers, norms against their laws."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from linear_models import streams
from scipy.optimize import linprog, minimize_scalar
from torch import Tensor

from attackers.geometry import NORMS, Linf, Metric

SHAPES = {
    "vector": (5, 6),
    "image": (4, 2, 3, 3),
    "single": (1, 7),
    "one_value": (3, 1),
    "large": (2, 3, 40, 41),
}
RADII = {"linf": 0.08, "l2": 0.3, "l1": 0.6}
every_metric = pytest.mark.parametrize("metric", [NORMS[n]() for n in NORMS], ids=NORMS)
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
seeds = st.integers(0, 2**32 - 1)
names = st.sampled_from(sorted(NORMS))
# From less than the spacing of float32 around 1 to far beyond the box.
radii = st.floats(-9, 2).map(lambda exponent: 10.0**exponent)


def points(shape: tuple[int, ...], seed: int = 0, spread: float = 0.7) -> tuple[Tensor, Tensor]:
    """Samples of the box, some values on its faces, and points around them, many outside."""
    random = torch.Generator().manual_seed(seed)
    x0 = torch.rand(shape, generator=random)
    face = torch.rand(shape, generator=random)
    x0 = torch.where(face < 0.15, 0.0, torch.where(face > 0.85, 1.0, x0))
    return x0, x0 + spread * torch.randn(shape, generator=random)


def inside(metric: Metric, x0: Tensor, x: Tensor, radius: Tensor | float) -> None:
    """In the ball, measured in float64 by numpy, and in the box; to the bit, without tolerance."""
    moved = np.abs(x.double().numpy() - x0.double().numpy()).reshape(len(x0), -1)
    order = {"linf": np.inf, "l2": 2, "l1": 1}[metric.name]
    assert (np.linalg.norm(moved, order, axis=1) <= np.asarray(radius, dtype=np.float64)).all()
    assert bool((x >= metric.low).all())
    assert bool((x <= metric.high).all())


def plain_ball(name: str, moved: np.ndarray, radius: float) -> np.ndarray:
    """Projection onto the ball alone, one row; for l1 after Duchi et al. 2008."""
    if name == "linf":
        return np.clip(moved, -radius, radius)
    if name == "l2":
        return moved * min(1.0, radius / max(np.linalg.norm(moved), 1e-300))
    if np.abs(moved).sum() <= radius:
        return moved
    top = np.sort(np.abs(moved))[::-1]
    thresholds = (np.cumsum(top) - radius) / np.arange(1, len(top) + 1)
    threshold = thresholds[top > thresholds][-1]
    return np.sign(moved) * np.maximum(np.abs(moved) - threshold, 0)


def dykstra(name: str, x0: np.ndarray, x: np.ndarray, radius: float) -> np.ndarray:
    """Projection onto ball ∩ box by Dykstra's alternation, float64, one row."""
    z, p, q = x.copy(), np.zeros_like(x), np.zeros_like(x)
    for _ in range(4000):
        y = x0 + plain_ball(name, z + p - x0, radius)
        p = z + p - y
        z, old = np.clip(y + q, 0, 1), z
        q = y + q - z
        if np.abs(z - old).max() < 1e-13:
            break
    return z


@every_metric
@every_shape
def test_projection_is_the_nearest_point_of_ball_and_box(
    metric: Metric, shape: tuple[int, ...]
) -> None:
    x0, x = points(shape)
    radius = RADII[metric.name]
    z = metric.project(x0, x, radius)
    inside(metric, x0, z, radius)
    for row0, row, found in zip(x0, x, z, strict=True):
        flat0, flat = row0.double().numpy().ravel(), row.double().numpy().ravel()
        reference = dykstra(metric.name, flat0, flat, radius)
        # 2**-17 of the radius is given away so that rounding stays inside.
        np.testing.assert_allclose(found.double().numpy().ravel(), reference, atol=2e-5)


@given(names, st.sampled_from(sorted(SHAPES)), seeds, radii, st.booleans())
@settings(max_examples=150)
def test_projection_lands_inside_and_stays(
    name: str, shape: str, seed: int, radius: float, per_sample: bool
) -> None:
    metric = NORMS[name]()
    x0, x = points(SHAPES[shape], seed)
    budget = radius * torch.linspace(0.5, 1, len(x0)).double() if per_sample else radius
    z = metric.project(x0, x, budget)
    inside(metric, x0, z, budget)
    assert metric.project(x0, z, budget) == pytest.approx(z.numpy(), abs=1e-5 * min(radius, 1))


@every_metric
@every_shape
def test_points_inside_stay_where_they_are(metric: Metric, shape: tuple[int, ...]) -> None:
    x0, x = points(shape)
    x = x.clamp(0, 1)
    assert torch.allclose(metric.project(x0, x, 1e6), x, atol=1e-7)
    assert torch.equal(metric.project(x0, x, 0.0), x0)
    assert torch.equal(metric.project(x0, x0, RADII[metric.name]), x0)


@pytest.mark.parametrize("name", NORMS)
def test_other_boxes_hold_too(name: str) -> None:
    metric = NORMS[name](low=-3.0, high=250.0)
    unit, noise = points((4, 9))
    x0 = -3.0 + unit * 253.0
    z = metric.project(x0, x0 + 200 * noise, 40.0)
    inside(metric, x0, z, 40.0)
    step = metric.ascent(x0, x0, noise - 0.5, 1e4)
    assert metric.project(x0, x0 + step, 1e6) == pytest.approx((x0 + step).numpy(), abs=1e-3)


def best_gain(name: str, g: np.ndarray, low: np.ndarray, high: np.ndarray, step: float) -> float:
    """sup <g, d> over the ball of radius ``step`` and low <= d <= high; one row, float64."""
    n = len(g)
    if name == "linf":
        bounds = list(zip(np.maximum(low, -step), np.minimum(high, step), strict=True))
        return -linprog(-g, bounds=bounds).fun
    if name == "l1":
        # d = u - v with u, v >= 0 and a total of at most the step.
        bounds = [(0, h) for h in high] + [(0, -m) for m in low]
        return -linprog(np.r_[-g, g], A_ub=np.ones((1, 2 * n)), b_ub=[step], bounds=bounds).fun

    def dual(log_weight: float) -> float:
        weight = np.exp(log_weight)
        d = np.clip(g / weight, low, high)
        return weight * step**2 / 2 + float(g @ d - weight * d @ d / 2)

    return float(minimize_scalar(dual, bounds=(-25, 25), method="bounded",
                                 options={"xatol": 1e-10}).fun)  # fmt: skip


@every_metric
@every_shape
@pytest.mark.parametrize("scale", [0.3, 1.0, 8.0])
def test_ascent_gains_what_an_independent_solver_gains(
    metric: Metric, shape: tuple[int, ...], scale: float
) -> None:
    x0, noise = points(shape, seed=3)
    grad, step = noise - x0, scale * RADII[metric.name]
    d = metric.ascent(x0, x0, grad, step)
    assert bool((x0 + d >= 0).all())
    assert bool((x0 + d <= 1).all())
    assert (metric.distance(torch.zeros_like(d), d) <= step * (1 + 1e-6)).all()
    for row0, row, g in zip(x0, d, grad, strict=True):
        start, g64 = row0.double().numpy().ravel(), g.double().numpy().ravel()
        best = best_gain(metric.name, g64, -start, 1 - start, step)
        assert g64 @ row.double().numpy().ravel() == pytest.approx(best, rel=1e-4, abs=1e-9)


@given(names, seeds, radii, st.floats(-43, 30))
@settings(max_examples=150)
def test_ascent_keeps_step_and_box_for_gradients_of_any_size(
    name: str, seed: int, step: float, exponent: float
) -> None:
    metric = NORMS[name]()
    x0, noise = points((3, 8), seed)
    grad = ((noise - x0).double() * 10**exponent).float()
    d = metric.ascent(x0, x0, grad, step)
    assert d.isfinite().all()
    assert bool((x0 + d >= 0).all())
    assert bool((x0 + d <= 1).all())
    assert (metric.distance(torch.zeros_like(d), d) <= step * (1 + 1e-6)).all()
    assert (d * grad.sign() >= 0).all()


@every_metric
def test_a_sample_without_room_does_not_move(metric: Metric) -> None:
    black, white = torch.zeros(2, 6), torch.ones(2, 6)
    for x0, grad in ((black, -torch.ones(2, 6)), (white, torch.ones(2, 6))):
        assert torch.equal(metric.ascent(x0, x0, grad, 0.5), torch.zeros(2, 6))
        assert torch.equal(metric.project(x0, x0 + grad, 0.5), x0)
        assert (metric.ascent(x0, x0, -grad, 0.5) * -grad).sum() > 0
    assert torch.equal(metric.ascent(black, black, torch.zeros(2, 6), 0.5), torch.zeros(2, 6))
    assert torch.equal(metric.ascent(black, black, torch.ones(2, 6), 0.0), torch.zeros(2, 6))


@given(names, st.sampled_from(sorted(SHAPES)), seeds, st.floats(-44, 30))
def test_direction_has_unit_length_and_gains_the_dual_norm(
    name: str, shape: str, seed: int, exponent: float
) -> None:
    metric = NORMS[name]()
    _, noise = points(SHAPES[shape], seed)
    grad = (noise.double() * 10**exponent).float()
    assume(bool((grad != 0).flatten(1).any(1).all()))
    if name == "linf":  # sign(g) is shorter than one only where a gradient is zero
        assume(bool((grad != 0).all()))
    h = metric.direction(grad, grad)
    gained = (h.double() * grad.double()).flatten(1).sum(1)
    assert gained == pytest.approx(metric.dual_norm(grad, grad).numpy(), rel=1e-5)
    unit = metric.distance(torch.zeros_like(h), h)
    assert unit == pytest.approx(np.ones(len(h)), rel=1e-5)


@every_metric
def test_a_zero_gradient_has_no_direction(metric: Metric) -> None:
    zero = torch.zeros(3, 2, 2)
    assert torch.equal(metric.direction(zero, zero), zero)
    assert torch.equal(metric.dual_norm(zero, zero), torch.zeros(3).double())


@every_metric
@every_shape
def test_dual_norm_is_the_best_gain_without_a_box(metric: Metric, shape: tuple[int, ...]) -> None:
    _, grad = points(shape, seed=5)
    conjugate = {"linf": 1, "l2": 2, "l1": np.inf}[metric.name]
    reference = np.linalg.norm(grad.double().numpy().reshape(len(grad), -1), conjugate, axis=1)
    assert metric.dual_norm(grad, grad).numpy() == pytest.approx(reference, rel=1e-12)


@given(names, seeds)
def test_distance_is_a_metric(name: str, seed: int) -> None:
    metric = NORMS[name]()
    a, b = points((4, 3, 2), seed)
    _, c = points((4, 3, 2), seed + 1)
    assert metric.distance(a, b).dtype == torch.float64
    assert torch.equal(metric.distance(a, a), torch.zeros(4).double())
    assert torch.equal(metric.distance(a, b), metric.distance(b, a))
    assert (metric.distance(a, b) > 0).all()
    detour = metric.distance(a, c) + metric.distance(c, b)
    assert (metric.distance(a, b) <= detour * (1 + 1e-12)).all()


def test_distances_of_one_move_by_hand() -> None:
    x0, x = torch.zeros(1, 3), torch.tensor([[3.0, -4.0, 0.0]])
    found = [float(NORMS[name]().distance(x0, x)) for name in ("linf", "l2", "l1")]
    assert found == [4.0, 5.0, 7.0]


@given(names, seeds, radii)
def test_random_points_are_inside(name: str, seed: int, radius: float) -> None:
    metric = NORMS[name]()
    x0, _ = points((5, 2, 3), seed)
    inside(metric, x0, metric.sample(x0, radius, streams(x0)), radius)


@every_metric
def test_random_points_are_spread_over_the_ball(metric: Metric) -> None:
    radius = 0.2
    x0 = torch.full((800, 3), 0.5) + torch.arange(800)[:, None] * 1e-7
    moved = metric.sample(x0, radius, streams(x0)) - x0
    # No corner, no direction is preferred, and no shell: uniform in a ball of three dimensions.
    assert moved.mean(0).abs().max() < 0.02
    assert ((moved > 0).sum(0) - 400).abs().max() < 80
    share = metric.distance(torch.zeros_like(moved), moved) / radius
    assert float((share < 0.5).double().mean()) == pytest.approx(0.5**3, abs=0.05)
    assert float((share < 0.8).double().mean()) == pytest.approx(0.8**3, abs=0.06)


@every_metric
@every_shape
def test_diameter_is_attained_and_not_exceeded(metric: Metric, shape: tuple[int, ...]) -> None:
    x0, _ = points(shape)
    corner = (x0 < 0.5).to(x0)
    assert metric.diameter(x0) == pytest.approx(metric.distance(x0, corner).numpy(), rel=1e-6)
    other = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    assert (metric.distance(x0, other) <= metric.diameter(x0) * (1 + 1e-6)).all()


@every_metric
@every_shape
def test_results_of_a_row_do_not_depend_on_the_batch(
    metric: Metric, shape: tuple[int, ...]
) -> None:
    x0, x = points(shape, seed=11)
    radius = RADII[metric.name]
    functions = {
        "distance": lambda a, b: metric.distance(a, b),
        "project": lambda a, b: metric.project(a, b, radius),
        "ascent": lambda a, b: metric.ascent(a, a, b - a, radius),
        "direction": lambda a, b: metric.direction(a, b - a),
        "dual_norm": lambda a, b: metric.dual_norm(a, b - a),
        "sample": lambda a, b: metric.sample(a, radius, streams(a)),
        "diameter": lambda a, b: metric.diameter(a),
    }
    for name, function in functions.items():
        together = function(x0, x)
        alone = torch.cat([function(x0[i : i + 1], x[i : i + 1]) for i in range(len(x0))])
        assert torch.equal(together, alone), name
        assert torch.equal(together.flip(0), function(x0.flip(0), x.flip(0))), name


def test_a_projection_onto_linf_uses_the_whole_radius() -> None:
    x0 = torch.full((1, 4), 0.5)
    z = Linf().project(x0, x0 + 1, 8 / 255)
    assert float(Linf().distance(x0, z)) == pytest.approx(8 / 255, abs=2e-7)
