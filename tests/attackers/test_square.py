"""Square: linear models from both sides, every shape, few queries, bits that belong to a sample."""

from functools import partial

import pytest
import torch
from linear_models import broken_at, linear_problem, streams
from torch import Tensor

from attackers.geometry import L1, L2, METRICS, Linf, Metric
from attackers.losses import margin, misclassified
from attackers.square import SQUARE_METRICS, TRIALS_PER_DRAW, _bump, _move_mass, _sides, square
from attackers.threat import Threat

SHAPES: dict[str, tuple[int, ...]] = {
    "vector": (12,),
    "one": (1,),
    "two": (2,),
    "signal": (2, 30),
    "image": (3, 5, 4),
    "colour": (3, 8, 8),
    "large": (1, 28, 28),
    "film": (2, 3, 4, 5),
}
every_metric = pytest.mark.parametrize("metric", [METRICS[n]() for n in sorted(SQUARE_METRICS)])
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def reaches(metric: Metric, shape: tuple[int, ...]) -> float:
    """The multiple of the true radius at which the search must have won.

    Weights without any spatial order are the hardest case for windows: measured, l2 windows of at
    least three by three cannot follow them closely.
    """
    return 1.7 if metric.name == "l2" and len(shape) > 2 else 1.1


@every_metric
@every_shape
def test_breaks_outside_the_radius(metric: Metric, shape: tuple[int, ...]) -> None:
    model, x0, labels = linear_problem(shape)
    radius = reaches(metric, shape) * model.radius(x0, metric)
    assert broken_at(square, model, x0, labels, metric, radius).all()


@every_metric
@every_shape
def test_never_breaks_inside_the_radius(metric: Metric, shape: tuple[int, ...]) -> None:
    model, x0, labels = linear_problem(shape)
    radius = 0.95 * model.radius(x0, metric)
    attack = partial(square, queries=300)
    assert not broken_at(attack, model, x0, labels, metric, radius).any()


@every_metric
def test_its_first_pattern_alone_would_be_noticed(metric: Metric) -> None:
    model, x0, labels = linear_problem(SHAPES["signal"])
    radius = reaches(metric, SHAPES["signal"]) * model.radius(x0, metric)
    assert not broken_at(partial(square, queries=1), model, x0, labels, metric, radius).all()


@every_metric
def test_bits_do_not_depend_on_batch_order_or_run(metric: Metric) -> None:
    model, x0, labels = linear_problem((3, 8, 8), samples=6)
    radius = torch.linspace(0.8, 8.0, 6) * model.radius(x0, metric)

    def attack(rows: Tensor) -> Tensor:
        threat = Threat(metric, radius[rows])
        x = x0[rows]
        return square(
            model, x, labels[rows], threat, generator=streams(x), queries=2 * TRIALS_PER_DRAW + 20
        )

    everyone = torch.arange(6)
    together = attack(everyone)
    broken = misclassified(model(together), labels)
    assert broken.any(), "some should leave early"
    assert not broken.all(), "some should stay to the end"
    assert torch.equal(attack(everyone), together)
    for size in (1, 4):
        assert torch.equal(torch.cat([attack(rows) for rows in everyone.split(size)]), together)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert torch.equal(attack(order), together[order])


@every_metric
@pytest.mark.parametrize("low", [0.0, -1.0])
def test_stays_in_ball_and_box_where_the_box_binds(metric: Metric, low: float) -> None:
    metric = type(metric)(low, low + 1.0)
    random = torch.Generator().manual_seed(2)
    x0 = (low + torch.rand((8, 3, 9, 9), generator=random) * 1.4 - 0.2).clamp(low, low + 1.0)
    labels = torch.zeros(8, dtype=torch.long)

    def rough(x: Tensor) -> Tensor:
        z = torch.cos(40 * x.flatten(1).double()).sum(1)
        return torch.stack([torch.full_like(z, 1e3), z], dim=1)

    for radius in (1e-6, 1e-3, 0.3, 5.0):
        threat = Threat(metric, radius)
        x = square(rough, x0, labels, threat, generator=streams(x0), queries=60)
        assert x.shape == x0.shape
        assert (metric.distance(x0, x) <= radius).all()
        assert ((x >= low) & (x <= low + 1)).all()


@every_metric
def test_the_inputs_stay_as_they_were(metric: Metric) -> None:
    model, x0, labels = linear_problem((2, 6))
    model.weight.requires_grad_()
    before, y, radius = x0.clone(), labels.clone(), torch.full((len(x0),), 0.05)
    start = x0 + 0.01
    started = start.clone()
    x = square(
        model, x0, labels, Threat(metric, radius), generator=streams(x0), queries=50, start=start
    )
    assert torch.equal(x0, before)
    assert torch.equal(labels, y)
    assert torch.equal(start, started)
    assert (radius == 0.05).all()
    assert not x.requires_grad
    assert model.weight.grad is None


@every_metric
def test_no_radius_leaves_the_sample(metric: Metric) -> None:
    model, x0, labels = linear_problem((3, 5, 4))
    x = square(model, x0, labels, Threat(metric, 0.0), generator=streams(x0), queries=20)
    assert torch.equal(x, x0)


@every_metric
def test_a_sample_leaves_as_soon_as_it_is_broken_and_no_query_is_lost(metric: Metric) -> None:
    model, x0, labels = linear_problem((3, 8, 8))
    radius = model.radius(x0, metric) * torch.tensor([9.0, 3, 2.5, 2.2, 2, 1.9, 0.5])
    asked: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        asked.append(misclassified(model(x), labels_of(x)))
        return model(x)

    def labels_of(x: Tensor) -> Tensor:
        # Every trial stays nearer to its own sample than to any other.
        gaps = (x[:, None] - x0[None]).flatten(2).norm(dim=2)
        return labels[gaps.argmin(1)]

    x = square(watched, x0, labels, Threat(metric, radius), generator=streams(x0), queries=400)
    broken = misclassified(model(x), labels)
    assert broken[0]
    assert not broken[-1]
    assert len(asked) == 400
    left = len(x0)
    for wrong in asked:
        assert len(wrong) == left
        left -= int(wrong.sum())
    assert left == int((~broken).sum())


@every_metric
def test_keeps_the_trial_of_largest_loss(metric: Metric) -> None:
    model, x0, labels = linear_problem((3, 5, 4))
    seen: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        seen.append(margin(model(x), labels))
        return model(x)

    threat = Threat(metric, 0.5 * model.radius(x0, metric))
    x = square(watched, x0, labels, threat, generator=streams(x0), queries=150)
    assert len(seen) == 150
    assert torch.equal(margin(model(x), labels), torch.stack(seen).amax(0))
    assert (margin(model(x), labels) > seen[0]).all()


@every_metric
def test_a_broken_trial_is_returned_whatever_its_loss(metric: Metric) -> None:
    model, x0, labels = linear_problem((12,))

    def perverse(scores: Tensor, labels: Tensor) -> Tensor:
        return torch.where(misclassified(scores, labels), -torch.inf, margin(scores, labels))

    threat = Threat(metric, 1.5 * model.radius(x0, metric))
    x = square(model, x0, labels, threat, generator=streams(x0), loss=perverse)
    assert misclassified(model(x), labels).all()


@every_metric
def test_scores_that_are_no_numbers_count_as_broken(metric: Metric) -> None:
    model, x0, labels = linear_problem((12,))
    calls = 0

    def sometimes(x: Tensor) -> Tensor:
        nonlocal calls
        calls += len(x)
        scores = model(x)
        return torch.where((x[:, :1] > x0[:, 0].median()), torch.nan, scores)

    x0 = x0.clone()
    radius = 0.5 * model.radius(x0, metric)
    x = square(sometimes, x0, labels, Threat(metric, radius), generator=streams(x0), queries=30)
    assert x.isfinite().all()
    assert (metric.distance(x0, x) <= radius).all()
    assert misclassified(sometimes(x), labels).any()
    assert calls < 30 * len(x0)


@every_metric
def test_a_model_that_never_changes_its_mind(metric: Metric) -> None:
    def constant(x: Tensor) -> Tensor:
        return torch.tensor([0.0, 1.0, 0.5]).expand(len(x), 3)

    _, x0, _ = linear_problem((3, 5, 4))
    labels = torch.ones(len(x0), dtype=torch.long)
    first, x = (
        square(constant, x0, labels, Threat(metric, 0.1), generator=streams(x0), queries=queries)
        for queries in (1, 20)
    )
    assert (metric.distance(x0, x) <= 0.1).all()
    # Trees are flat nearly everywhere: the search goes on across a plateau.
    assert (x != first).flatten(1).any(1).all()


@every_metric
def test_a_warm_start_is_projected_and_tried_first(metric: Metric) -> None:
    model, x0, labels = linear_problem((12,))
    away = x0 - 10 * (labels * 2 - 1)[:, None] * metric.direction(x0, model.weight.expand_as(x0))
    threat = Threat(metric, 1.01 * model.radius(x0, metric))
    x = square(model, x0, labels, threat, generator=streams(x0), queries=1, start=away)
    assert misclassified(model(x), labels).all()
    assert (metric.distance(x0, x) <= threat.delta).all()


def test_a_metric_without_windows_is_refused() -> None:
    model, x0, labels = linear_problem((12,))
    assert {"linf", "l2"} == SQUARE_METRICS
    with pytest.raises(ValueError, match="l2 and linf, not for l1"):
        square(model, x0, labels, Threat(L1(), 0.1), generator=streams(x0))


def test_linf_trials_stand_at_the_radius() -> None:
    # Corners of the ball, wherever the box does not cut it.
    model, x0, labels = linear_problem((3, 8, 8))
    x = square(model, x0, labels, Threat(Linf(), 0.01), generator=streams(x0), queries=300)
    assert (x - x0).abs() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("shape", [(2, 1, 12), (3, 8, 8), (1, 9, 5)])
def test_l2_trials_spend_the_whole_radius(shape: tuple[int, ...]) -> None:
    metric, radius = L2(), torch.tensor([0.05, 0.1], dtype=torch.float64)
    random = torch.Generator().manual_seed(0)
    x0 = torch.full((2, *shape), 0.5)
    x = metric.project(x0, x0 + torch.randn(x0.shape, generator=random), radius)
    for share in (0.8, 0.1, 0.002):
        uniform = torch.rand((2, 6 + shape[0]), generator=random)
        trial = _move_mass(metric, x0, x, radius, share, uniform)
        assert (metric.distance(x0, trial) <= radius).all()
        assert metric.distance(x0, trial) == pytest.approx(radius.numpy(), rel=1e-4)
        changed = (trial != x).any(1)
        tall, wide = _sides(share, x0, smallest=3)
        # Two windows at most.
        assert (changed.flatten(1).sum(1) <= 2 * tall * wide).all()


def test_windows_are_the_squares_of_the_paper() -> None:
    image, signal = torch.empty((1, 3, 28, 28)), torch.empty((1, 2, 1, 50))
    low, high = torch.empty((1, 1, 4, 100)), torch.empty((1, 1, 100, 4))
    assert _sides(0.8, image, smallest=1) == (25, 25)
    assert _sides(0.8 / 512, image, smallest=1) == (1, 1)
    assert _sides(0.8 / 512, image, smallest=3) == (3, 3)
    assert _sides(0.05, image, smallest=3) == (7, 7)
    assert _sides(0.2, signal, smallest=1) == (1, 10)
    assert _sides(0.5, low, smallest=1) == (4, 50)
    assert _sides(0.5, high, smallest=1) == (50, 4)


@pytest.mark.parametrize("size", [3, 5, 8, 21])
def test_bumps_are_those_of_the_authors_code(size: int) -> None:
    def pyramid(height: int, width: int) -> Tensor:
        delta = torch.zeros((height, width), dtype=torch.float64)
        middle = [height // 2, width // 2]
        for ring in range(max(height // 2 + 1, width // 2 + 1)):
            delta[
                max(middle[0], 0) : min(middle[0] + 2 * ring + 1, height),
                max(middle[1], 0) : min(middle[1] + 2 * ring + 1, width),
            ] += 1.0 / (ring + 1) ** 2
            middle = [middle[0] - 1, middle[1] - 1]
        return delta / delta.square().sum().sqrt()

    expected = torch.cat([pyramid(size // 2, size), -pyramid(size - size // 2, size)])
    assert torch.allclose(_bump(size, size), expected / 2**0.5)
