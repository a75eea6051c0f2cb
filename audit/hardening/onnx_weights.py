"""Trained weights of an ONNX file: only the values of initializers change.

Graph, names, opset and metadata of the file are kept. The graph is trained in evaluation mode, so
batch norm keeps its statistics and dropout stays inactive.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from audit.errors import ModelError
from audit.hardening.trainable import Trainable
from audit.models import onnx_runtime
from audit.models.classifier import Classifier
from audit.models.onnx import lift, read_model
from audit.models.onnx.reader import inline_functions
from audit.options import LoadOptions

LAYERS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "LSTM": (1, 2, 3),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
    "Einsum": (0, 1),
}
"""Operators that are layers, with the indices of the inputs that are weights."""

AFFINE: Mapping[str, tuple[int, ...]] = {
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "PRelu": (1,),
    "Add": (0, 1),
    "Mul": (0, 1),
}
"""Operators whose inputs are weights after the first layer; before it they are preprocessing."""

WEIGHT_RESHAPING = ("Transpose", "Reshape", "Identity", "Unsqueeze", "Squeeze")
"""Operators through which a weight may pass before it enters a layer."""

QUANTISED = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul",
                       "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"})  # fmt: skip
"""Operators of a quantised model."""

TRAINED_DTYPES = (torch.float32, torch.float64)
"""Types of the weights that are trained."""


def open_onnx_weights(
    path: Path, classifier: Classifier, options: LoadOptions, sample: Tensor
) -> Trainable:
    """Open an ONNX file for training; see `audit.hardening.weights.open_trainable`."""
    proto = read_model(path, allow_domains=options.allow_domains)
    found = QUANTISED & {node.op_type for node in proto.graph.node}
    if found:
        raise ModelError(
            f"{path} is quantised ({', '.join(sorted(found))}): its weights are integers with "
            "fixed scales, which training cannot change. Harden the float model and quantise the "
            "result."
        )
    if classifier.white_box is None:
        reason = " ".join(classifier.notes) or "it serves scores only."
        raise ModelError(f"{path} has no gradients to train with: {reason}")
    module = lift(proto).to(classifier.device).eval()
    stored = {tensor.name for tensor in proto.graph.initializer}
    chosen = set(_trained_names(inline_functions(proto).graph)) & stored
    weights, frozen = {}, []
    for name, value in module.initializers().items():
        if name in chosen and value.dtype in TRAINED_DTYPES:
            weights[name] = value
        else:
            frozen.append(name)
            value.requires_grad_(False)
    if not weights:
        raise ModelError(
            f"{path} stores no float weights of layers as initializers, so there is nothing to "
            "train. Export it with its weights as initializers."
        )
    spec = classifier.spec
    example = spec.prepare(sample[:4].to(classifier.device))
    run = onnx_runtime.batched(module.input_shape[0], module.logits, example)

    def file() -> bytes:
        changed = onnx.ModelProto()
        changed.CopyFrom(proto)
        for tensor in changed.graph.initializer:
            if tensor.name in weights:
                _set_values(tensor, weights[tensor.name].detach().cpu().numpy())
        return bytes(changed.SerializeToString())

    return Trainable(
        lambda x: classifier.logits_of(run(spec.prepare(x))),
        weights,
        tuple(frozen),
        file,
        _notes(proto.graph),
    )


def _trained_names(graph: onnx.GraphProto) -> Iterable[str]:
    """Yield the initializers that are weights of layers, or of operators after the first layer."""
    stored = {tensor.name for tensor in graph.initializer}
    after_layer: set[str] = set()
    for node in graph.node:
        follows = any(name in after_layer for name in node.input)
        indices = LAYERS.get(node.op_type, AFFINE.get(node.op_type, ()) if follows else ())
        yield from (
            node.input[i] for i in indices if i < len(node.input) and node.input[i] in stored
        )
        if follows or (node.op_type in LAYERS and any(name in stored for name in node.input)):
            after_layer.update(node.output)
        if node.op_type in WEIGHT_RESHAPING and node.input[0] in stored:
            enters = (n.op_type in LAYERS for n in graph.node if node.output[0] in n.input)
            yield from (name for name in node.input[:1] if any(enters))


def _set_values(
    tensor: onnx.TensorProto, value: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]"
) -> None:
    """Replace the values of an initializer; its name, type, shape and documentation are kept."""
    fresh = numpy_helper.from_array(value)
    for name in ("float_data", "double_data"):
        tensor.ClearField(name)
    tensor.raw_data = fresh.raw_data


def _notes(graph: onnx.GraphProto) -> tuple[str, ...]:
    kinds = {node.op_type for node in graph.node}
    notes = ["The graph of the file was trained in evaluation mode."]
    if "BatchNormalization" in kinds:
        notes.append(
            "Batch norm keeps the running mean and variance of the file; its scale and shift are "
            "trained."
        )
    if "Dropout" in kinds:
        notes.append("Dropout is inactive during training, as in evaluation.")
    return tuple(notes)
