"""The weights of a served model: which may be trained, and the file with new ones in the old place.

An ONNX file keeps its graph, names, opset and metadata: only the values of initializers change. A
TorchScript archive and a torch.export program are saved as what they are. All are exported in
evaluation mode, so that batch norm and dropout stay as the file has them.
"""

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from audit.errors import ModelError, UsageError
from audit.models import exported, onnx_runtime, torchscript
from audit.models.classifier import Classifier
from audit.models.execution import last_line, one_tensor
from audit.models.files import identify
from audit.models.onnx import lift, read_model
from audit.models.onnx.reader import inline_functions
from audit.models.preprocess import as_dtype
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
"""Operators that make a layer, and which of their inputs are weights."""

AFFINE: Mapping[str, tuple[int, ...]] = {
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "PRelu": (1,),
    "Add": (0, 1),
    "Mul": (0, 1),
}
"""Operators with weights where data has passed a layer; before the first they are preprocessing."""

QUANTISED = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul",
                       "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"})  # fmt: skip
TRAINED_DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Trainable:
    """A served model whose weights can be trained and put back.

    Attributes:
        logits: samples ``(B, ...)`` in [low, high] to ``(B, K)``, differentiable in the weights.
        weights: by the file's own names.
        frozen: names of what is left as it is.
        file: the model file with the present weights.
        notes: what the report has to say.
    """

    logits: Callable[[Tensor], Tensor]
    weights: dict[str, nn.Parameter]
    frozen: tuple[str, ...]
    file: Callable[[], bytes]
    notes: tuple[str, ...]

    def values(self) -> dict[str, Tensor]:
        """Copies of the present weights."""
        return {name: value.detach().clone() for name, value in self.weights.items()}

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take over weights."""
        for name, value in self.weights.items():
            value.copy_(values[name])


def trainable(
    path: Path,
    classifier: Classifier,
    options: LoadOptions,
    sample: Tensor,
    freeze: Iterable[str] = (),
) -> Trainable:
    """Open a model file for training.

    Args:
        path: the file that ``classifier`` was loaded from.
        classifier: for its preprocessing, and what it serves.
        options: as it was loaded.
        sample: (2 or more, ...) samples.
        freeze: patterns of names whose weights stay, as ``conv1.*``.

    Raises:
        ModelError: the model cannot be trained; says why.
        UsageError: a pattern of ``freeze`` fits no weight, or nothing is left to train.
    """
    if classifier.output == "labels":
        raise ModelError(
            f"{path} serves labels alone: there are no scores to train. Harden the model before "
            "its last ArgMax."
        )
    kind = identify(path)
    opened = OPENERS[kind](path, classifier, options, sample)
    patterns = tuple(freeze)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in opened.weights):
            raise UsageError(
                f"--freeze {pattern} fits no weight: choose from {_some(opened.weights)}."
            )
    kept = {
        name: value
        for name, value in opened.weights.items()
        if not any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    if not kept:
        raise UsageError("--freeze leaves no weight to train: name fewer.")
    frozen = (*opened.frozen, *(name for name in opened.weights if name not in kept))
    for name, value in opened.weights.items():
        value.requires_grad_(name in kept)
    return Trainable(opened.logits, kept, frozen, opened.file, opened.notes)


def _open_onnx(
    path: Path, classifier: Classifier, options: LoadOptions, sample: Tensor
) -> Trainable:
    proto = read_model(path, allow_domains=options.allow_domains)
    found = QUANTISED & {node.op_type for node in proto.graph.node}
    if found:
        raise ModelError(
            f"{path} is quantised ({', '.join(sorted(found))}): its weights are whole numbers tied "
            "to scales, which training breaks apart. Harden the float model and quantise that."
        )
    if classifier.attackable is None:
        raise ModelError(
            f"{path} has no gradients to train with: {' '.join(classifier.notes) or 'score only'}"
        )
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
            f"{path} stores no float weights of layers as initializers: there is nothing to train. "
            "Export it with its weights as initializers."
        )
    spec = classifier.spec
    example = spec.prepare(sample[:4].to(classifier.device))
    run = onnx_runtime.batched(module.input_shape[0], module.logits, example)

    def file() -> bytes:
        changed = onnx.ModelProto()
        changed.CopyFrom(proto)
        for tensor in changed.graph.initializer:
            if tensor.name in weights:
                _replace(tensor, weights[tensor.name].detach().cpu().numpy())
        return bytes(changed.SerializeToString())

    return Trainable(
        lambda x: classifier.logits_of(run(spec.prepare(x))),
        weights,
        tuple(frozen),
        file,
        _onnx_notes(proto.graph),
    )


def _trained_names(graph: onnx.GraphProto) -> Iterable[str]:
    """Initializers that are weights of layers, or of what follows one."""
    stored = {tensor.name for tensor in graph.initializer}
    behind: set[str] = set()
    for node in graph.node:
        data_behind = any(name in behind for name in node.input)
        places = LAYERS.get(node.op_type, AFFINE.get(node.op_type, ()) if data_behind else ())
        yield from (
            node.input[p] for p in places if p < len(node.input) and node.input[p] in stored
        )
        if data_behind or (node.op_type in LAYERS and any(name in stored for name in node.input)):
            behind.update(node.output)
        # A weight that is reshaped or transposed on its way to a layer is one all the same.
        if node.op_type in ("Transpose", "Reshape", "Identity", "Unsqueeze", "Squeeze") and (
            node.input[0] in stored
        ):
            later = [
                other
                for other in graph.node
                if node.output[0] in other.input and other.op_type in LAYERS
            ]
            if later:
                yield node.input[0]


def _replace(
    tensor: onnx.TensorProto, value: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]"
) -> None:
    """New values for an initializer; name, type, shape and text stay."""
    fresh = numpy_helper.from_array(value)
    for name in ("float_data", "double_data"):
        tensor.ClearField(name)
    tensor.raw_data = fresh.raw_data


def _onnx_notes(graph: onnx.GraphProto) -> tuple[str, ...]:
    kinds = {node.op_type for node in graph.node}
    notes = ["Trained in the file's own graph, in evaluation mode."]
    if "BatchNormalization" in kinds:
        notes.append(
            "Batch norm keeps the running mean and variance of the file; its scale and shift are "
            "trained."
        )
    if "Dropout" in kinds:
        notes.append("Dropout of the file is inactive, as in evaluation.")
    return tuple(notes)


def _open_script(
    path: Path, classifier: Classifier, options: LoadOptions, sample: Tensor
) -> Trainable:
    module = torchscript.read_script(path, trusted=options.trust_model, device=classifier.device)
    weights = dict(module.named_parameters())
    if not weights:
        raise ModelError(
            f"{path} is a frozen TorchScript archive: its weights are constants of the code. Save "
            "it without torch.jit.freeze."
        )
    _require_logits(path, classifier)
    call, spec = one_tensor(module, last_line), classifier.spec

    def file() -> bytes:
        buffer = io.BytesIO()
        torch.jit.save(module, buffer)
        return buffer.getvalue()

    return Trainable(
        lambda x: classifier.logits_of(call(as_dtype(spec.prepare(x), spec.dtype))),
        weights,
        (),
        file,
        ("Trained in evaluation mode: batch norm keeps its statistics, dropout is inactive.",),
    )


def _open_exported(
    path: Path, classifier: Classifier, options: LoadOptions, sample: Tensor
) -> Trainable:
    read = exported.read_program(path, trusted=options.trust_model)
    program = read.program
    module = read.module.to(classifier.device)
    weights = dict(module.named_parameters())
    if not weights:
        raise ModelError(
            f"{path} holds no parameters: its weights are constants. Export it from a module."
        )
    _require_logits(path, classifier)
    call, spec = one_tensor(module), classifier.spec

    def file() -> bytes:
        for name, value in weights.items():
            program.state_dict[name].data.copy_(value.detach())
        buffer = io.BytesIO()
        with exported.quiet("torch.export", "torch._export"):
            torch.export.save(program, buffer)
        return buffer.getvalue()

    return Trainable(
        lambda x: classifier.logits_of(call(as_dtype(spec.prepare(x), spec.dtype))),
        weights,
        (),
        file,
        ("Trained as exported, in evaluation mode: batch norm keeps its statistics.",),
    )


def _require_logits(path: Path, classifier: Classifier) -> None:
    if classifier.output != "logits":
        raise ModelError(
            f"{path} serves {classifier.output}, and the logits before them cannot be trained in "
            "this format: save a module that returns logits, or export it to ONNX."
        )


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:8]) + (", …" if len(listed) > 8 else "")


OPENERS: Mapping[str, Callable[[Path, Classifier, LoadOptions, Tensor], Trainable]] = {
    "onnx": _open_onnx,
    "torchscript": _open_script,
    "torch.export": _open_exported,
}
"""By kind of file, as `audit.models.files.identify` names it."""
