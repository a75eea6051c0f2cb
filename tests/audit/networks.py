"""Small networks with every kind of operation that certificates bound, and their samples."""

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from attackers.random_streams import SampleGenerator
from audit.certify.network import Network
from audit.certify.network_of_graph import network_of
from audit.models.onnx import lift

SHAPE = (1, 6, 6)
CLASSES = 4


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def graph(nodes: list[onnx.NodeProto], weights: dict[str, Tensor]) -> onnx.ModelProto:
    """Return a model from `x` (N, 1, 6, 6) to `scores`."""
    made = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *SHAPE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(value.numpy(), name) for name, value in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def convolutional(activation: str, seed: int = 0) -> onnx.ModelProto:
    """Return conv, batch norm, activation, conv with a residual Add, pooling, two dense layers."""
    weights = {
        "w1": 0.5 * random(3, 1, 3, 3, seed=seed),
        "b1": 0.1 * random(3, seed=seed + 1),
        "scale": 1 + 0.3 * random(3, seed=seed + 2),
        "shift": 0.1 * random(3, seed=seed + 3),
        "mean": 0.1 * random(3, seed=seed + 4),
        "var": 0.5 + random(3, seed=seed + 5).abs(),
        "w2": 0.3 * random(3, 3, 3, 3, seed=seed + 6),
        "w3": 0.4 * random(27, 8, seed=seed + 7),
        "b3": 0.1 * random(8, seed=seed + 8),
        "w4": 0.6 * random(CLASSES, 8, seed=seed + 9),
        "two": torch.tensor(2.0),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c1", "scale", "shift", "mean", "var"], ["n1"]),
        node(activation, ["n1"], ["a1"]),
        node("Conv", ["a1", "w2"], ["c2"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Div", ["c2", "two"], ["d2"]),
        node("Add", ["d2", "a1"], ["s2"]),
        node(activation, ["s2"], ["a2"]),
        node("MaxPool", ["a2"], ["p2"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["p2"], ["f"]),
        node("MatMul", ["f", "w3"], ["m3"]),
        node("Sub", ["m3", "b3"], ["z3"]),
        node(activation, ["z3"], ["a3"]),
        node("Gemm", ["a3", "w4"], ["scores"], transB=1),
    ]
    return graph(nodes, weights)


def linear(seed: int = 0) -> tuple[onnx.ModelProto, Tensor]:
    """Return a model with scores W·x, and its weight W (K, 36)."""
    weight = random(CLASSES, 36, seed=seed)
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["scores"], transB=1),
    ]
    return graph(nodes, {"w": weight}), weight


def network(model: onnx.ModelProto) -> Network:
    module = lift(model).eval().requires_grad_(False)
    return network_of(module, lambda x: x, torch.rand(1, *SHAPE))


def images(count: int = 5, seed: int = 0) -> Tensor:
    """Return samples inside the box, with some values on its faces."""
    x = torch.rand((count, *SHAPE), generator=torch.Generator().manual_seed(seed))
    return torch.where(x < 0.2, 0.0, torch.where(x > 0.8, 1.0, x))


def labels_of(net: Network, x: Tensor) -> Tensor:
    return net.run(x).argmax(1)


def streams(x: Tensor, seed: int = 0) -> SampleGenerator:
    return SampleGenerator.seeded([row.numpy().tobytes() for row in x], seed)
