"""Steps taken as one: the values of the listed steps, and the parameters stay the truth."""

import numpy as np
import pytest
import torch
from graphs import model, node, random, served

from audit.models.onnx import lift

SHAPE = (3, 3, 8, 8)


def planar(bias="b"):
    """Two convolutions with a batch norm each, so that channels go last."""
    nodes = [
        node("Conv", f"x w {bias}".strip(), "c", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c s b m v", "n", epsilon=1e-3),
        node("Relu", "n", "r"),
        node("Conv", "r u", "d", pads=[1, 1, 1, 1], group=2),
        node("BatchNormalization", "d s b m v", "e"),
        node("Add", "e r", "y"),
    ]
    stored = {
        "w": random(4, 3, 3, 3),
        "u": random(4, 2, 3, 3, seed=1),
        "b": random(4, seed=2),
        "s": random(4, seed=3),
        "m": random(4, seed=4),
        "v": np.abs(random(4, seed=5)) + 0.5,
    }
    return model(nodes, stored, ["N", *SHAPE[1:]])


def images(seed=7):
    return torch.from_numpy(random(*SHAPE, seed=seed))


def operators(lifted):
    return [step.node.operator for step in lifted._scores.steps]


@pytest.mark.parametrize("bias", ["b", ""])
def test_a_frozen_batch_norm_is_part_of_its_convolution(bias):
    made, x = planar(bias), images()
    lifted = lift(made)
    listed = lifted(x)  # parameters still ask for gradients
    folded = lifted.requires_grad_(False)(x)
    assert operators(lifted) == ["Conv", "Relu", "Conv", "Add"]
    assert (folded - served(made, x)).abs().max() < 1e-4
    assert torch.allclose(folded, listed, atol=1e-4)
    assert folded.is_contiguous(memory_format=torch.channels_last)


def test_parameters_that_are_trained_get_gradients():
    lifted, x = lift(planar()), images()
    lifted(x).square().sum().backward()
    for name, parameter in lifted.initializers().items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_parameters_under_a_transform_are_used_as_given():
    lifted, x = lift(planar()).requires_grad_(False), images()
    lifted(x)
    given = {name: value.detach() for name, value in lifted.named_parameters()}

    def loss(parameters):
        return torch.func.functional_call(lifted, parameters, (x,)).square().sum()

    gradients = torch.func.grad(loss)(given)
    assert all(bool(gradient.any()) for gradient in gradients.values())


def test_a_changed_parameter_changes_the_folded_weights():
    lifted, x = lift(planar()).requires_grad_(False), images()
    before = lifted(x)
    with torch.no_grad():
        lifted.initializers()["s"].mul_(2)
    after = lifted(x)
    assert not torch.allclose(after, before)
    lifted.load_state_dict({name: value / 2 for name, value in lifted.state_dict().items()})
    halved = lifted(x)
    assert not torch.allclose(halved, after)
    assert torch.allclose(halved, lifted.requires_grad_(True)(x), atol=1e-4)


def test_a_value_that_others_read_is_not_fused():
    nodes = [
        node("Conv", "x w", "c"),
        node("BatchNormalization", "c s b m v", "n"),
        node("Add", "n c", "y"),
    ]
    stored = {
        "w": random(4, 3, 1, 1),
        "s": random(4),
        "b": random(4, seed=1),
        "m": random(4, seed=2),
        "v": np.abs(random(4, seed=3)) + 1,
    }
    made, x = model(nodes, stored, ["N", *SHAPE[1:]]), images()
    lifted = lift(made).requires_grad_(False)
    assert operators(lifted) == ["Conv", "BatchNormalization", "Add"]
    assert (lifted(x) - served(made, x)).abs().max() < 1e-5


def constant(name, value):
    return node("Constant", "", name, value_float=value)


@pytest.mark.parametrize(
    ("root", "fused"), [(2**0.5, ["MatMul", "Gelu"]), (1.5, ["MatMul", "Div", "Erf", "Add"])]
)
def test_an_exported_gelu_is_recognised_and_only_that(root, fused):
    nodes = [
        node("MatMul", "x w", "p"),
        node("Add", "b p", "z"),
        constant("root", root),
        constant("one", 1.0),
        constant("half", 0.5),
        node("Div", "z root", "d"),
        node("Erf", "d", "e"),
        node("Add", "e one", "o"),
        node("Mul", "z o", "m"),
        node("Mul", "m half", "y"),
    ]
    made = model(nodes, {"w": random(6, 5), "b": random(5, seed=1)}, ["N", 4, 6])
    lifted = lift(made).requires_grad_(False)
    x = torch.from_numpy(random(3, 4, 6, seed=2))
    assert operators(lifted)[: len(fused)] == fused
    assert (lifted(x) - served(made, x)).abs().max() < 1e-5
