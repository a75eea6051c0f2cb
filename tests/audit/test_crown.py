"""CROWN: relaxations that enclose, bounds that hold, radii that are right where they are known."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fakes import classifier, samples_of
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import (
    CLASSES,
    SHAPE,
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
from torch import Tensor

from attackers.geometry import METRICS, NORMS, Linf, Wasserstein
from audit.certify import Certified, bounding, failed
from audit.certify.affine import Maps
from audit.certify.bounding import BoundSettings
from audit.certify.crown import Crown
from audit.certify.intervals import IntervalPropagation
from audit.certify.layers import Bounds
from audit.certify.margins import Hints
from audit.certify.maximum import Candidates, RelaxedMaximum
from audit.certify.piecewise_linear import clip_lines, leaky_relu_lines
from audit.certify.relaxation import Lines, Relaxed
from audit.certify.s_shaped import sigmoid_lines, tanh_lines
from audit.certify.search import ProvenRadii, certified_radii, confirmed
from audit.errors import ModelError, UnsupportedOperator, explained
from audit.models.classifier import Classifier
from audit.models.onnx import OnnxModule, lift

seeds = st.integers(0, 2**32 - 1)

CURVES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Lines]]] = {
    "relu": (torch.relu, lambda low, high: leaky_relu_lines(low, high, 0.0)),
    "leaky": (
        lambda x: torch.nn.functional.leaky_relu(x, 0.2),
        lambda low, high: leaky_relu_lines(low, high, 0.2),
    ),
    "clip": (
        lambda x: x.clamp(-0.5, 1.0),
        lambda low, high: clip_lines(low, high, -0.5, 1.0),
    ),
    "sigmoid": (torch.sigmoid, sigmoid_lines),
    "tanh": (torch.tanh, tanh_lines),
}


@given(st.sampled_from(sorted(CURVES)), seeds, st.floats(-3, 1.5))
@settings(max_examples=80, deadline=None)
def test_lines_enclose_the_operation(name: str, seed: int, spread: float) -> None:
    curve, lines = CURVES[name]
    centre, width = 2 * random(40, seed=seed % 1000), 10.0**spread
    low = (centre - width * random(40, seed=seed % 997 + 1).abs()).double()
    high = (centre + width * random(40, seed=seed % 991 + 2).abs()).double()
    # An end a hair beyond the bend, the other far away.
    low[:4], high[:4] = (
        torch.tensor([-0.03, -7.6, -1e-4, -9.0]),
        torch.tensor([7.6, 0.03, 9.0, 1e-4]),
    )
    found = lines(low, high)
    for share in torch.linspace(0, 1, 41):
        z = low + share * (high - low)
        value = curve(z)
        assert bool((found.lower_slope * z + found.lower_offset <= value + 1e-9).all())
        assert bool((found.upper_slope * z + found.upper_offset >= value - 1e-9).all())


@pytest.mark.parametrize("name", CURVES)
def test_lines_are_exact_where_nothing_bends(name: str) -> None:
    curve, lines = CURVES[name]
    low = torch.tensor([-3.0, 2.0, 0.3]).double()
    high = low + 1e-7
    found = lines(low, high)
    for slope, offset in (
        (found.lower_slope, found.lower_offset),
        (found.upper_slope, found.upper_offset),
    ):
        assert torch.allclose(slope * low + offset, curve(low), atol=1e-5)


def test_backwards_a_positive_coefficient_takes_the_lower_line() -> None:
    z, gap = torch.tensor([[0.5, 0.5]], requires_grad=True), torch.zeros(1, requires_grad=True)
    lines = leaky_relu_lines(torch.tensor([[-1.0, -1.0]]), torch.tensor([[3.0, 3.0]]), 0.0)
    out = Relaxed.apply(z, gap, torch.relu(z.detach()), lines)
    coefficients, lost = torch.autograd.grad(out, (z, gap), torch.tensor([[2.0, -2.0]]))
    assert coefficients[0].tolist() == pytest.approx([2.0, -1.5])
    # Below: z itself, 0.5. Above: 0.75·z + 0.75 = 1.125, by 0.625 more than relu(0.5).
    assert lost.tolist() == pytest.approx([-2 * 0.625], rel=1e-5)


def test_a_maximum_passes_to_its_best_value_and_to_a_constant() -> None:
    low = torch.tensor([[[0.0, 2.0, 1.0], [0.0, 5.0, 1.0]]])
    high = torch.tensor([[[1.0, 3.0, 2.5], [1.0, 6.0, 2.0]]])
    found = Candidates.of(low, high)
    assert found.best[..., 0].tolist() == [[1, 1]]
    assert found.decided.tolist() == [[False, True]]
    z, gap = ((low + high) / 2).requires_grad_(), torch.zeros(1, requires_grad=True)
    out = RelaxedMaximum.apply(z, gap, z.detach().amax(-1), found)
    coefficients, lost = torch.autograd.grad(out, (z, gap), torch.tensor([[-1.0, -1.0]]))
    assert coefficients.tolist() == [[[0, 0, 0], [0, -1, 0]]]
    assert lost.tolist() == pytest.approx([-(3.0 - 2.5)])


@pytest.mark.parametrize(
    ("activation", "tuning"),
    [("Relu", 0), ("Relu", 5), ("LeakyRelu", 5), ("Sigmoid", 0), ("Tanh", 0)],
)
@pytest.mark.parametrize("name", METRICS)
def test_bounds_hold_at_every_point_of_the_ball(activation: str, tuning: int, name: str) -> None:
    net, metric = network(convolutional(activation)), METRICS[name]()
    x0 = images()
    labels = labels_of(net, x0)
    for radius in (0.003, 0.03, 0.3):
        radii = torch.full((len(x0),), radius).double()
        found = Crown(net, metric, tuning=tuning).margins(x0, labels, radii)
        low, entering = found.at(radii), found.intermediate
        for draw in range(30):
            x = metric.sample(x0, radius, streams(x0, draw))
            if draw % 2:
                x = metric.farthest(x0, random(*x0.shape, seed=draw), radius)
            scores = net.run(x)
            own = scores.gather(1, labels[:, None])
            others = scores[torch.arange(CLASSES) != labels[:, None]].reshape(len(x0), -1)
            assert bool((own - others >= low - 1e-4).all())
            for place, bounds in entering.items():
                z = net.run(x, until=place)
                assert bool((z >= bounds.lower - 1e-4).all())
                assert bool((z <= bounds.upper + 1e-4).all())


@pytest.mark.parametrize("activation", ["Relu", "Tanh"])
def test_intervals_hold_and_backward_bounds_are_tighter(activation: str) -> None:
    net = network(convolutional(activation))
    x0 = images()
    radii = torch.full((len(x0),), 0.05).double()
    labels = labels_of(net, x0)
    backward = Crown(net, Linf()).margins(x0, labels, radii)
    forward = Crown(net, Linf(), backwards=False).margins(x0, labels, radii)
    gained = backward.at(radii) - forward.at(radii)
    assert bool((gained >= -1e-5).all())
    assert float(gained.mean()) > 1e-3
    close, wide = backward.intermediate, forward.intermediate
    for place in close:
        assert bool((close[place].lower >= wide[place].lower - 1e-5).all())
        assert bool((close[place].upper <= wide[place].upper + 1e-5).all())


def test_intervals_of_an_affine_map_are_its_absolute_weights() -> None:
    model, weight = linear()
    relu = helper.make_node("Relu", ["scores"], ["after"])
    model.graph.node.append(relu)
    model.graph.output[0].name = "after"
    net = network(model)
    x0 = images(3)
    half_width = torch.full_like(x0, 0.1)
    first = next(iter(net.layers))
    bounds = IntervalPropagation(net, x0, half_width).bounds(lambda _, entering: entering, first)
    expected = (weight.abs() * 0.1).sum(1)
    assert torch.allclose(bounds.upper - bounds.lower, 2 * expected.expand(3, -1), rtol=1e-5)


@pytest.mark.parametrize("name", NORMS)
def test_radii_of_a_linear_model_are_the_closed_form(name: str) -> None:
    model, weight = linear()
    net, metric = network(model), METRICS[name](low=-100.0, high=100.0)
    x0 = images(12)
    labels = labels_of(net, x0)
    scores = net.run(x0).double()
    exact = torch.full((len(x0),), torch.inf).double()
    for rival in range(CLASSES):
        slope = (weight[labels] - weight[rival]).double().reshape(-1, *SHAPE)
        gap = scores.gather(1, labels[:, None])[:, 0] - scores[:, rival]
        dual = metric.dual_norm(x0, slope)
        exact = torch.where(labels == rival, exact, torch.minimum(exact, gap / dual))
    found = certified_radii(
        Crown(net, metric), x0, labels, torch.full((12,), 50.0).double(), steps=2
    )
    certain, _ = confirmed(Crown(net.double(), metric), x0, labels, found)
    assert bool((certain <= exact).all())
    assert certain.numpy() == pytest.approx(exact.numpy(), rel=1e-3)


@given(seeds, st.sampled_from(["linf", "l2", "l1", "wasserstein"]))
@settings(max_examples=12, deadline=None)
def test_a_certificate_never_exceeds_an_example(seed: int, name: str) -> None:
    net, metric = network(convolutional("Relu", seed % 10_000)), METRICS[name]()
    x0 = images(4, seed % 10_007)
    labels = labels_of(net, x0)
    limit = metric.diameter(x0).double()
    found = certified_radii(Crown(net, metric, tuning=3), x0, labels, limit).radius
    for draw in range(40):
        radius = limit * float(10 ** -(draw % 8 / 2))
        x = metric.farthest(x0, random(*x0.shape, seed=draw), radius)
        wrong = net.run(x).argmax(1) != labels
        assert bool((found[wrong] <= metric.distance(x0, x)[wrong]).all())


def test_radii_do_not_depend_on_the_batch() -> None:
    net = network(convolutional("Relu"))
    x0 = images(6)
    labels, limit = labels_of(net, x0), torch.full((6,), 0.5).double()
    crown = Crown(net, Linf(), tuning=3)
    every = certified_radii(crown, x0, labels, limit).radius
    assert bool((every > 0).all())
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    again = certified_radii(crown, x0[order], labels[order], limit[order]).radius
    assert torch.allclose(again, every[order], rtol=1e-4)
    alone = torch.cat(
        [
            certified_radii(crown, x0[i : i + 1], labels[i : i + 1], limit[i : i + 1]).radius
            for i in range(6)
        ]
    )
    assert torch.allclose(alone, every, rtol=1e-4)


def test_more_steps_come_closer_and_the_limit_holds() -> None:
    net = network(convolutional("Relu"))
    x0 = images(6)
    labels = labels_of(net, x0)
    crown = Crown(net, Linf())
    few, more, many = (
        certified_radii(crown, x0, labels, torch.full((6,), 0.5).double(), steps=steps).radius
        for steps in (2, 4, 12)
    )
    assert bool((more >= few).all())
    assert bool((many >= more).all())
    assert more.numpy() == pytest.approx(many.numpy(), rel=0.02)
    tiny = torch.full((6,), 1e-4).double()
    assert bool((certified_radii(crown, x0, labels, tiny).radius <= tiny).all())


def test_a_search_ends_where_the_bounds_stop_holding() -> None:
    net = network(convolutional("Relu"))
    x0 = images(6)
    labels, crown = labels_of(net, x0), Crown(net, Linf())
    found = certified_radii(crown, x0, labels, torch.full((6,), 0.5).double(), steps=12).radius
    assert bool((crown.margins(x0, labels, found * 0.999).least() > 0).all())
    assert bool((crown.margins(x0, labels, found * 1.05).least() < 0).all())


def test_a_budget_just_beyond_what_was_proven_is_tried() -> None:
    net = network(convolutional("Relu"))
    x0, limit = images(6), torch.full((6,), 0.5).double()
    labels, crown = labels_of(net, x0), Crown(net, Linf(), tuning=3)
    best = certified_radii(crown, x0, labels, limit, steps=12).radius
    few = certified_radii(crown, x0, labels, limit, steps=1).radius
    for row in range(6):
        one, label, end = x0[row : row + 1], labels[row : row + 1], limit[row : row + 1]
        between = few[row] + 0.5 * (best[row] - few[row])
        aimed = certified_radii(crown, one, label, end, steps=1, budgets=between[None]).radius
        if float(between) <= 1.2 * float(few[row]):
            assert float(aimed) > float(between)
        beyond = certified_radii(crown, one, label, between[None], steps=1, budgets=end).radius
        assert float(beyond) <= float(between)


def test_bounds_of_a_ball_prove_smaller_ones_too() -> None:
    net = network(convolutional("Relu"))
    x0 = images(6)
    labels, crown = labels_of(net, x0), Crown(net, Linf())
    radius = 1.1 * certified_radii(crown, x0, labels, torch.full((6,), 0.5).double()).radius
    found = crown.margins(x0, labels, radius)
    reach = found.positive_radius(radius)
    assert bool((reach < radius).all())
    assert bool((reach > 0.5 * radius).all())
    for draw in range(30):
        x = Linf().sample(x0, reach, streams(x0, draw))
        assert torch.equal(labels_of(net, x), labels)


def test_tuned_slopes_are_never_worse_and_mostly_better() -> None:
    net = network(convolutional("Relu"))
    x0 = images(8)
    labels, radii = labels_of(net, x0), torch.full((8,), 0.06).double()
    plain = Crown(net, Linf()).margins(x0, labels, radii).least()
    better = Crown(net, Linf(), tuning=12).margins(x0, labels, radii)
    assert bool((better.least() >= plain - 1e-5).all())
    assert float((better.least() - plain).mean()) > 0.05 * float(plain.abs().mean())
    again = Crown(net, Linf()).margins(x0, labels, radii, Hints(slopes=better.slopes))
    assert torch.allclose(again.least(), better.least(), atol=1e-5)


def test_the_float64_check_takes_back_what_does_not_hold() -> None:
    net = network(convolutional("Relu"))
    x0 = images(4)
    labels = labels_of(net, x0)
    exact = Crown(net.double(), Linf())
    wrong = ProvenRadii(torch.full((4,), 0.9).double(), {})
    assert bool((confirmed(exact, x0, labels, wrong)[0] < 0.5).all())
    small = ProvenRadii(torch.full((4,), 1e-5).double(), {})
    assert torch.equal(confirmed(exact, x0, labels, small)[0], small.radius)
    assert bool((confirmed(exact, x0, labels, small, tolerance=1e3)[0] == 0).all())


def test_an_operation_without_a_bound_is_named() -> None:
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Exp", ["f"], ["e"]),
        helper.make_node("Gemm", ["e", "w"], ["scores"], transB=1),
    ]
    with pytest.raises(UnsupportedOperator, match="Exp"):
        network(graph(nodes, {"w": random(CLASSES, 36)}))
    squared = [
        helper.make_node("Mul", ["x", "x"], ["s"]),
        helper.make_node("Flatten", ["s"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["scores"], transB=1),
    ]
    with pytest.raises(UnsupportedOperator, match="Mul"):
        network(graph(squared, {"w": random(CLASSES, 36)}))


def test_a_black_image_is_certified_for_all_its_ball_in_wasserstein() -> None:
    net = network(convolutional("Relu"))
    x0 = torch.zeros(1, *SHAPE)
    radius = torch.tensor([0.5]).double()
    low = Crown(net, Wasserstein()).margins(x0, labels_of(net, x0), radius).at(radius)
    scores = net.run(x0)
    own = scores.max()
    others = np.sort(scores.numpy()[0])[:-1]
    assert np.sort(low.numpy()[0]) == pytest.approx(np.sort(float(own) - others), abs=1e-5)


def test_bounds_given_from_a_larger_ball_are_kept_where_tighter() -> None:
    net = network(convolutional("Relu"))
    x0, crown = images(3), Crown(net, Linf())
    labels = labels_of(net, x0)
    small, large = (torch.full((3,), r).double() for r in (0.02, 0.05))
    wide = crown.margins(x0, labels, large).intermediate
    alone = crown.margins(x0, labels, small)
    helped = crown.margins(x0, labels, small, Hints(intermediate=wide))
    assert bool((helped.least() >= alone.least() - 1e-4).all())
    assert all(isinstance(found, Bounds) for found in helped.intermediate.values())


@pytest.mark.parametrize("name", ["linf", "l2"])
def test_maps_between_layers_that_are_kept_change_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, metric = network(convolutional("Relu")), METRICS[name]()
    x0 = images()
    labels, radii = labels_of(net, x0), torch.full((5,), 0.05).double()
    kept = Crown(net, metric)
    found = kept.margins(x0, labels, radii)
    # The residual connection makes the second layer's input feed on the first one's output.
    second = sorted(net.layers)[1]
    segment = kept.maps.segment(second, x0[:1], sorted(net.layers)[:1])
    assert segment is not None
    assert segment.before
    monkeypatch.setattr(Maps, "segment", lambda *_: None)
    again = Crown(net, metric).margins(x0, labels, radii)
    assert torch.allclose(found.least(), again.least(), atol=1e-4)
    for place, bounds in found.intermediate.items():
        assert torch.allclose(bounds.lower, again.intermediate[place].lower, atol=1e-4)
        assert torch.allclose(bounds.upper, again.intermediate[place].upper, atol=1e-4)


def test_a_layer_may_feed_on_the_input_itself() -> None:
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["z1"], transB=1),
        helper.make_node("Relu", ["z1"], ["a1"]),
        helper.make_node("Gemm", ["f", "v"], ["skip"], transB=1),
        helper.make_node("Add", ["a1", "skip"], ["z2"]),
        helper.make_node("Relu", ["z2"], ["scores"]),
    ]
    weights = {"w": 0.3 * random(CLASSES, 36), "v": 0.3 * random(CLASSES, 36, seed=9)}
    net = network(graph(nodes, weights))
    x0, crown = images(), Crown(net, Linf())
    labels, radii = labels_of(net, x0), torch.full((5,), 0.05).double()
    entering = crown.margins(x0, labels, radii).intermediate
    last = max(net.layers)
    segment = crown.maps.segment(last, x0[:1], sorted(net.layers)[:-1])
    assert segment is not None
    assert segment.direct is not None
    for draw in range(30):
        z = net.run(Linf().sample(x0, 0.05, streams(x0, draw)), until=last)
        assert bool((z >= entering[last].lower - 1e-5).all())
        assert bool((z <= entering[last].upper + 1e-5).all())


def served(model: onnx.ModelProto) -> Classifier:
    module = lift(model).eval().requires_grad_(False)
    plain = classifier(module.logits, sample=SHAPE, classes=CLASSES)
    return replace(plain, white_box=replace(plain.white_box, graph=lambda: module))


@pytest.mark.parametrize("how", ["crown", "crown-ibp"])
def test_a_certificate_is_the_same_to_the_bit_for_any_neighbours(how: str) -> None:
    model, x = served(convolutional("Relu")), images(9)
    order = torch.tensor([4, 0, 8, 3, 6, 1])

    def radii(rows: Tensor) -> Tensor:
        samples = samples_of(model, x[rows])
        limit = torch.full((len(rows),), 0.5).double()
        found = bounding.certify(model, Linf(), samples, limit, BoundSettings(how, 5, 3, 0.0))
        assert found is not None
        assert found.certifier.name == how
        return found.radius

    every = radii(torch.arange(9))
    assert bool((every > 0).all())
    assert torch.equal(radii(order), every[order])


def test_auto_takes_what_the_work_allows() -> None:
    model, x = served(convolutional("Relu")), images(4)
    samples, limit = samples_of(model, x), torch.full((4,), 0.5).double()

    def found(how: str, work: float) -> Certified:
        made = bounding.certify(model, Linf(), samples, limit, BoundSettings(how, 5, 3, work))
        assert made is not None
        return made

    small, large = found("auto", 1.0), found("auto", 1e15)
    assert small.certifier.name == "crown-ibp"
    assert "--certify crown" in small.certifier.detail
    assert large.certifier.name == "crown"
    assert bool((large.radius >= small.radius * (1 - 1e-6)).all())
    assert torch.equal(large.radius, found("crown", 1.0).radius)


@pytest.mark.parametrize("message", ["It cannot be traced.", "It cannot be traced"])
def test_a_reason_that_is_a_sentence_gives_no_doubled_full_stop(message: str) -> None:
    def refuse() -> OnnxModule:
        raise ModelError(message)

    model, x = served(convolutional("Relu")), images(3)
    assert model.white_box is not None
    broken = replace(model, white_box=replace(model.white_box, graph=refuse))
    limit = torch.full((3,), 0.5).double()
    found = bounding.certify(
        broken, Linf(), samples_of(model, x), limit, BoundSettings("auto", 5, 3, 1e9)
    )
    assert found is not None
    assert "It cannot be traced. The lower bound is 0" in found.certifier.detail
    errors = failed(samples_of(model, x), "crown", explained(ModelError(message)), 0.0)
    assert "It cannot be traced. The lower bound is 0" in errors.certifier.detail


def test_a_network_without_bounds_says_why_and_claims_nothing() -> None:
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Exp", ["f"], ["e"]),
        helper.make_node("Gemm", ["e", "w"], ["scores"], transB=1),
    ]
    model, x = served(graph(nodes, {"w": random(CLASSES, 36)})), images(3)
    limit = torch.full((3,), 0.5).double()
    found = bounding.certify(
        model, Linf(), samples_of(model, x), limit, BoundSettings("auto", 5, 3, 1e9)
    )
    assert found is not None
    assert found.certifier.status == "not_applicable"
    assert "Exp" in found.certifier.detail
    assert found.radius.tolist() == [0.0] * 3
    without = replace(model, white_box=replace(model.white_box, graph=None))
    assert (
        bounding.certify(
            without, Linf(), samples_of(model, x), limit, BoundSettings("auto", 5, 3, 1e9)
        )
        is None
    )


@pytest.mark.parametrize("how", ["crown", "crown-ibp"])
def test_a_layer_that_raises_for_one_sample_costs_that_sample_alone(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = served(convolutional("Relu")), images(5)
    samples, limit = samples_of(model, x), torch.full((5,), 0.5).double()
    settings = BoundSettings(how, 3, 2, 0.0, (0.01,))
    whole = bounding.certify(model, Linf(), samples, limit, settings)
    margins = Crown.margins

    def broken(self: Crown, x0: Tensor, *rest: Any, **named: Any) -> Any:
        if bool((x0.float() == x[2]).flatten(1).all(1).any()):
            raise RuntimeError("broken layer")
        return margins(self, x0, *rest, **named)

    monkeypatch.setattr(Crown, "margins", broken)
    found = bounding.certify(model, Linf(), samples, limit, settings)
    assert whole is not None
    assert found is not None
    others = torch.tensor([0, 1, 3, 4])
    assert bool((found.radius[others] > 0).all())
    assert torch.equal(found.radius[others], whole.radius[others])
    assert float(found.radius[2]) == 0
    assert found.certifier.status == "error"
    assert "1 of 5 samples" in found.certifier.detail
    assert "broken layer" in found.certifier.detail
    # A bound of the loss over all samples needs every one of them.
    assert whole.envelope is not None
    assert found.envelope is None
