"""Local plans hold ball, box and mass for any potential, and spend what they may."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_mass import best_gain, images, inside, noise
from torch import Tensor

from attackers.wagan.flow import moved_mass
from attackers.wasserstein import Wasserstein

METRIC = Wasserstein()


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from([(3, 1, 6, 7), (2, 3, 5, 4), (1, 1, 8, 8)]),
    reach=st.integers(1, 3),
    scale=st.sampled_from([0.0, 0.3, 3.0, 1e3]),
    radius=st.floats(0.005, 3.0),
    seed=st.integers(0, 10_000),
)
def test_ball_box_and_mass_hold_for_any_potential(
    shape: tuple[int, ...], reach: int, scale: float, radius: float, seed: int
) -> None:
    x = images(shape, seed)
    result = moved_mass(x, scale * noise(x, seed), torch.full((len(x),), radius), reach=reach)
    inside(METRIC, x, result, radius)


def test_another_box() -> None:
    metric = Wasserstein(low=-1.0, high=3.0)
    x = 4 * images((3, 2, 6, 6)) - 1
    result = moved_mass(x, 3 * noise(x), torch.full((3,), 0.2), reach=2, low=-1.0, high=3.0)
    inside(metric, x, result, 0.2)
    assert bool((metric.distance(x, result) > 0.05).all())


def test_budgets_belong_to_images() -> None:
    x = images((3, 1, 7, 7))
    radius = torch.tensor([0.02, 0.1, 0.5])
    potential = 2 * noise(x)
    together = moved_mass(x, potential, radius, reach=2)
    inside(METRIC, x, together, radius)
    for row in range(3):
        alone = moved_mass(
            x[row : row + 1], potential[row : row + 1], radius[row : row + 1], reach=2
        )
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-6)


def test_a_free_way_uses_the_whole_budget() -> None:
    # One bright column in the dark, sent to the right: nothing is in the way.
    x = torch.zeros(1, 1, 7, 7)
    x[..., 3] = 0.4
    potential = torch.full_like(x, -40.0)
    potential[..., 4] = 40.0
    for radius in (0.05, 0.3, 0.9):
        result = moved_mass(x, potential, torch.tensor([radius]), reach=1)
        assert float(METRIC.distance(x, result)[0]) == pytest.approx(radius, rel=2e-3)
        assert float(result[..., 4].sum() / x.sum()) == pytest.approx(radius, rel=0.02)


def test_a_budget_that_no_price_meets_is_kept_by_scaling() -> None:
    # Beyond the dearest price a little still moves: e^24 against e^-44 per pixel.
    x = images((2, 1, 6, 6)).double() * 0.5 + 0.1
    potential = 1e3 * noise(x)
    radius = torch.tensor([1e-11, 1e-12], dtype=torch.float64)
    result = moved_mass(x, potential, radius, reach=1)
    # Every unit that moved went a pixel at least.
    sent = (result - x).clamp_min(0).flatten(1).sum(1)
    assert bool((sent <= radius * METRIC.mass(x)).all())
    assert bool((sent > 0).all())


def test_no_budget_and_no_mass_mean_no_move() -> None:
    x = images((2, 1, 6, 6))
    potential = 3 * noise(x)
    torch.testing.assert_close(
        moved_mass(x, potential, torch.zeros(2), reach=2), x, rtol=0, atol=1e-7
    )
    black = torch.zeros_like(x)
    assert torch.equal(moved_mass(black, potential, torch.ones(2), reach=2), black)
    full = torch.ones_like(x)
    torch.testing.assert_close(
        moved_mass(full, potential, torch.ones(2), reach=2), full, rtol=0, atol=1e-6
    )


def test_gradient_is_that_of_what_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    # At the exact price; the step of Newton's method leaves an error of its own otherwise.
    monkeypatch.setattr("attackers.wagan.flow.PRICE_BISECTIONS", 40)
    x = images((2, 1, 5, 5), 3).double() * 0.5 + 0.1
    potential = noise(x).requires_grad_()
    weight, way = noise(x, 5), noise(x, 6)
    radius = torch.tensor([0.05, 0.2], dtype=torch.float64)

    def value(potential: Tensor) -> Tensor:
        return (moved_mass(x, potential, radius, reach=1) * weight).sum()

    (grad,) = torch.autograd.grad(value(potential), potential)
    with torch.no_grad():
        slope = (value(potential + 1e-5 * way) - value(potential - 1e-5 * way)) / 2e-5
    assert float((grad * way).sum()) == pytest.approx(float(slope), rel=1e-5)


def test_training_the_potential_finds_what_the_linear_program_allows() -> None:
    x = images((1, 1, 6, 6), 4) * 0.6 + 0.2
    weight = noise(x, 7)
    potential = torch.zeros(1, 1, 6, 6, requires_grad=True)
    optimiser = torch.optim.Adam([potential], 0.2)
    for _ in range(150):
        gain = ((moved_mass(x, potential, torch.tensor([0.1]), reach=2) - x) * weight).sum()
        optimiser.zero_grad()
        (-gain).backward()
        optimiser.step()
    assert float(gain.detach()) >= 0.93 * best_gain(METRIC, x[0], weight[0], 0.1)
