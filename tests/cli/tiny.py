"""Models of one linear layer and their data, with radii known in closed form."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]
CLASSES = 10


def write_linear(
    path: Path,
    weight: Floats,
    bias: Floats,
    *,
    shape: tuple[int | str, ...],
    head: str = "",
    scale: float = 1.0,
    step: str = "",
) -> Path:
    """Save ``head(weight.T @ flatten(scale · x) + bias)`` as ONNX.

    Args:
        path: destination file.
        weight: (D, K).
        bias: (K,).
        shape: shape of the input, batch first; a string is a dynamic dimension.
        head: operator applied to the scores; empty for none.
        scale: factor on the input.
        step: ``Sign`` or ``Greater``, which only keep whether a value is above one half.
    """
    nodes, stored = [], {"weight": weight, "bias": bias, "scale": np.float32(scale)}
    nodes.append(helper.make_node("Mul", ["x", "scale"], ["scaled"]))
    if step:
        stored["half"] = np.float32(0.5)
    if step == "Sign":
        nodes.append(helper.make_node("Sub", ["scaled", "half"], ["centred"]))
        nodes.append(helper.make_node("Sign", ["centred"], ["seen"]))
    if step == "Greater":
        nodes.append(helper.make_node("Greater", ["scaled", "half"], ["mask"]))
        nodes.append(helper.make_node("Cast", ["mask"], ["seen"], to=TensorProto.FLOAT))
    inner = "seen" if step else "scaled"
    nodes.append(helper.make_node("Flatten", [inner], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"]))
    if head:
        nodes.append(helper.make_node(head, ["logits"], ["scores"]))
    output = "scores" if head else "logits"
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [shape[0], weight.shape[1]])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="test"
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def write_data(path: Path, x: NDArray[np.generic], y: NDArray[np.generic]) -> Path:
    """Save labelled data."""
    np.savez(path, x=x, y=y)
    return path


def patterns(shape: tuple[int, ...], *, classes: int = CLASSES, seed: int = 10) -> Floats:
    """Return one pattern of ±1 per class, ``(K, *shape)``; with the seed their sums differ."""
    signs = np.random.default_rng(seed).integers(0, 2, (classes, *shape))
    return (2 * signs - 1).astype(np.float32)


def noisy(shown: Floats, n: int, *, seed: int = 1) -> tuple[Floats, NDArray[np.int64]]:
    """Return samples in [0, 1], the faint pattern of a random class under noise, and labels."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, len(shown), n)
    x = 0.5 + 0.12 * shown[y] + rng.normal(0, 0.15, (n, *shown.shape[1:]))
    return np.clip(x, 0, 1).astype(np.float32), y


def matched(shown: Floats) -> tuple[Floats, Floats]:
    """Return weight and bias that recognise the patterns in samples centred at one half."""
    weight = np.ascontiguousarray(shown.reshape(len(shown), -1).T) / 4
    return weight, (-0.5 * weight.sum(0)).astype(np.float32)
