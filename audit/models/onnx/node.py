"""One node of the graph as an operator's builder sees it, and the table of builders."""

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
    """A node with decoded attributes and what lifting knows of its surroundings.

    Attributes:
        opset: version of the node's own domain that the model imports.
        constants: CPU tensors of those inputs that are already known, by position.
        leading: the first input is the model's input, perhaps moved, never changed.
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
        """An attribute's value; what no builder asks for is refused afterwards."""
        self.asked.add(attribute)
        return self.attributes.get(attribute, default)

    def has(self, position: int) -> bool:
        """Whether the optional input at this position is given."""
        return position < len(self.inputs) and self.inputs[position] != ""

    def wants(self, position: int) -> bool:
        """Whether somebody may read the output at this position."""
        return position < len(self.outputs) and self.outputs[position] != ""

    def refuse(self, variant: str) -> UnsupportedOperator:
        """The error that names this node, its operator and the variant that is not known."""
        domain = self.domain or "ai.onnx"
        return UnsupportedOperator(
            f"node '{self.name}': {domain}::{self.operator}, opset {self.opset}: {variant}; "
            "the model can still be audited without gradients"
        )

    def require_shape(self, what: str, value: Tensor, expected: Sequence[int | None]) -> None:
        """Refuse a tensor of another shape than expected; None stands for any size.

        Torch's own kernels do not always look: some read or write beyond the tensors they are
        given, and elementwise operations broadcast what was never meant to be.
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
    """A table entry.

    Attributes:
        static: positions of inputs read as Python numbers (shapes, axes, bounds): on the CPU.
        ignores: attributes that carry no information of their own.
    """

    build: Builder
    static: frozenset[int]
    ignores: frozenset[str]


OPERATORS: dict[tuple[str, str], Operator] = {}


def operator(
    *names: str, domain: str = "", static: Iterable[int] = (), ignores: Iterable[str] = ()
) -> Callable[[Builder], Builder]:
    """Enter a builder into the table under one or several operator names."""

    def enter(build: Builder) -> Builder:
        entry = Operator(build, frozenset(static), frozenset(ignores))
        for name in names:
            OPERATORS[domain, name] = entry
        return build

    return enter


def operators_without_attributes(table: Mapping[str, Kernel]) -> None:
    """Enter operators that have no attributes: name -> function of the input tensors."""
    for name, kernel in table.items():
        operator(name, ignores=("consumed_inputs",))(_always(kernel))


def _always(kernel: Kernel) -> Builder:
    return lambda _: kernel


def build_kernel(node: Node) -> Kernel:
    """The node's kernel.

    Raises:
        UnsupportedOperator: the operator, or an attribute that its builder does not know.
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
    """Positions of an operator's inputs that stay on the CPU."""
    entry = OPERATORS.get((domain, name))
    return entry.static if entry else frozenset()


def attributes(proto: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values; tensors are decoded, graphs left as they are."""
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
    """The Python numbers of a CPU tensor of any rank; an absent one has none."""
    if value is None:
        return []
    return value.reshape(-1).tolist()
