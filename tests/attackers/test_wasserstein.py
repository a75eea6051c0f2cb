"""The image-Wasserstein geometry: by hand, against linear programs over all pairs, by its laws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_mass import best_gain, images, inside, noise, pixels, shuffled
from linear_models import streams
from scipy.spatial.distance import cdist
from torch import Tensor

from attackers.wasserstein import Wasserstein

METRIC = Wasserstein()
LOOSE = 1.0132
"""How far above the steepest pair of pixels the dual norm may lie, as its docstring says."""
SHAPES = {
    "grey": (4, 1, 5, 5),
    "channels": (3, 2, 4, 6),
    "row": (3, 1, 1, 12),
    "column": (3, 2, 9, 1),
    "single": (1, 1, 8, 7),
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
shapes = st.sampled_from(sorted(SHAPES))
seeds = st.integers(0, 2**32 - 1)
# Of smaller ones the rounding to float32 is a visible part; they have a test of their own.
radii = st.floats(-2, 1).map(lambda exponent: 10.0**exponent)


def lipschitz(grad: Tensor) -> np.ndarray:
    """max |g_i - g_j| / C_ij over all pairs of pixels of a channel, by trying each."""
    where = pixels(*grad.shape[-2:])
    distance = cdist(where, where)
    np.fill_diagonal(distance, np.inf)
    flat = grad.double().flatten(2).numpy()
    slopes = np.abs(flat[..., :, None] - flat[..., None, :]) / distance
    return slopes.max((1, 2, 3))


def by_hand(*pixels_of: tuple[int, int, int, float], channels: int = 1) -> Tensor:
    x = torch.zeros(1, channels, 6, 6, dtype=torch.float64)
    for channel, row, column, value in pixels_of:
        x[0, channel, row, column] = value
    return x


def test_a_tenth_of_the_mass_that_moves_one_pixel() -> None:
    x0 = by_hand(*((0, 0, column, 1.0) for column in range(5)), (0, 3, 3, 0.5), (0, 4, 4, 0.5))
    x = x0.clone()
    x[0, 0, 3, 3], x[0, 0, 3, 2] = 0.0, 0.5
    assert 6 * float(METRIC.distance(x0, x)) == pytest.approx(0.5, rel=1e-12)
    x0[0, 0, 0, 0] = x[0, 0, 0, 0] = 0.0
    assert float(METRIC.distance(x0, x)) == 0.1


def test_moves_by_hand() -> None:
    x0 = by_hand((0, 0, 0, 1.0), (1, 5, 5, 1.0), channels=2)
    # Three down and four right, of half of the mass.
    assert float(METRIC.distance(x0, by_hand((0, 3, 4, 1.0), (1, 5, 5, 1.0), channels=2))) == 2.5
    # Both channels at once; and one of them split.
    assert float(METRIC.distance(x0, by_hand((0, 0, 2, 1.0), (1, 5, 1, 1.0), channels=2))) == 3.0
    split = by_hand((0, 0, 0, 0.5), (0, 0, 1, 0.5), (1, 5, 5, 1.0), channels=2)
    assert float(METRIC.distance(x0, split)) == 0.25


def test_mass_never_leaves_its_channel() -> None:
    x0 = by_hand((0, 2, 2, 1.0), (1, 2, 2, 0.5), channels=2)
    # The image's mass is the same; that of its channels is not.
    x = by_hand((0, 2, 2, 0.5), (1, 2, 2, 1.0), channels=2)
    assert float(METRIC.distance(x0, x)) == math.inf
    assert float(METRIC.distance(x0, 1.001 * x0)) == math.inf
    # What rounding changes is forgiven.
    assert float(METRIC.distance(x0, (1 + 1e-8) * x0)) == 0


def test_one_bad_image_does_not_spoil_the_others() -> None:
    x0 = images((5, 1, 5, 5))
    x = shuffled(x0)
    expected = METRIC.distance(x0, x)
    assert expected.isfinite().all()
    assert (expected > 0).all()
    x[1] *= 0.5
    x[3, 0, 2, 2] = torch.nan
    found = METRIC.distance(x0, x)
    assert found[[1, 3]].isinf().all()
    assert torch.equal(found[[0, 2, 4]], expected[[0, 2, 4]])


def test_black_images_cannot_move() -> None:
    black = torch.zeros(2, 3, 4, 4)
    grad = noise(black)
    assert torch.equal(METRIC.distance(black, black), torch.zeros(2).double())
    assert METRIC.distance(black, black + 0.1).isinf().all()
    assert torch.equal(METRIC.project(black, black + grad, 0.5), black)
    assert torch.equal(METRIC.farthest(black, grad, 0.5), black)
    assert torch.equal(METRIC.ascent(black, black, grad, 0.5), black)
    assert torch.equal(METRIC.heading(black, black, grad, 0.5), black)
    assert torch.equal(METRIC.sample(black, 0.5, streams(black)), black)
    assert torch.equal(METRIC.diameter(black), torch.zeros(2))
    assert torch.equal(METRIC.dual_norm(black, grad), torch.zeros(2).double())


def test_full_images_and_single_pixels_have_no_room() -> None:
    for x0 in (torch.ones(2, 1, 5, 4), torch.tensor([0.3, 1.0]).reshape(2, 1, 1, 1)):
        grad = noise(x0)
        assert torch.equal(METRIC.farthest(x0, grad, 0.5), x0)
        assert torch.equal(METRIC.sample(x0, 0.5, streams(x0)), x0)
        assert torch.equal(METRIC.project(x0, x0 + grad, 0.5), x0)
        assert torch.equal(METRIC.diameter(x0), torch.zeros(2))
        assert METRIC.direction(x0, grad).isfinite().all()


@given(shapes, seeds)
@settings(max_examples=30)
def test_distance_is_a_metric_that_grows_along_segments(shape: str, seed: int) -> None:
    a = images(SHAPES[shape], seed).double()
    b, c = shuffled(a, seed + 1), shuffled(a, seed + 2)
    there = METRIC.distance(a, b)
    assert there.dtype == torch.float64
    assert there.isfinite().all()
    assert torch.equal(METRIC.distance(a, a), torch.zeros(len(a)).double())
    assert METRIC.distance(b, a) == pytest.approx(there.numpy(), rel=1e-9)
    detour = METRIC.distance(a, c) + METRIC.distance(c, b)
    assert (there <= detour * (1 + 1e-9)).all()
    for share in (0.25, 0.7):
        part = METRIC.distance(a, a + share * (b - a))
        assert part == pytest.approx(share * there.numpy(), rel=1e-9)


@given(shapes, seeds, st.floats(-1, 0), st.floats(0.1, 300))
@settings(max_examples=30)
def test_neither_brightness_nor_the_ends_of_the_box_matter(
    shape: str, seed: int, low: float, span: float
) -> None:
    x0 = images(SHAPES[shape], seed).double()
    x = shuffled(x0, seed)
    expected = METRIC.distance(x0, x).numpy()
    assert METRIC.distance(0.25 * x0, 0.25 * x) == pytest.approx(expected, rel=1e-12)
    # Mass is what a pixel holds above the lower end.
    other = Wasserstein(low * span, low * span + span)
    y0, y = other.low + span * x0, other.low + span * x
    assert other.distance(y0, y) == pytest.approx(expected, rel=1e-7)
    assert other.mass(y0) == pytest.approx(span * METRIC.mass(x0).numpy(), rel=1e-9)


@every_shape
def test_other_boxes_hold_too(shape: tuple[int, ...]) -> None:
    metric = Wasserstein(-3.0, 250.0)
    x0 = -3 + 253 * images(shape, 4)
    grad = noise(x0)
    inside(metric, x0, metric.farthest(x0, grad, 0.1), 0.1)
    inside(metric, x0, metric.project(x0, x0 + 300 * grad, 0.1), 0.1)
    inside(metric, x0, metric.sample(x0, 0.1, streams(x0)), 0.1)
    unit = METRIC.farthest(images(shape, 4), grad, 0.1) - images(shape, 4)
    moved = metric.farthest(x0, grad, 0.1) - x0
    assert moved.numpy() / 253 == pytest.approx(unit.numpy(), abs=1e-4)


@given(shapes, seeds, radii, st.booleans())
@settings(max_examples=60)
def test_projection_lands_inside_and_stays(
    shape: str, seed: int, radius: float, per_sample: bool
) -> None:
    x0 = images(SHAPES[shape], seed)
    x = x0 + 0.7 * noise(x0, seed)
    budget = radius * torch.linspace(0.5, 1, len(x0)).double() if per_sample else radius
    z = METRIC.project(x0, x, budget)
    inside(METRIC, x0, z, budget)
    assert torch.equal(METRIC.project(x0, z, budget), z)


@every_shape
def test_points_inside_stay_where_they_are(shape: tuple[int, ...]) -> None:
    x0 = images(shape, 2)
    x = shuffled(x0)
    assert torch.equal(METRIC.project(x0, x, 1e3), x)
    assert torch.equal(METRIC.project(x0, x, METRIC.distance(x0, x)), x)
    assert torch.equal(METRIC.project(x0, x, 0.0), x0)
    assert torch.equal(METRIC.project(x0, x0, 0.1), x0)


@every_shape
def test_a_projection_of_the_same_mass_is_nearest_in_the_distance_itself(
    shape: tuple[int, ...],
) -> None:
    x0 = images(shape, 3).double()
    x = shuffled(x0, 1)
    far = METRIC.distance(x0, x)
    z = METRIC.project(x0, x, 0.3 * far)
    # No point of the ball is nearer to x than the rest of the way.
    assert METRIC.distance(z, x) == pytest.approx(0.7 * far.numpy(), rel=1e-4)


@every_shape
def test_a_lost_mass_is_restored_by_a_shift(shape: tuple[int, ...]) -> None:
    x0 = images(shape, 5).double()
    x = x0 + 0.2 * noise(x0)
    z = METRIC.project(x0, x, 1e6)
    inside(METRIC, x0, z, 1e6)
    # The nearest point of {same mass} ∩ box is clip(x + shift), one shift per channel.
    shift = (z - x).flatten(2)
    free = ((z > 0) & (z < 1)).flatten(2)
    middle = torch.where(free, shift, 0).sum(2) / free.sum(2)
    assert (free.sum(2) > 0).all()
    assert z.numpy() == pytest.approx((x + middle[:, :, None, None]).clamp(0, 1).numpy(), abs=1e-6)


def test_float32_may_exceed_tiny_radii_by_its_own_rounding() -> None:
    """Below a hundredth of a pixel the rounding of the pixels themselves can be seen."""
    x0 = images((6, 1, 12, 12), 7)
    for radius in (1e-5, 1e-4, 1e-3):
        for z in (
            METRIC.project(x0, shuffled(x0), radius),
            METRIC.farthest(x0, noise(x0), radius),
        ):
            assert (METRIC.distance(x0, z) <= radius + 3e-8).all()
        exact = METRIC.project(x0.double(), shuffled(x0).double(), radius)
        assert (METRIC.distance(x0.double(), exact) <= radius).all()


def gains(x0: Tensor, z: Tensor, grad: Tensor) -> np.ndarray:
    return ((z.double() - x0.double()) * grad.double()).flatten(1).sum(1).numpy()


@pytest.mark.parametrize("shape", [(1, 5, 5), (2, 4, 6), (1, 1, 12), (2, 9, 1)], ids=str)
@pytest.mark.parametrize("radius", [0.05, 0.1])
def test_farthest_gains_most_of_what_the_linear_program_gains(
    shape: tuple[int, ...], radius: float
) -> None:
    x0 = images((12, *shape), 1)
    grad = noise(x0, 2)
    z = METRIC.farthest(x0, grad, radius)
    inside(METRIC, x0, z, radius)
    best = np.array([best_gain(METRIC, *row, radius) for row in zip(x0, grad, strict=True)])
    share = gains(x0, z, grad) / best
    assert (share <= 1 + 1e-6).all()
    # Entropy, and a room that binds, cost a few per cent; chains of full pixels more.
    assert share.min() >= 0.75, share
    assert share.mean() >= 0.95, share


def test_full_pixels_with_nothing_around_do_not_hide_the_best_move() -> None:
    """A pixel that is full and worth much, in empty surroundings, must not be emptied."""
    x0 = torch.tensor([1, 0, 0, 1, 0.572, 1, 0.937, 0, 0.314, 0.198, 0, 0]).reshape(1, 1, 1, 12)
    grad = torch.tensor([1, -0.75, -0.2, -0.4, -1.5, -0.5, -0.85, 0.53, 0, 0, 1.06, 0.88])
    grad = grad.reshape(1, 1, 1, 12)
    for radius in (0.01, 0.05, 0.1):
        gain = gains(x0, METRIC.farthest(x0, grad, radius), grad)
        assert gain >= 0.95 * best_gain(METRIC, x0[0], grad[0], radius)


@given(shapes, seeds, radii, st.sampled_from([1e-38, 1.0, 1e30]))
@settings(max_examples=50)
def test_ascent_keeps_ball_box_and_mass_from_any_point(
    shape: str, seed: int, radius: float, scale: float
) -> None:
    x0 = images(SHAPES[shape], seed)
    x = METRIC.sample(x0, 0.1, streams(x0))
    grad = scale * noise(x0, seed)
    d = METRIC.ascent(x0, x, grad, radius)
    assert (gains(torch.zeros_like(d), d, grad) >= 0).all()
    inside(METRIC, x, x + d, radius)
    inside(METRIC, x0, METRIC.farthest(x0, grad, radius), radius)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@every_shape
def test_every_method_keeps_the_dtype(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x0 = images(shape, 6).to(dtype)
    grad = noise(x0)
    for found in (
        METRIC.project(x0, x0 + grad, 0.1),
        METRIC.ascent(x0, x0, grad, 0.1),
        METRIC.direction(x0, grad),
        METRIC.heading(x0, x0, grad, 0.1),
        METRIC.farthest(x0, grad, 0.1),
        METRIC.sample(x0, 0.1, streams(x0)),
    ):
        assert found.dtype == dtype
        assert found.shape == x0.shape
        assert found.isfinite().all()
    assert METRIC.dual_norm(x0, grad).dtype == METRIC.distance(x0, x0).dtype == torch.float64


@every_shape
def test_gradients_without_slope_move_nothing(shape: tuple[int, ...]) -> None:
    x0 = images(shape, 8)
    # What is the same everywhere in a channel is worth nothing, as the channel keeps its mass.
    steps = torch.arange(shape[1]).float()[None, :, None, None].expand(shape)
    for grad in (torch.zeros(shape), torch.full(shape, 0.37), torch.full(shape, 1e30), steps):
        assert torch.equal(METRIC.farthest(x0, grad, 0.1), x0)
        assert torch.equal(METRIC.direction(x0, grad), torch.zeros(shape))
        assert torch.equal(METRIC.dual_norm(x0, grad), torch.zeros(shape[0]).double())
    lost = torch.full(shape, torch.nan)
    assert torch.equal(METRIC.farthest(x0, lost, 0.1), x0)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), seeds)
@settings(max_examples=80)
def test_dual_norm_is_the_steepest_pair_or_a_little_more(
    height: int, width: int, channels: int, seed: int
) -> None:
    x0 = images((3, channels, height, width), seed).double() + 0.01
    # From noise, where neighbours are the steepest pair, to planes, where far pixels are too.
    plane = torch.from_numpy(pixels(height, width)).double() @ noise(torch.zeros(2, 3).double(), 1)
    smooth = plane.T.reshape(3, 1, height, width).expand_as(x0)
    for grad in (noise(x0, seed), smooth + 0.01 * noise(x0, seed), smooth):
        exact = lipschitz(grad) * METRIC.mass(x0).numpy()
        found = METRIC.dual_norm(x0, grad).numpy()
        assert (found >= exact * (1 - 1e-12)).all()
        assert (found <= exact * LOOSE * (1 + 1e-12)).all()


def test_dual_norm_is_exact_where_neighbours_are_steepest() -> None:
    x0 = images((8, 2, 7, 7))
    grad = noise(x0)
    exact = lipschitz(grad) * METRIC.mass(x0).numpy()
    assert METRIC.dual_norm(x0, grad).numpy() == pytest.approx(exact, rel=1e-12)


@given(shapes, seeds)
@settings(max_examples=40)
def test_no_move_gains_more_than_the_dual_norm(shape: str, seed: int) -> None:
    x0 = images(SHAPES[shape], seed).double()
    grad = noise(x0, seed)
    bound = METRIC.dual_norm(x0, grad)
    for z in (
        shuffled(x0, seed),
        METRIC.farthest(x0, grad, 0.1),
        METRIC.sample(x0, 0.3, streams(x0)),
    ):
        gain = torch.from_numpy(gains(x0, z, grad))
        assert (gain <= bound * METRIC.distance(x0, z) * (1 + 1e-9) + 1e-12).all()


@given(shapes, seeds, st.sampled_from([1e-30, 1.0, 1e30]))
@settings(max_examples=40)
def test_direction_has_unit_length_and_gains_the_dual_norm(
    shape: str, seed: int, scale: float
) -> None:
    x0 = images(SHAPES[shape], seed).double()
    grad = scale * noise(x0, seed)
    h = METRIC.direction(x0, grad)
    assert METRIC.distance(x0, x0 + h) == pytest.approx(np.ones(len(x0)), rel=1e-9)
    gain = (h * grad).flatten(1).sum(1)
    dual = METRIC.dual_norm(x0, grad)
    assert (gain <= dual * (1 + 1e-9)).all()
    assert (gain >= dual / LOOSE * (1 - 1e-9)).all()


@given(shapes, seeds, radii)
@settings(max_examples=40)
def test_heading_of_any_shorter_length_stays_inside(shape: str, seed: int, longest: float) -> None:
    x0 = images(SHAPES[shape], seed)
    x = METRIC.sample(x0, 0.1, streams(x0))
    heading = METRIC.heading(x0, x, noise(x0, seed), longest).double()
    for share in (0.01, 0.5, 1.0):
        length = share * longest
        z = x.double() + length * heading
        # The distance is in units of the mass, which is that of x0.
        assert (METRIC.distance(x.double(), z) <= length * (1 + 1e-6)).all()
        assert z.min() >= -1e-6
        assert z.max() <= 1 + 1e-6
    assert torch.equal(METRIC.heading(x0, x, noise(x0), 0.0), torch.zeros_like(x0))


@given(shapes, seeds, radii)
@settings(max_examples=40)
def test_random_points_are_inside(shape: str, seed: int, radius: float) -> None:
    x0 = images(SHAPES[shape], seed)
    inside(METRIC, x0, METRIC.sample(x0, radius, streams(x0)), radius)


def test_random_points_are_of_all_lengths() -> None:
    x0 = images((60, 1, 6, 6))
    share = METRIC.distance(x0, METRIC.sample(x0, 0.1, streams(x0))) / 0.1
    assert share.min() < 0.15
    assert share.max() > 0.85
    assert float(share.mean()) == pytest.approx(0.5, abs=0.1)


@given(shapes, seeds)
@settings(max_examples=30)
def test_no_point_of_the_box_is_beyond_the_diameter(shape: str, seed: int) -> None:
    x0 = images(SHAPES[shape], seed)
    for number in range(3):
        far = METRIC.distance(x0, shuffled(x0, seed + number))
        assert (far <= METRIC.diameter(x0) * (1 + 1e-6)).all()


def test_the_diameter_is_attained_across_the_diagonal() -> None:
    corner = torch.zeros(1, 1, 4, 5)
    corner[0, 0, 0, 0] = 0.5
    assert float(METRIC.diameter(corner)) == 5.0
    assert float(METRIC.distance(corner, corner.flip(2, 3))) == 5.0


@every_shape
def test_results_of_an_image_do_not_depend_on_the_batch(shape: tuple[int, ...]) -> None:
    x0 = images((6, *shape[1:]), 11)
    x = x0 + 0.3 * noise(x0)
    functions = {
        "project": lambda a, b: METRIC.project(a, b, 0.1),
        "ascent": lambda a, b: METRIC.ascent(a, a, b - a, 0.1),
        "farthest": lambda a, b: METRIC.farthest(a, b - a, 0.1),
        "heading": lambda a, b: METRIC.heading(a, a, b - a, 0.1),
        "direction": lambda a, b: METRIC.direction(a, b - a),
        "dual_norm": lambda a, b: METRIC.dual_norm(a, b - a),
        "sample": lambda a, b: METRIC.sample(a, 0.1, streams(a)),
        "diameter": lambda a, b: METRIC.diameter(a),
    }
    for name, function in functions.items():
        together = function(x0, x)
        alone = torch.cat([function(x0[i : i + 1], x[i : i + 1]) for i in range(len(x0))])
        assert torch.equal(together, alone), name
        assert torch.equal(together.flip(0), function(x0.flip(0), x.flip(0))), name
    z = shuffled(x0)
    together = METRIC.distance(x0, z)
    assert torch.equal(together.flip(0), METRIC.distance(x0.flip(0), z.flip(0)))
    assert torch.equal(together[2:3], METRIC.distance(x0[2:3], z[2:3]))
