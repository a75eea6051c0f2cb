"""Kinds of served output, and the value before it that should be attacked."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
from onnx import GraphProto, NodeProto, ValueInfoProto

from audit.errors import ModelError
from audit.models.onnx.dtypes import is_float
from audit.models.onnx.flow import attribute
from audit.models.onnx.lifting import Patches

KEEPS_SCORES = frozenset(
    ["Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout", "Cast", "ZipMap"]
)


@dataclass(frozen=True)
class Head:
    """Conversion of scores to the served output.

    Attributes:
        kind: "logits", "probabilities", "log_probabilities" or "labels".
        target: name of the value that holds the scores to attack.
        aliases: omitted value -> value that replaces it.
        patches: attributes to override when computing the scores (to turn a transform off).
    """

    kind: str
    target: str
    aliases: Mapping[str, str] = field(default_factory=dict)
    patches: Patches = field(default_factory=dict)


def served_output(graph: GraphProto) -> ValueInfoProto:
    """Return the first float output, else the first sequence of maps (scikit-learn), else any.

    Raises:
        ModelError: the graph has no output.
    """
    if not graph.output:
        raise ModelError(
            "The ONNX graph has no output: export the model with its scores as output."
        )
    return next(iter(score_outputs(graph) + list(graph.output)))  # type: ignore[no-any-return]


def score_outputs(graph: GraphProto) -> list[ValueInfoProto]:
    """Return the outputs that may hold scores, in order of preference."""
    scores = [value for value in graph.output if float_typed(value)]
    maps = [value for value in graph.output if value.type.HasField("sequence_type")]
    return scores + maps


def float_typed(value: ValueInfoProto) -> bool:
    """Return whether a declared value is a float tensor."""
    return value.type.HasField("tensor_type") and is_float(value.type.tensor_type.elem_type)


def find_head(graph: GraphProto, output: str) -> Head:
    """Walk back from the output, past operators that keep scores, to the one that squashes them."""
    makers = {name: node for node in graph.node for name in node.output}
    node = _behind(makers, output)
    if node is None:
        return Head("logits", output)
    if node.op_type == "ArgMax":
        inner = find_head(graph, node.input[0])
        return Head("labels", inner.target, inner.aliases, inner.patches)
    if node.op_type == "Normalizer" or node.op_type == "Log":
        return _over_probabilities(graph, node, output)
    if node.op_type == "LinearClassifier":
        return _linear(node, output)
    kinds = {"Softmax": "probabilities", "Sigmoid": "probabilities"}
    kind = {**kinds, "LogSoftmax": "log_probabilities"}.get(node.op_type)
    if kind is None or _axis(node) == 0:
        return Head("logits", output)
    return Head(kind, output, {node.output[0]: node.input[0]})


def _behind(makers: Mapping[str, NodeProto], name: str) -> NodeProto | None:
    node = makers.get(name)
    while node is not None and node.op_type in KEEPS_SCORES and _harmless(node):
        node = makers.get(node.input[0])
    return node


def _harmless(node: NodeProto) -> bool:
    """Return whether a node keeps scores or labels; a cast to other integers rounds scores."""
    to = attribute(node, "to")
    return node.op_type != "Cast" or (to is not None and (is_float(to.i) or is_label(to.i)))


def is_label(elem_type: int) -> bool:
    """Return whether a type is that of labels; narrower integers may be quantised scores."""
    return elem_type in (onnx.TensorProto.INT32, onnx.TensorProto.INT64)


def _over_probabilities(graph: GraphProto, node: NodeProto, output: str) -> Head:
    """Return the head of a logarithm or row-wise positive scaling of probabilities.

    Both keep the order of the scores.
    """
    inner = find_head(graph, node.input[0])
    if inner.kind != "probabilities":
        return Head("logits", output)
    kind = "log_probabilities" if node.op_type == "Log" else "probabilities"
    aliases = {**inner.aliases, node.output[0]: node.input[0]}
    return Head(kind, output, aliases, inner.patches)


def _linear(node: NodeProto, output: str) -> Head:
    transform = attribute(node, "post_transform")
    name = transform.s.decode() if transform else "NONE"
    if name not in ("LOGISTIC", "SOFTMAX"):
        return Head("logits", output)
    return Head("probabilities", output, {}, {node.output[0]: {"post_transform": "RAW"}})


def _axis(node: NodeProto) -> int | None:
    axis = attribute(node, "axis")
    return axis.i if axis else None
