"""Certificates of files that compute in float16, bfloat16 or float64: bounds in real numbers."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from networks import CLASSES, convolutional, graph, images, network, random
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from attackers.geometry import METRICS
from audit.certify.methods import prover_of
from audit.certify.search import certified_radii, confirmed
from audit.errors import UnsupportedOperator
from tests.cli.command import audit, read_report
from tests.models import makers

TYPES = {
    "half": (np.float16, TensorProto.FLOAT16),
    "double": (np.float64, TensorProto.DOUBLE),
}


def retyped(model: onnx.ModelProto, kind: str, *, casts: bool = False) -> onnx.ModelProto:
    """The model with weights of another type, its input and output too or cast at both ends."""
    dtype, code = TYPES[kind]
    made = onnx.ModelProto.FromString(model.SerializeToString())
    for place, stored in enumerate(made.graph.initializer):
        value = numpy_helper.to_array(stored)
        if value.dtype == np.float32:
            new = numpy_helper.from_array(value.astype(dtype), stored.name)
            made.graph.initializer[place].CopyFrom(new)
    if not casts:
        for value in (*made.graph.input, *made.graph.output):
            value.type.tensor_type.elem_type = code
        return made
    for node in made.graph.node:
        node.input[:] = ["x_cast" if name == "x" else name for name in node.input]
        node.output[:] = ["raw" if name == "scores" else name for name in node.output]
    made.graph.node.insert(0, helper.make_node("Cast", ["x"], ["x_cast"], to=code))
    last = helper.make_node("Cast", ["raw"], ["scores"], to=TensorProto.FLOAT)
    made.graph.node.append(last)
    return made


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The float32 model whose weights are those of float16."""
    made = onnx.ModelProto.FromString(model.SerializeToString())
    for place, stored in enumerate(made.graph.initializer):
        value = numpy_helper.to_array(stored).astype(np.float16).astype(np.float32)
        made.graph.initializer[place].CopyFrom(numpy_helper.from_array(value, stored.name))
    return made


def dense() -> onnx.ModelProto:
    """Two dense layers: onnxruntime multiplies matrices in float64, but has no convolution."""
    weights = {"w": 0.4 * random(36, 8), "b": 0.1 * random(8, seed=1), "v": random(8, CLASSES)}
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["z"]),
        helper.make_node("Relu", ["z"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["scores"]),
    ]
    return graph(nodes, weights)


@pytest.mark.parametrize("casts", [False, True])
@pytest.mark.parametrize("name", ["crown", "crown-ibp"])
def test_bounds_of_a_half_file_are_those_of_its_numbers_in_float32(casts: bool, name: str) -> None:
    """A cast between floats is the identity: the two files are one function of real numbers."""
    model = convolutional("Relu")
    x = images(3)
    found = []
    for made in (rounded(model), retyped(model, "half", casts=casts)):
        net = network(made)
        labels = net.run(x).argmax(1)
        metric = METRICS["linf"]()
        search = certified_radii(
            prover_of(name, net, metric, 0), x, labels, torch.ones(3, dtype=torch.float64)
        )
        exact = prover_of(name, net.double(), metric, 0)
        found.append((net.double().run(x.double()), confirmed(exact, x, labels, search)[0]))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert bool((found[0][1] > 0).all())


def test_the_exact_check_of_a_double_file_uses_its_own_numbers() -> None:
    """Weights of float64 are not rounded to float32 on their way to the exact check."""
    made = retyped(dense(), "double")
    for place, stored in enumerate(made.graph.initializer):
        value = numpy_helper.to_array(stored) / 3
        made.graph.initializer[place].CopyFrom(numpy_helper.from_array(value, stored.name))
    w, b, v = (numpy_helper.to_array(stored) for stored in made.graph.initializer)
    x = images(3)
    expected = np.maximum(x.double().flatten(1).numpy() @ w + b, 0) @ v
    net = network(made)
    assert net.run(x).dtype is torch.float32
    assert np.abs(net.double().run(x.double()).numpy() - expected).max() < 1e-14
    assert not net.rounding


@pytest.mark.parametrize("to", [TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL])
def test_a_cast_to_integers_is_refused_by_name(to: int) -> None:
    """Rounded to an integer, a value is no linear function: the identity would be no bound."""
    model = dense()
    for node in model.graph.node:
        node.input[:] = ["back" if name == "a" else name for name in node.input]
    model.graph.node.insert(4, helper.make_node("Cast", ["a"], ["whole"], name="round_it", to=to))
    back = helper.make_node("Cast", ["whole"], ["back"], to=TensorProto.FLOAT)
    model.graph.node.insert(5, back)
    with pytest.raises(UnsupportedOperator, match=r"round_it.*Cast.*no linear bound"):
        network(model)


def test_a_constant_that_is_cast_is_rounded_as_the_file_rounds_it() -> None:
    """Weights stored in float32 and cast in the graph are constants: their rounding counts."""
    model = retyped(dense(), "half")
    for stored in model.graph.initializer:
        if stored.name == "v":
            stored.CopyFrom(numpy_helper.from_array(random(8, CLASSES).numpy(), "wide"))
    model.graph.node.insert(0, helper.make_node("Cast", ["wide"], ["v"], to=TensorProto.FLOAT16))
    plain = retyped(dense(), "half")
    x = images(3).double()
    assert torch.equal(network(model).double().run(x), network(plain).double().run(x))


class Half(nn.Module):
    """A small network in one type, as TorchScript and torch.export store it."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        # Without batch normalisation: torch's exporter folds that of bfloat16 into float32 weights.
        self.body = nn.Sequential(*[part for i, part in enumerate(makers.net()) if i != 1]).to(
            dtype
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def torch_file(kind: str, dtype: torch.dtype, path: Path) -> Path:
    module = Half(dtype).eval()
    if kind == "script":
        return makers.script(module, path)
    example = torch.rand(2, 1, 6, 6, dtype=dtype)
    return makers.export(module, path, example, batch=torch.export.Dim("batch", max=64))


def labelled(folder: Path, scores: torch.Tensor, x: torch.Tensor) -> Path:
    np.savez(folder / "data.npz", x=x.numpy(), y=scores.argmax(1).numpy())
    return folder / "data.npz"


def scanned(folder: Path, model: Path, data: Path) -> dict:
    done = audit(
        "scan", model, "--data", data, "--threat", "linf", "--delta", "0.01", "--order", "inf",
        "--effort", "quick", "--trust-model", "--out", folder / "out",
    )  # fmt: skip
    assert done.code in (0, 4), done.err
    (threat,) = read_report(folder / "out")["threats"]
    assert threat["certifier"]["status"] == "ran", threat["certifier"]
    assert threat["radii"]["certified"]["quantiles"]["0.5"] > 0
    return threat


FILES = ["half", "half inside", "double"]


@pytest.mark.parametrize("name", FILES)
def test_a_scan_of_an_onnx_file_in_another_type_is_certified(name: str, tmp_path: Path) -> None:
    plain = dense() if name == "double" else convolutional("Relu")
    made = retyped(plain, name.split()[0], casts="inside" in name)
    onnx.save(made, tmp_path / "model.onnx")
    x = images(16)
    threat = scanned(
        tmp_path, tmp_path / "model.onnx", labelled(tmp_path, network(plain).run(x), x)
    )
    said = "float16" in threat["certifier"]["detail"]
    assert said == ("half" in name)
    assert ("does not cover" in threat["certifier"]["detail"]) == said


@pytest.mark.parametrize("kind", ["script", "export"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_scan_of_a_torch_file_in_another_type_is_certified(
    kind: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    file = torch_file(kind, dtype, tmp_path / "model")
    x = images(16)
    with torch.no_grad():
        scores = Half(torch.float32)(x)
    threat = scanned(tmp_path, file, labelled(tmp_path, scores, x))
    name = str(dtype).removeprefix("torch.")
    said = f"computes in {name}" in threat["certifier"]["detail"]
    assert said == (dtype is not torch.float64)
