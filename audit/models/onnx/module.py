"""Lifted classifiers as torch modules."""

from collections.abc import Mapping

import onnx
import torch
from torch import Tensor, nn

from audit.errors import ModelError
from audit.models.onnx import flow
from audit.models.onnx.dtypes import TORCH
from audit.models.onnx.fusing import fuse
from audit.models.onnx.gradients import wrapped
from audit.models.onnx.heads import Head, find_head, is_label, served_output
from audit.models.onnx.lifting import Lifted, lift_graph
from audit.models.onnx.program import Step, Values, execute, with_frees

_SHAPES_REMEMBERED = 16


class _Path:
    """Steps to one target, and a cache of the values that depend only on the input's shape."""

    def __init__(self, lifted: Lifted, target: str) -> None:
        self.target = lifted.names.get(target, target)
        stored = {**lifted.parameters, **lifted.constants, **lifted.buffers}
        steps = fuse(lifted.steps, stored, self.target)
        small = {name for step in steps if step.shape_only for name in step.outputs if name}
        kept = {self.target, *stored, *small}
        self.steps = with_frees(steps, kept)
        data_steps = [step for step in steps if not step.shape_only]
        self.data_steps = with_frees(data_steps, kept)
        self.small = small if lifted.fixed_shapes else set()
        self.memory: dict[tuple[object, ...], Values] = {}

    def run(self, source: str, x: Tensor, values: Values) -> Tensor:
        """Return the value of the target; `values` holds the constants and is modified."""
        key = (x.shape, x.device)
        known = self.memory.get(key)
        steps: list[Step] = self.steps if known is None else self.data_steps
        values.update(known or {})
        values[source] = x
        execute(steps, values)
        # Inside vmap or grad, even shapes are wrapped, and wrappers are invalid afterwards.
        if known is None and self.small and not wrapped(x):
            self._remember(key, {name: values[name] for name in self.small})
        result = values.get(self.target)
        if not isinstance(result, Tensor):
            raise ModelError(
                f"Output '{self.target}' is not a tensor: export the model with its scores as "
                "output."
            )
        return result

    def _remember(self, key: tuple[object, ...], values: Values) -> None:
        if len(self.memory) >= _SHAPES_REMEMBERED:
            self.memory.clear()
        self.memory[key] = values


class OnnxModule(nn.Module):
    """Served model in torch, with the values of the runtime, and gradients where they exist.

    Attributes:
        input_name, input_shape, input_dtype: as declared by the file; free sizes are None.
        output_name: name of the served output, which `forward` returns.
        head: kind of output: "logits", "probabilities", "log_probabilities" or "labels".
        differentiable: True if a chain of float operations leads from the input to `logits`.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        graph = model.graph
        source = _only_input(graph)
        output = served_output(graph)
        head = find_head(graph, output.name)
        self.input_name = source.name
        self.input_shape = _shape(source)
        self.input_dtype = _dtype(source)
        # Many graphs with a declared batch size of 1 accept any: the caller tries it.
        self._expects = (None, *self.input_shape[1:]) if self.input_shape else ()
        self.output_name = output.name
        self.head = "labels" if is_label(output.type.tensor_type.elem_type) else head.kind
        served = lift_graph(model, [output.name])
        scores = _lift_scores(model, head, served)
        self.differentiable = _differentiable(graph, source.name, head, self.input_dtype)
        self._relaxed = self.differentiable and source.name in flow.relaxable(graph.node)
        self._served = _Path(served, output.name)
        self._scores = _Path(scores, head.target)
        self._output_dtype = TORCH.get(output.type.tensor_type.elem_type)
        self._constants = {**scores.constants, **served.constants}
        self._lifted_scores = scores
        self._scores_target = scores.names.get(head.target, head.target)
        self._register({**scores.parameters, **served.parameters}, scores, served)

    def _register(self, parameters: Mapping[str, Tensor], *lifted: Lifted) -> None:
        # The file's names may contain dots, which torch reserves for submodules: use numbers.
        self._names = list(parameters)
        for index, value in enumerate(parameters.values()):
            self.register_parameter(f"weight_{index}", nn.Parameter(value))
        buffers = {name: value for part in lifted for name, value in part.buffers.items()}
        self._buffer_names = list(buffers)
        for index, value in enumerate(buffers.values()):
            self.register_buffer(f"constant_{index}", value, persistent=False)

    def initializers(self) -> dict[str, nn.Parameter]:
        """Return the float initializers that the computation uses, by their name in the file."""
        return dict(zip(self._names, self.parameters(), strict=True))

    def scores_program(self) -> tuple[list[Step], Values, str, str]:
        """Return the unfused steps to the logits, their initial values, and two names.

        The initial values are the constants and weights by name. The first name is that of the
        input, the second one that of the logits.
        """
        values: Values = dict(self._constants)
        values.update(zip(self._names, self._parameters.values(), strict=True))
        values.update(zip(self._buffer_names, self._buffers.values(), strict=True))
        return self._lifted_scores.steps, values, self.input_name, self._scores_target

    def forward(self, x: Tensor) -> Tensor:
        """Return the served output for `x` of shape (B, …); labels are integers."""
        y = self._run(self._served, x)
        if self._output_dtype is not None and not self._output_dtype.is_floating_point:
            return y.to(self._output_dtype)
        return y

    def logits(self, x: Tensor) -> Tensor:
        """Return the scores before a final Softmax, LogSoftmax, Sigmoid or ArgMax, if any."""
        return self._run(self._scores, x)

    def _run(self, path: _Path, x: Tensor) -> Tensor:
        values: Values = dict(self._constants)
        values.update(zip(self._names, self._parameters.values(), strict=True))
        values.update(zip(self._buffer_names, self._buffers.values(), strict=True))
        return path.run(self.input_name, self._as_input(x), values)

    def _as_input(self, x: Tensor) -> Tensor:
        """Cast to the declared type; keep floats if an integer input may be held as floats."""
        if self._expects and not _fits(x.shape, self._expects):
            wanted = ", ".join("?" if size is None else str(size) for size in self._expects)
            raise ModelError(
                f"Input '{self.input_name}' expects shape ({wanted}), found {tuple(x.shape)}: "
                "check --layout, and that the samples have the size the model expects."
            )
        if self.input_dtype.is_floating_point or not self._relaxed:
            return x if x.dtype == self.input_dtype else x.to(self.input_dtype)
        return x


def _fits(shape: torch.Size, expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        wanted is None or size == wanted for size, wanted in zip(shape, expected, strict=True)
    )


def _lift_scores(model: onnx.ModelProto, head: Head, served: Lifted) -> Lifted:
    last = served.steps[-1].outputs if served.steps else ()
    if head.target in last and not head.aliases and not head.patches:
        return served
    return lift_graph(model, [head.target], aliases=head.aliases, patches=head.patches)


def _differentiable(graph: onnx.GraphProto, source: str, head: Head, dtype: torch.dtype) -> bool:
    if not dtype.is_floating_point and source not in flow.relaxable(graph.node):
        return False
    return flow.has_gradient(graph.node, source, head.target)


def _only_input(graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    stored = {proto.name for proto in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise ModelError(
            f"A classifier with one input is expected, found {len(inputs)} ({names}): make the "
            "other inputs constants when exporting."
        )
    return inputs[0]  # type: ignore[no-any-return]


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in dims)


def _dtype(value: onnx.ValueInfoProto) -> torch.dtype:
    dtype = TORCH.get(value.type.tensor_type.elem_type)
    if dtype is None:
        raise ModelError(
            f"Input '{value.name}' is not a numeric tensor, which is not supported: export the "
            "classifier with a tensor as its input."
        )
    return dtype
