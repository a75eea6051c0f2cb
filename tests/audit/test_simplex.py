"""Certificates over corners: the hull holds the ball, bounds hold in it, and they are tighter."""

import onnx
import pytest
import torch
from fakes import samples_of
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import (
    CLASSES,
    convolutional,
    graph,
    images,
    labels_of,
    linear,
    network,
    random,
    streams,
)
from onnx import helper
from ot import emd2
from scipy.optimize import linprog
from test_crown import served
from torch import Tensor

from attackers.geometry import METRICS, Linf, Wasserstein
from audit.certify import Certified, bounding
from audit.certify.bounding import BoundSettings
from audit.certify.corners import Corners
from audit.certify.crown import Crown
from audit.certify.search import certified_radii, confirmed
from audit.certify.simplex import Simplex
from audit.errors import UnsupportedOperator

CORNERED = ("l1", "wasserstein")
seeds = st.integers(0, 2**31)


def in_the_hull(corners: Tensor, move: Tensor) -> bool:
    """Whether a displacement is a mixture of the corners and 0, by a linear program."""
    points = corners.flatten(1).double().numpy().T
    weight = [1.0] * points.shape[1]
    found = linprog(weight, A_eq=points, b_eq=move.flatten().double().numpy(), bounds=(0, None))
    return bool(found.status == 0 and found.fun <= 1 + 1e-6)


@given(seeds, st.sampled_from(CORNERED), st.sampled_from([(1, 5, 6), (2, 4, 5)]))
@settings(max_examples=25, deadline=None)
def test_the_hull_holds_the_ball(seed: int, name: str, shape: tuple[int, ...]) -> None:
    metric, draws = METRICS[name](), torch.Generator().manual_seed(seed)
    x0 = torch.rand((1, *shape), generator=draws)
    x0 = torch.where(x0 < 0.4, 0.0, torch.where(x0 > 0.85, 1.0, x0))
    # Moves over any distance: half of the image is exchanged at random.
    x = torch.rand(x0.shape, generator=draws)
    if name == "wasserstein":
        x = metric.project(x0, x, 100.0)
    radius = float(metric.distance(x0, x))
    corners = metric.corners(x0, radius)
    assert corners is not None
    assert in_the_hull(corners, x - x0)
    count = metric.corner_count(x0)
    assert count is not None
    assert len(corners) <= int(count)


def test_a_long_way_is_the_mean_of_its_ends() -> None:
    x0 = torch.zeros(1, 1, 1, 9)
    x0[..., 0] = 1.0
    metric = Wasserstein()
    corners = metric.corners(x0, 1.0)
    assert corners is not None
    # All of the budget on one way of 8 pixels.
    move = torch.zeros(1, 1, 1, 9)
    move[..., 0], move[..., 8] = -1 / 8, 1 / 8
    assert in_the_hull(corners, move)
    cost = emd2([0.25], [0.25], [[8.0]])
    assert cost == pytest.approx(2.0)
    assert not in_the_hull(corners, 3 * move)


@pytest.mark.parametrize(
    ("activation", "tuning"), [("Relu", 0), ("Relu", 5), ("LeakyRelu", 5), ("Tanh", 0)]
)
@pytest.mark.parametrize("name", CORNERED)
def test_bounds_hold_at_every_point_of_the_ball(activation: str, tuning: int, name: str) -> None:
    net, metric = network(convolutional(activation)), METRICS[name]()
    x0 = images()
    labels = labels_of(net, x0)
    for radius in (0.01, 0.1, 1.0) if name == "l1" else (0.003, 0.03, 0.3):
        radii = torch.full((1,), radius).double()
        bounds = Simplex(net, metric, tuning=tuning)
        found = [bounds.margins(x0[i : i + 1], labels[i : i + 1], radii) for i in range(len(x0))]
        for draw in range(30):
            x = metric.sample(x0, radius, streams(x0, draw))
            if draw % 2:
                noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(draw))
                x = metric.farthest(x0, noise, radius)
            scores = net.run(x)
            own = scores.gather(1, labels[:, None])
            others = scores[torch.arange(CLASSES) != labels[:, None]].reshape(len(x0), -1)
            low = torch.cat([margins.at(radii) for margins in found])
            assert bool((own - others >= low - 1e-4).all())
            for place in net.layers:
                z = net.run(x, until=place)
                for i, margins in enumerate(found):
                    assert bool((z[i] >= margins.intermediate[place].lower[0] - 1e-4).all())
                    assert bool((z[i] <= margins.intermediate[place].upper[0] + 1e-4).all())


def test_a_linear_model_is_bounded_exactly() -> None:
    model, _ = linear()
    net, metric = network(model), METRICS["l1"](low=-100.0, high=100.0)
    x0 = images(6)
    labels, radius = labels_of(net, x0), torch.tensor([0.7]).double()
    for row in range(6):
        one, label = x0[row : row + 1], labels[row : row + 1]
        corners = Simplex(net, metric).margins(one, label, radius)
        norms = Crown(net, metric).margins(one, label, radius)
        assert float(corners.least()) == pytest.approx(float(norms.least()), abs=1e-4)


@pytest.mark.parametrize("name", CORNERED)
def test_corners_certify_more_than_norms(name: str) -> None:
    net, metric = network(convolutional("Relu")), METRICS[name]()
    x0 = images(8)
    labels, limit = labels_of(net, x0), metric.diameter(x0).double()
    by_norms = certified_radii(Crown(net, metric), x0, labels, limit, steps=6).radius
    by_corners = torch.cat(
        [
            certified_radii(
                Simplex(net, metric),
                x0[row : row + 1],
                labels[row : row + 1],
                limit[row : row + 1],
                steps=6,
            ).radius
            for row in range(8)
        ]
    )
    assert float((by_corners / by_norms).median()) > 1.2


@pytest.mark.parametrize("name", CORNERED)
def test_a_certificate_never_exceeds_an_example(name: str) -> None:
    metric = METRICS[name]()
    for seed in range(4):
        net = network(convolutional("Relu", seed))
        x0 = images(3, seed)
        labels, limit = labels_of(net, x0), metric.diameter(x0).double()
        for row in range(3):
            one, label = x0[row : row + 1], labels[row : row + 1]
            prover, exact = Simplex(net, metric, tuning=3), Simplex(net.double(), metric)
            found = certified_radii(prover, one, label, limit[row : row + 1])
            certain, _ = confirmed(exact, one, label, found)
            assert float(certain) > 0
            assert float(certain) <= float(found.radius)
            for draw in range(60):
                radius = float(limit[row]) * 10 ** -(draw % 8 / 2)
                noise = torch.randn(one.shape, generator=torch.Generator().manual_seed(draw))
                x = metric.farthest(one, noise, radius)
                if int(net.run(x).argmax()) != int(label):
                    assert float(metric.distance(one, x)) > float(certain)


def test_the_upper_bound_is_exact_at_corners_behind_one_layer() -> None:
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["z"], transB=1),
        helper.make_node("Relu", ["z"], ["scores"]),
    ]
    net, metric = network(graph(nodes, {"w": random(CLASSES, 36)})), METRICS["l1"]()
    x0 = images(1)
    moves = metric.corners(x0, 2.0)
    assert moves is not None
    found = Corners(net, x0, torch.cat([torch.zeros_like(x0), moves]))
    found.propagate()
    place = next(iter(net.layers))
    exact = net.run(x0 + found.displacements)
    assert torch.allclose(found.increases[place], exact - exact[:1], atol=1e-4)


def test_a_metric_without_corners_says_so() -> None:
    net, x0 = network(convolutional("Relu")), images(1)
    with pytest.raises(UnsupportedOperator, match="linf"):
        Simplex(net, Linf()).margins(x0, labels_of(net, x0), torch.tensor([0.1]).double())
    model = served(convolutional("Relu"))
    samples, limit = samples_of(model, images(3)), torch.full((3,), 0.5).double()
    found = bounding.certify(model, Linf(), samples, limit, BoundSettings("simplex", 3, 0, 1e9))
    assert found is not None
    assert found.certifier.status == "not_applicable"
    assert found.radius.tolist() == [0.0] * 3


@pytest.mark.parametrize("name", CORNERED)
def test_auto_takes_corners_where_the_work_allows(name: str) -> None:
    model, metric = served(convolutional("Relu")), METRICS[name]()
    samples, limit = samples_of(model, images(4)), torch.full((4,), 0.5).double()

    def certified(work: float) -> Certified:
        found = bounding.certify(model, metric, samples, limit, BoundSettings("auto", 3, 2, work))
        assert found is not None
        return found

    large, small = certified(1e15), certified(1.0)
    assert large.certifier.name == "simplex"
    assert small.certifier.name == "crown-ibp"
    assert "--certify simplex" in small.certifier.detail
    assert bool((large.radius > small.radius).all())


def test_radii_are_the_same_to_the_bit_for_any_neighbours() -> None:
    model, x = served(convolutional("Relu")), images(7)
    order = torch.tensor([4, 0, 3, 6, 1])

    def radii(rows: Tensor) -> Tensor:
        samples, limit = samples_of(model, x[rows]), torch.full((len(rows),), 0.5).double()
        found = bounding.certify(
            model, Wasserstein(), samples, limit, BoundSettings("simplex", 3, 3, 0.0)
        )
        assert found is not None
        return found.radius

    every = radii(torch.arange(7))
    assert bool((every > 0).all())
    assert torch.equal(radii(order), every[order])


def max_pooled() -> onnx.ModelProto:
    """Convolution and pooling over overlapping windows, without an activation between."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], strides=[1, 1]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["scores"], transB=1),
    ]
    weights = {"w": random(2, 1, 3, 3), "v": random(CLASSES, 18, seed=3)}
    return graph(nodes, weights)


def test_a_maximum_is_bounded_at_corners() -> None:
    net, metric = network(max_pooled()), METRICS["l1"]()
    x0 = images(4)
    labels, radius = labels_of(net, x0), torch.tensor([0.5]).double()
    for row in range(4):
        one, label = x0[row : row + 1], labels[row : row + 1]
        low = Simplex(net, metric).margins(one, label, radius).at(radius)
        for draw in range(40):
            noise = torch.randn(one.shape, generator=torch.Generator().manual_seed(draw))
            scores = net.run(metric.farthest(one, noise, 0.5))[0]
            others = scores[torch.arange(CLASSES) != label]
            assert bool((scores[label] - others >= low[0] - 1e-5).all())
