"""Data flow: properties of a graph's values that are known before any computation."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import onnx
from onnx import GraphProto, NodeProto

from audit.errors import ModelError
from audit.models.onnx.dtypes import is_float
from audit.models.onnx.node import static_positions

# Operators that only move the values of their first input (Concat: of all inputs).
MOVES = frozenset(
    [
        "Identity",
        "Dropout",
        "Reshape",
        "Transpose",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Gather",
        "Split",
        "Expand",
        "Tile",
        "DepthToSpace",
        "SpaceToDepth",
        "Concat",
    ]
)
# Operators after which an integer is a float again, or no longer carries gradients.
SINKS = frozenset(
    [
        "DequantizeLinear",
        "QLinearConv",
        "QLinearMatMul",
        "MatMulInteger",
        "ConvInteger",
        "Shape",
        "Size",
    ]
)
# Operators that compute the same on integers and on floats that hold integers.
ORDER_ONLY = frozenset(["MaxPool", "Relu", "Pad"])
# Operators through which no gradient can pass, at any input position.
BLOCKS_GRADIENT = frozenset(
    [
        "Shape",
        "Size",
        "ArgMax",
        "ArgMin",
        "NonZero",
        "Not",
        "And",
        "Or",
        "Xor",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "IsNaN",
        "IsInf",
        "OneHot",
        "BitShift",
        "BitwiseAnd",
        "BitwiseOr",
        "BitwiseXor",
        "BitwiseNot",
        "EyeLike",
        "Hardmax",
        "ConstantOfShape",
        "RandomNormalLike",
        "RandomUniformLike",
        "BitCast",
        "Unique",
    ]
)
# Input positions through which no gradient can pass: indices and conditions.
BLOCKED_POSITIONS = {
    "Gather": {1}, "GatherElements": {1}, "GatherND": {1}, "ScatterElements": {1},
    "ScatterND": {1}, "Scatter": {1}, "Where": {0}, "Compress": {1}, "If": {0},
}  # fmt: skip


def require_order(graph: GraphProto) -> None:
    """Check that every value is defined once, before it is read: else walks may not end.

    Raises:
        ModelError: a value is not; the message names the node.
    """
    known = {value.name for value in graph.input} | {proto.name for proto in graph.initializer}
    for node in graph.node:
        missing = {name for name in node.input if name} - known
        twice = known.intersection(name for name in node.output if name)
        if missing or twice:
            what = f"reads {missing} before it is defined" if missing else f"defines {twice} again"
            raise ModelError(
                f"Node '{node.name}' {what}: the ONNX graph is broken. Export the model again."
            )
        known.update(node.output)


def attribute(node: NodeProto, name: str) -> onnx.AttributeProto | None:
    """Return a node's raw attribute, None if it is absent."""
    return next((item for item in node.attribute if item.name == name), None)


def branches(node: NodeProto) -> list[GraphProto]:
    """Return the subgraphs of a control-flow node."""
    return [item.g for item in node.attribute if item.type == onnx.AttributeProto.GRAPH]


def captured(node: NodeProto) -> set[str]:
    """Return the names that a node's subgraphs read, a superset of those from outside."""
    names: set[str] = set()
    for graph in branches(node):
        names.update(output.name for output in graph.output)
        for inner in graph.node:
            names.update(inner.input)
            names |= captured(inner)
    return names


def walk(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Yield all nodes, including those of subgraphs."""
    for node in nodes:
        yield node
        for graph in branches(node):
            yield from walk(graph.node)


def renamed(graph: GraphProto, prefix: str, outer: Mapping[str, str] | None = None) -> GraphProto:
    """Return a copy of a subgraph in which every name that it defines has a prefix."""
    own = {proto.name for proto in graph.initializer}
    own.update(name for node in graph.node for name in node.output if name)
    names = {**(outer or {}), **{name: prefix + name for name in own}}
    copy = GraphProto()
    copy.CopyFrom(graph)
    for proto in (*copy.initializer, *copy.output):
        proto.name = names.get(proto.name, proto.name)
    for node in copy.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for item in node.attribute:
            if item.type == onnx.AttributeProto.GRAPH:
                item.g.CopyFrom(renamed(item.g, prefix, names))
    return copy


def needed(nodes: Sequence[NodeProto], targets: Iterable[str]) -> list[NodeProto]:
    """Return the nodes that the targets depend on, in order."""
    wanted = set(targets)
    kept = []
    for node in reversed(nodes):
        if wanted.isdisjoint(node.output):
            continue
        kept.append(node)
        wanted.update(node.input)
        wanted |= captured(node)
    return kept[::-1]


def weights(graph: GraphProto) -> set[str]:
    """Return the names whose values enter a computation, not only as shapes or bounds."""
    found = {output.name for output in graph.output}
    for node in reversed(graph.node):
        found |= set().union(*(weights(inner) for inner in branches(node)))
        if node.op_type == "Identity":
            if node.output[0] in found:
                found.add(node.input[0])
            continue
        static = static_positions(standard_domain(node.domain), node.op_type)
        found.update(name for i, name in enumerate(node.input) if i not in static)
    return found - {""}


def leading(nodes: Iterable[NodeProto], source: str) -> set[str]:
    """Return the values that equal the model's input, moved or clipped but else unchanged."""
    found = {source}
    for node in nodes:
        kinds = MOVES | {"Clip", "Relu", "Cast"}
        if node.op_type in kinds - {"Concat"} and node.input and node.input[0] in found:
            found.update(node.output)
    return found


def relaxable(nodes: Sequence[NodeProto]) -> set[str]:
    """Return the integers that may be held as floats: they are only moved or dequantised."""
    bound: set[str] = set()
    seen: set[str] = set()
    for node in reversed(nodes):
        for position, name in enumerate(node.input):
            seen.add(name)
            if not _keeps(node, position, bound):
                bound.add(name)
        bound |= captured(node)
    produced = {name for node in nodes for name in node.output}
    return (produced | seen) - bound


def _keeps(node: NodeProto, position: int, bound: set[str]) -> bool:
    if node.op_type in SINKS:
        return True
    if node.op_type == "Cast":
        to = attribute(node, "to")
        return to is not None and (is_float(to.i) or node.output[0] not in bound)
    if node.op_type in MOVES | ORDER_ONLY:
        moved = position == 0 or node.op_type == "Concat"
        return moved and bound.isdisjoint(node.output)
    return False


def has_gradient(nodes: Sequence[NodeProto], source: str, target: str) -> bool:
    """Return whether a chain of float operations leads from the input to the target."""
    free = relaxable(nodes)
    alive = {source}
    for node in nodes:
        if not alive.isdisjoint(captured(node)) or _passes(node, alive, free):
            alive.update(node.output)
    return target in alive


def _passes(node: NodeProto, alive: set[str], free: set[str]) -> bool:
    if node.op_type in BLOCKS_GRADIENT:
        return False
    if node.op_type in ("Cast", "CastLike"):
        to = attribute(node, "to")
        if to is not None and not is_float(to.i):
            boolean = to.i == onnx.TensorProto.BOOL
            return not boolean and node.output[0] in free and node.input[0] in alive
    if node.op_type == "QuantizeLinear" and node.output[0] not in free:
        return False
    blocked = BLOCKED_POSITIONS.get(node.op_type, set())
    return any(name in alive for i, name in enumerate(node.input) if i not in blocked)


def standard_domain(domain: str) -> str:
    """Return the domain under which operators are listed: ``ai.onnx`` is the empty one."""
    return "" if domain == "ai.onnx" else domain
