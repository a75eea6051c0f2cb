"""The cheap steps and projections of loops, against the exact ones of the geometry."""

import pytest
import torch
from torch import Tensor

from attackers.geometry import NORMS, Metric
from attackers.metric import Ball

RADII = {"linf": 0.1, "l2": 1.0, "l1": 6.0}
every_metric = pytest.mark.parametrize("metric", [NORMS[n]() for n in NORMS], ids=NORMS)


def crowded(shape: tuple[int, ...] = (6, 1, 12, 12)) -> tuple[Tensor, Tensor, Tensor]:
    """Samples with many values on the faces of the box, points around them, and gradients."""
    random = torch.Generator().manual_seed(5)
    x0 = torch.rand(shape, generator=random)
    x0 = torch.where(torch.rand(shape, generator=random) < 0.6, x0.round(), x0)
    x = x0 + 0.3 * torch.randn(shape, generator=random)
    return x0, x, torch.randn(shape, generator=random)


@every_metric
def test_projection_is_nearly_the_exact_one_and_inside(metric: Metric) -> None:
    x0, x, _ = crowded()
    radius = RADII[metric.name] * torch.linspace(0.2, 1, 6).double()
    z = metric.ball(x0, radius).project(x)
    assert (metric.distance(x0, z) <= radius * (1 + 1e-6)).all()
    # The radius is used: what a loop gives away at the boundary is less than a percent.
    assert (metric.distance(x0, z) >= 0.99 * radius).all()
    assert ((z >= 0) & (z <= 1)).all()
    assert (z - metric.project(x0, x, radius)).abs().max() < 2e-3


@every_metric
def test_points_inside_stay(metric: Metric) -> None:
    x0, x, _ = crowded()
    x = x.clamp(0, 1)
    assert torch.allclose(metric.ball(x0, 1e4).project(x), x, atol=1e-6)


@every_metric
def test_steps_gain_what_the_exact_ones_gain(metric: Metric) -> None:
    x0, x, grad = crowded()
    x = metric.project(x0, x, RADII[metric.name])
    length = torch.full((6,), 0.5 * RADII[metric.name], dtype=torch.float64)
    step = metric.ball(x0, RADII[metric.name]).step(x, grad, length)
    inside = (x + step).clamp(0, 1) - x
    gain = (inside * grad).flatten(1).sum(1)
    best = (metric.ascent(x0, x, grad, length) * grad).flatten(1).sum(1)
    assert (gain >= 0.95 * best).all(), gain / best
    assert (gain <= 1.02 * best).all(), gain / best


def test_an_l2_step_that_the_box_cuts_keeps_its_length() -> None:
    metric = NORMS["l2"]()
    # Nine of ten coordinates have little room left, and the gradient points there.
    x0 = torch.full((1, 1000), 0.98)
    x0[:, ::10] = 0.5
    grad = torch.ones(1, 1000)
    grad[:, ::10] = 1e-2
    length = torch.tensor([1.5], dtype=torch.float64)
    step = metric.ball(x0, 1.5).step(x0, grad, length)
    # Scaling the gradient to the length and clipping would leave 0.6 of it.
    assert 1.4 <= float(step.norm()) <= 4.0


@every_metric
def test_a_metric_without_balls_of_its_own_uses_the_exact_methods(metric: Metric) -> None:
    x0, x, grad = crowded()
    ball = Ball.of(metric, x0, 0.3)
    assert torch.equal(ball.project(x), metric.project(x0, x, 0.3))
    length = torch.full((6,), 0.1)
    assert torch.equal(ball.step(x0, grad, length), metric.ascent(x0, x0, grad, length))


@every_metric
def test_balls_can_be_resized_and_chosen_from(metric: Metric) -> None:
    x0, x, _ = crowded()
    radius = torch.linspace(0.01, 0.3, 6).double()
    ball = metric.ball(x0, radius)
    rows = torch.tensor([4, 1])
    assert torch.equal(ball.take(rows).project(x[rows]), ball.project(x)[rows])
    assert torch.equal(metric.ball(x0, 9.0).resized(radius).project(x), ball.project(x))


@every_metric
def test_bits_do_not_depend_on_the_batch(metric: Metric) -> None:
    x0, x, grad = crowded((9, 3, 7, 5))
    length = torch.full((9,), 0.4, dtype=torch.float64)
    ball = metric.ball(x0, 0.5)
    step, inside = ball.step(x, grad, length), ball.project(x)
    for row in range(9):
        one = torch.tensor([row])
        assert torch.equal(ball.take(one).step(x[one], grad[one], length[one]), step[one])
        assert torch.equal(ball.take(one).project(x[one]), inside[one])


@every_metric
def test_zero_gradients_and_zero_radii(metric: Metric) -> None:
    x0, x, grad = crowded()
    length = torch.full((6,), 0.1, dtype=torch.float64)
    assert torch.equal(metric.ball(x0, 0.1).step(x0, torch.zeros_like(x0), length), 0 * x0)
    assert torch.equal(metric.ball(x0, 0.0).project(x), x0)
    assert metric.ball(x0, 0.1).step(x0, grad * 1e-30, length).isfinite().all()
    assert metric.ball(x0, 0.1).step(x0, grad * 1e30, length).isfinite().all()
