"""Lifting of a graph to steps: names are resolved, constants folded, weights kept apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed

import onnx
import torch
from onnx import GraphProto, NodeProto
from torch import Tensor

from audit.errors import AuditError, ModelError
from audit.models.onnx import flow
from audit.models.onnx.branching import Branch, choose_branch
from audit.models.onnx.dtypes import FLOAT8, bounded, to_tensor
from audit.models.onnx.node import Kernel, Node, attributes, build_kernel, static_positions
from audit.models.onnx.program import Step, execute, failure

# What a value depends on; a constant depends on none of these.
PARAMETER, SHAPE, DATA = 1, 2, 4
# Operators whose output shapes may depend on the values of their inputs.
DATA_SHAPED = frozenset({"NonZero", "Compress", "Unique"})
DEVICE = "@device"  # suffix of the copy of a CPU value on the device of the activations
Patches = Mapping[str, Mapping[str, object]]  # first output of a node -> attributes to override


@dataclass
class Lifted:
    """Steps and stored tensors that a module needs to run a graph.

    Attributes:
        steps: in order of execution.
        constants: CPU values, including shapes and axes.
        buffers: constants that are combined with activations, by their run-time name.
        parameters: float initializers by their name in the file.
        names: value name in the file -> name at run time (Identity and folded nodes resolved).
        fixed_shapes: True if no shape depends on the values of the input.
    """

    steps: list[Step] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)
    parameters: dict[str, Tensor] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    fixed_shapes: bool = True


def lift_graph(
    model: onnx.ModelProto,
    targets: Sequence[str],
    *,
    aliases: Mapping[str, str] | None = None,
    patches: Patches | None = None,
) -> Lifted:
    """Lift the nodes that the targets depend on.

    Args:
        model: checked model with inlined functions.
        targets: names of values to compute.
        aliases: value -> value that replaces it (to leave out heads).
        patches: attributes to override, by the first output of a node.

    Raises:
        UnsupportedOperator: an operator, or a variant of one, is not supported.
        ModelError: the graph is broken.
    """
    graph = model.graph
    opsets = {flow.standard_domain(entry.domain): entry.version for entry in model.opset_import}
    nodes = flow.needed([node for node in graph.node if node.output], targets)
    nodes = _without(nodes, aliases or {}, targets)
    lifter = _Lifter(graph, nodes, opsets, patches or {}, dict(aliases or {}))
    for node in nodes:
        lifter.add(node)
    for name in targets:
        lifter.finish(name)
    return lifter.lifted


def _without(
    nodes: list[NodeProto], aliases: Mapping[str, str], targets: Sequence[str]
) -> list[NodeProto]:
    left = [node for node in nodes if not any(name in aliases for name in node.output)]
    return flow.needed(left, [*targets, *aliases.values()])


class _Lifter:
    """State of one pass over the nodes; each method is one rule."""

    def __init__(
        self,
        graph: GraphProto,
        nodes: Sequence[NodeProto],
        opsets: Mapping[str, int],
        patches: Patches,
        aliases: dict[str, str],
    ) -> None:
        self.lifted = Lifted()
        self.opsets = opsets
        self.patches = patches
        self.aliases = aliases
        self.depends: dict[str, int] = {}
        self.weights = flow.weights(graph)
        self.stored = {proto.name: proto for proto in graph.initializer}
        inputs = [value.name for value in graph.input if value.name not in self.stored]
        self.source = inputs[0] if inputs else ""
        self.leading = flow.leading(nodes, self.source)
        self.relaxable = flow.relaxable(nodes)
        for name in inputs:
            self._define(name, DATA)

    def add(self, proto: NodeProto) -> None:
        """Lift one node: alias it, fold it, or append a step."""
        if proto.op_type == "Identity" or self._is_inference_dropout(proto):
            self.lifted.names[proto.output[0]] = self._resolve(proto.input[0], proto)
            return
        inputs = [self._resolve(name, proto) for name in proto.input]
        node = self._node(proto, inputs)
        if proto.op_type == "If":
            self._branch(node)
            return
        kernel = self._kernel(node, proto)
        depends = self._dependence(node)
        for name in node.outputs:
            self._define(name, depends)
        if depends == 0:
            self._fold(node, kernel, inputs, proto.op_type)
            return
        if depends & DATA and node.operator in DATA_SHAPED:
            self.lifted.fixed_shapes = False
        self._append(node, kernel, inputs, depends)

    def _branch(self, node: Node) -> None:
        """Lift `If`: one branch if the condition is known, else both, chosen by shapes."""
        depends = self.depends[node.inputs[0]]
        graphs = [node.get("then_branch"), node.get("else_branch")]
        if depends == 0:
            chosen = graphs[0] if bool(node.constants[0]) else graphs[1]
            for name, inner in zip(
                node.outputs, self._inline(chosen, node.outputs[0]), strict=True
            ):
                self.lifted.names[name] = inner
            return
        if depends != SHAPE:
            raise node.refuse("a condition that depends on the data is not supported")
        parts = [self._aside(graph, f"{node.outputs[0]}/{i}") for i, graph in enumerate(graphs)]
        made = {name for part in parts for step in part.steps for name in step.outputs}
        read = {name for part in parts for step in part.steps for name in step.inputs}
        read |= {name for part in parts for name in part.outputs}
        outside = tuple(sorted(read - made - {""}))
        for name in node.outputs:
            self._define(name, depends | parts[0].depends | parts[1].depends)
        step = Step(
            node, choose_branch(parts, outside), (node.inputs[0], *outside), node.outputs, False
        )
        self.lifted.steps.append(step)

    def _inline(self, graph: GraphProto, prefix: str) -> list[str]:
        """Lift a subgraph's nodes in place; return the run-time names of its outputs.

        Its tensors do not become parameters, as their names need not be unique in the file.
        """
        inner = flow.renamed(graph, prefix + "/")
        self.stored.update({proto.name: proto for proto in inner.initializer})
        for proto in inner.node:
            self.add(proto)
        return [self._resolve(output.name, NodeProto(name=prefix)) for output in inner.output]

    def _aside(self, graph: GraphProto, prefix: str) -> Branch:
        """Lift a subgraph to separate steps; the names that it defines are local."""
        steps, names = self.lifted.steps, dict(self.lifted.names)
        self.lifted.steps = []
        outputs = self._inline(graph, prefix)
        inner, self.lifted.steps = self.lifted.steps, steps
        depends = 0
        for name in outputs:
            depends |= self.depends[name]
        kept = {name: names.get(name, name) for name in self.lifted.constants}
        kept |= {name: names.get(name, name) for name in self.lifted.parameters}
        self.lifted.names = {**kept, **names}
        return Branch(inner, outputs, depends)

    def finish(self, target: str) -> None:
        """Record the run-time name of a target."""
        self.lifted.names[target] = self._resolve(target, NodeProto(name="the graph's output"))

    def _is_inference_dropout(self, proto: NodeProto) -> bool:
        if proto.op_type != "Dropout" or proto.domain not in ("", "ai.onnx"):
            return False
        return not any(proto.output[1:]) and len([name for name in proto.input if name]) < 3

    def _define(self, name: str, depends: int) -> None:
        if name:
            self.depends[name] = depends
            self.lifted.names[name] = name

    def _resolve(self, name: str, proto: NodeProto) -> str:
        """Return the run-time name of a value; decode a stored tensor on its first use."""
        if name == "":
            if proto.op_type in ("", "Identity", "Dropout"):
                raise ModelError(
                    f"Node '{proto.name}' copies a value that does not exist: export the model "
                    "again."
                )
            return ""
        while name in self.aliases:
            name = self.aliases[name]
        if name not in self.lifted.names and name in self.stored:
            self._store(name, to_tensor(self.stored[name]), trainable=True)
        if name not in self.lifted.names:
            raise ModelError(
                f"Node '{proto.name}' reads '{name}', which no earlier node defines: export the "
                "model again."
            )
        return self.lifted.names[name]

    def _store(self, name: str, value: Tensor, *, trainable: bool) -> None:
        weight = trainable and value.is_floating_point() and name in self.weights
        weight = weight and value.dtype not in FLOAT8
        self._define(name, PARAMETER if weight else 0)
        (self.lifted.parameters if weight else self.lifted.constants)[name] = value

    def _node(self, proto: NodeProto, inputs: Sequence[str]) -> Node:
        domain = flow.standard_domain(proto.domain)
        constants = self.lifted.constants
        outputs = list(proto.output)
        while outputs and not outputs[-1]:
            outputs.pop()
        return Node(
            name=proto.name or next(iter(proto.output), ""),
            operator=proto.op_type,
            domain=domain,
            opset=self.opsets.get(domain, 1),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            attributes=attributes(proto) | dict(self.patches.get(proto.output[0], {})),
            constants={i: constants[name] for i, name in enumerate(inputs) if name in constants},
            leading=bool(proto.input) and proto.input[0] in self.leading,
            relaxed=proto.output[0] in self.relaxable,
        )

    def _kernel(self, node: Node, proto: NodeProto) -> Kernel:
        try:
            return build_kernel(node)
        except AuditError:
            raise
        except Exception as error:  # attributes of a wrong type or count
            raise failure(node, [], error) from error

    def _dependence(self, node: Node) -> int:
        depends = 0
        for name in node.inputs:
            depends |= self.depends[name] if name else 0
        if node.operator in ("Shape", "Size"):
            # The shape of a weight is known; values computed from weights exist only at run time.
            stored = node.inputs[0] in self.lifted.parameters
            return SHAPE if depends and not stored else 0
        return depends

    def _fold(self, node: Node, kernel: Kernel, inputs: Sequence[str], operator: str) -> None:
        known = {**self.lifted.parameters, **self.lifted.constants}
        values: dict[str, Tensor | None] = {name: known[name] for name in inputs if name}
        with torch.no_grad():
            execute([Step(node, kernel, tuple(inputs), node.outputs, True)], values)
        for name in filter(None, node.outputs):
            value = values[name]
            if isinstance(value, Tensor):
                bounded(tuple(value.shape))
                # A scalar in the graph is a bound or a scale and must not be trained.
                trainable = operator == "Constant" and value.numel() > 1
                self._store(name, value, trainable=trainable)
            else:  # a node that reads it raises the error for an undefined value
                self.lifted.names.pop(name)

    def _append(self, node: Node, kernel: Kernel, inputs: Sequence[str], depends: int) -> None:
        static = static_positions(node.domain, node.operator)
        heavy = bool(depends & (DATA | PARAMETER))
        read = []
        for position, name in enumerate(inputs):
            if name and position in static:
                if self.depends[name] & DATA:
                    self.lifted.fixed_shapes = False
                read.append(name)
            elif name and heavy and not self.depends[name] & (DATA | PARAMETER):
                read.append(self._on_device(name, node))
            else:
                read.append(name)
        self.lifted.steps.append(Step(node, kernel, tuple(read), node.outputs, depends == SHAPE))

    def _on_device(self, name: str, node: Node) -> str:
        copy = name + DEVICE
        if name in self.lifted.constants:
            self.lifted.buffers[copy] = self.lifted.constants[name]
        elif copy not in self.lifted.names:
            self.lifted.names[copy] = copy
            move = changed(node, operator="Identity", inputs=(name,), outputs=(copy,))
            step = Step(move, lambda v, x: v.to(x.device), (name, self.source), (copy,), True)
            self.lifted.steps.append(step)
        return copy
