"""HopSkipJump: decisions alone, on linear models of known radii, within its queries."""

import pytest
import torch
from linear_models import SHAPES, linear_problem, streams
from torch import Tensor

from attackers.geometry import L2, NORMS, Linf, Metric
from attackers.hopskipjump import hop_skip_jump, nearest_on_balls
from attackers.losses import misclassified

every_metric = pytest.mark.parametrize("metric", [NORMS[n]() for n in NORMS], ids=NORMS)
# How far above the true radius 4,000 decisions come, measured and rounded up.
CLOSE = {"linf": 1.15, "l2": 1.1, "l1": 3.0}


def decisions(model: object) -> object:
    """The same model as labels alone, one-hot."""

    def labels_alone(x: Tensor) -> Tensor:
        assert callable(model)
        scores = model(x)
        return torch.nn.functional.one_hot(scores.argmax(1), scores.shape[1]).float()

    return labels_alone


@every_metric
@pytest.mark.parametrize("shape", [(6,), (2, 3, 3)], ids=["vector", "image"])
def test_radii_of_linear_models(metric: Metric, shape: tuple[int, ...]) -> None:
    model, x0, labels = linear_problem(shape)
    x = hop_skip_jump(decisions(model), x0, labels, metric, generator=streams(x0), queries=4000)
    assert misclassified(model(x), labels).all()
    assert ((x >= 0) & (x <= 1)).all()
    ratio = metric.distance(x0, x) / model.radius(x0, metric)
    assert (ratio >= 1 - 1e-5).all()
    assert (ratio <= CLOSE[metric.name]).all(), ratio


@every_metric
def test_it_improves_on_where_it_starts(metric: Metric) -> None:
    model, x0, labels = linear_problem((3, 4, 4))
    few, many = (
        metric.distance(
            x0,
            hop_skip_jump(model, x0, labels, metric, generator=streams(x0), queries=queries),
        )
        for queries in (60, 3000)
    )
    assert (many <= few).all()
    assert float((many / few).median()) < 0.6


@pytest.mark.parametrize("queries", [1, 5, 30, 150, 1000])
def test_no_sample_gets_more_queries_than_allowed(queries: int) -> None:
    model, x0, labels = linear_problem((8,))
    total = 0

    def counting(z: Tensor) -> Tensor:
        nonlocal total
        total += len(z)
        return model(z)

    hop_skip_jump(counting, x0, labels, L2(), generator=streams(x0), queries=queries)
    assert total <= queries * len(x0)


@every_metric
def test_bits_do_not_depend_on_batch_or_order(metric: Metric) -> None:
    model, x0, labels = linear_problem((2, 3, 3), samples=5)

    def attack(rows: Tensor) -> Tensor:
        return hop_skip_jump(
            model, x0[rows], labels[rows], metric, generator=streams(x0[rows]), queries=600
        )

    together = attack(torch.arange(5))
    assert torch.equal(torch.cat([attack(torch.tensor([row])) for row in range(5)]), together)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(attack(order), together[order])


def test_a_step_function_and_a_constant() -> None:
    def step(x: Tensor) -> Tensor:
        above = (x.flatten(1)[:, 0] > 0.5).float()
        return torch.stack([1 - above, above], 1)

    x0 = torch.full((3, 1, 3, 3), 0.3) + torch.arange(3)[:, None, None, None] * 1e-3
    labels = torch.zeros(3, dtype=torch.long)
    x = hop_skip_jump(step, x0, labels, Linf(), generator=streams(x0), queries=2000)
    assert misclassified(step(x), labels).all()
    assert (Linf().distance(x0, x) < 0.21).all()

    def constant(x: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.0]).expand(len(x), 2)

    assert torch.equal(
        hop_skip_jump(constant, x0, labels, L2(), generator=streams(x0), queries=500), x0
    )


@every_metric
def test_the_walk_back_stops_on_the_misclassified_side(metric: Metric) -> None:
    model, x0, labels = linear_problem(SHAPES["image"])
    far = (x0 - 0.4 * over_labels(labels, x0) * model.weight.sign()).clamp(0, 1)
    assert misclassified(model(far), labels).all()
    near = nearest_on_balls(model, x0, far, labels, metric)
    assert misclassified(model(near), labels).all()
    assert (metric.distance(x0, near) < metric.distance(x0, far)).all()


def over_labels(labels: Tensor, like: Tensor) -> Tensor:
    return (labels * 2 - 1).reshape(-1, *[1] * (like.dim() - 1)).to(like)
