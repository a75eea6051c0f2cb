"""Nodes of the graph as operator builders receive them, and the table of builders."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
from torch import Tensor

from audit.errors import UnsupportedOperator
from audit.models.onnx.dtypes import to_tensor

# Takes a node's input tensors (None where an optional one is absent), returns its outputs.
Kernel = Callable[..., Any]


@dataclass(frozen=True)
class Node:
    """A node with decoded attributes and facts about its inputs and outputs.

    Attributes:
        opset: version of the node's domain that the model imports.
        constants: CPU tensors of the inputs that are constant, by position.
        leading: the first input holds the unchanged values of the model's input, perhaps moved.
        relaxed: an integer output may be carried as a float, so that gradients pass.
    """

    name: str
    operator: str
    domain: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    constants: Mapping[int, Tensor] = field(default_factory=dict)
    leading: bool = False
    relaxed: bool = False
    asked: set[str] = field(default_factory=set)

    def get(self, attribute: str, default: Any = None) -> Any:
        """Return an attribute; `build_kernel` refuses attributes that were never asked for."""
        self.asked.add(attribute)
        return self.attributes.get(attribute, default)

    def has(self, position: int) -> bool:
        """Return whether the optional input at this position is given."""
        return position < len(self.inputs) and self.inputs[position] != ""

    def wants(self, position: int) -> bool:
        """Return whether the output at this position may be read."""
        return position < len(self.outputs) and self.outputs[position] != ""

    def refuse(self, variant: str) -> UnsupportedOperator:
        """Return an error that names this node, its operator and the unsupported variant."""
        domain = self.domain or "ai.onnx"
        return UnsupportedOperator(
            f"node '{self.name}': {domain}::{self.operator}, opset {self.opset}: {variant}; "
            "the model can still be audited without gradients"
        )

    def require_shape(self, what: str, value: Tensor, expected: Sequence[int | None]) -> None:
        """Raise an error if a tensor does not have the expected shape; None allows any size.

        Torch's kernels do not always check shapes: some read or write out of bounds, and
        elementwise operations broadcast tensors that must not be broadcast.
        """
        found = list(value.shape)
        fits = len(found) == len(expected) and all(
            size is None or size == n for size, n in zip(expected, found, strict=True)
        )
        if not fits:
            sizes = ", ".join("?" if size is None else str(size) for size in expected)
            raise self.refuse(f"{what} has shape {found}, expected [{sizes}]")


Builder = Callable[[Node], Kernel]


@dataclass(frozen=True)
class Operator:
    """An entry of the operator table.

    Attributes:
        static: positions of inputs read as Python numbers (shapes, axes, bounds), on the CPU.
        ignores: attributes that do not change the result.
    """

    build: Builder
    static: frozenset[int]
    ignores: frozenset[str]


OPERATORS: dict[tuple[str, str], Operator] = {}


def operator(
    *names: str, domain: str = "", static: Iterable[int] = (), ignores: Iterable[str] = ()
) -> Callable[[Builder], Builder]:
    """Add a builder to the table under one or several operator names."""

    def enter(build: Builder) -> Builder:
        entry = Operator(build, frozenset(static), frozenset(ignores))
        for name in names:
            OPERATORS[domain, name] = entry
        return build

    return enter


def operators_without_attributes(table: Mapping[str, Kernel]) -> None:
    """Add operators without attributes: name -> function of the input tensors."""
    for name, kernel in table.items():
        operator(name, ignores=("consumed_inputs",))(_always(kernel))


def _always(kernel: Kernel) -> Builder:
    return lambda _: kernel


def build_kernel(node: Node) -> Kernel:
    """Build the kernel of a node.

    Raises:
        UnsupportedOperator: the operator or one of its attributes is not supported.
    """
    entry = OPERATORS.get((node.domain, node.operator))
    if entry is None:
        raise node.refuse("this operator is not supported")
    kernel = entry.build(node)
    unknown = set(node.attributes) - node.asked - entry.ignores
    if unknown:
        raise node.refuse(f"unsupported attribute {', '.join(sorted(unknown))}")
    return kernel


def static_positions(domain: str, name: str) -> frozenset[int]:
    """Return the positions of an operator's inputs that stay on the CPU."""
    entry = OPERATORS.get((domain, name))
    return entry.static if entry else frozenset()


def attributes(proto: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values; tensors are decoded, graphs are kept."""
    return {attribute.name: _attribute_value(attribute) for attribute in proto.attribute}


def _attribute_value(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.type == onnx.AttributeProto.STRING:
        return value.decode("utf-8", "replace")
    if attribute.type == onnx.AttributeProto.STRINGS:
        return [item.decode("utf-8", "replace") for item in value]
    if attribute.type == onnx.AttributeProto.TENSOR:
        return to_tensor(value)
    if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
        return list(value)
    return value


def python_numbers(value: Tensor | None) -> list[Any]:
    """Return the Python numbers of a CPU tensor of any rank; an empty list for None."""
    if value is None:
        return []
    return value.reshape(-1).tolist()
