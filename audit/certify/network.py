"""A classifier as affine maps and a few nonlinear operations, for bound propagation.

The importer's own kernels compute the affine operations; automatic differentiation passes linear
bounds backwards through them, exactly. Only the nonlinear operations are replaced, by functions
whose backward pass is their relaxation (`audit.certify.relaxation`), so every graph whose other
operations are affine in the input can be bounded, and a wrong weight layout or padding cannot be
bounded differently than it is served.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from audit.certify import relaxation
from audit.certify.relaxation import Candidates, CornerMaximum, Lines
from audit.models.onnx import OnnxModule
from audit.models.onnx.dtypes import FLOAT8, TORCH
from audit.models.onnx.node import Node
from audit.models.onnx.operators.window import read_window
from audit.models.onnx.program import Step, Values, computed

NEVER = -1e30
"""What pads a maximum: it cannot win."""

CURVED = 1e-3
"""Width of an interval below which a curve is as good as straight."""

MOVING = frozenset(
    {
        "Flatten",
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Split",
        "Pad",
        "Concat",
        "Gather",
        "Expand",
        "Dropout",
        "Cast",
        "CastLike",
        "DepthToSpace",
        "SpaceToDepth",
        "AveragePool",
        "GlobalAveragePool",
        "ReduceMean",
        "ReduceSum",
        "Sum",
        "Add",
        "Identity",
    }
)
"""Affine, with coefficients that are not negative: what bounds the size of a change is the same."""

FACTORS = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "MatMul": 2, "Mul": 2, "Div": 2, "Sub": 2}
"""Affine in one operand as long as the other is constant; the number of factors, before a bias."""

CASTS = frozenset({"Cast", "CastLike"})

RESHAPING = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


@dataclass
class Bounds:
    """Lower and upper bounds of what enters a nonlinear operation, ``(B, ...)`` each."""

    low: Tensor
    high: Tensor


OverBall = Lines | Candidates
"""What relaxes an operation between bounds that hold in a whole ball."""

Relaxation = OverBall | CornerMaximum


@dataclass
class Layer:
    """A nonlinear operation.

    Attributes:
        step: the step of the graph.
        value: the operation.
        lines: its relaxation between bounds.
        bends: where the operation bends, so that values on one side of all need no tighter bounds;
            None where it is curved everywhere.
        spread: gathers the values that compete for a maximum; None for operations on each value.
    """

    step: Step
    value: Callable[[Tensor], Tensor]
    lines: Callable[[Tensor, Tensor], OverBall]
    bends: tuple[float, ...] | None = None
    spread: Callable[[Tensor], Tensor] | None = None

    def loose(self, bounds: Bounds) -> Tensor:
        """Which values would gain from tighter bounds, bool of their shape."""
        if self.bends is None:
            return bounds.high - bounds.low > CURVED
        found = torch.zeros_like(bounds.low, dtype=torch.bool)
        for bend in self.bends:
            found |= (bounds.low < bend) & (bounds.high > bend)
        return found

    def relax(self, bounds: Bounds) -> OverBall:
        """The relaxation between these bounds of its input."""
        spread = self.spread or (lambda x: x)
        return self.lines(spread(bounds.low), spread(bounds.high))

    def apply(self, x: Tensor, gap: Tensor, found: Relaxation) -> Tensor:
        """The operation, relaxed when differentiated."""
        entering = x if self.spread is None else self.spread(x)
        return found.applied(entering, gap, self.value(entering.detach()))

    def exact(self, x: Tensor) -> Tensor:
        """The operation itself, increasing in its input."""
        return self.value(x if self.spread is None else self.spread(x))

    def image(self, bounds: Bounds) -> Bounds:
        """Bounds of what it gives, from bounds of what enters it."""
        return Bounds(self.exact(bounds.low), self.exact(bounds.high))


@dataclass
class Network:
    """The scores of a classifier of samples ``(B, ...)`` in the user's units.

    Attributes:
        steps: in order.
        layers: the nonlinear ones among them, by place.
        constants: values that do not depend on the input, by name.
        source, target: names of the graph's input, and of the scores.
        prepare: samples to the graph's input; affine.
        shapes: shape of every value for one sample, by name.
        moving: names of the values that depend on the input's values.
        stored: the constants in the types of the file, by name.
        dtype: the type of everything computed; a cast between floats is the identity.
        rounding: floating types narrower than float32 in which the file computes.
    """

    steps: list[Step]
    layers: dict[int, Layer]
    constants: Values
    source: str
    target: str
    prepare: Callable[[Tensor], Tensor]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    moving: set[str] = field(default_factory=set)
    stored: Values = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    rounding: set[torch.dtype] = field(default_factory=set)

    @property
    def classes(self) -> int:
        """How many scores there are; a single logit stands for two."""
        return max(2, prod(self.shapes[self.target]))

    def double(self) -> "Network":
        """The same network in float64."""
        constants = _as_floats(self.stored, torch.float64)
        return replace(self, constants=constants, dtype=torch.float64)

    def run(
        self,
        x: Tensor,
        gap: Tensor | None = None,
        relaxed: Mapping[int, Relaxation] | None = None,
        until: int | None = None,
        given: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Evaluate the network at samples.

        Args:
            x: (B, ...) samples.
            gap: (B,) zeros that collect what the relaxations lose; None evaluates it exactly.
            relaxed: the relaxation of every layer before the end, by place.
            until: stop at this layer and return its input; None returns the scores (B, K).
            given: outputs of layers that are taken as they are, by place.
        """
        values = self._start(x)
        for place, step in enumerate(self.steps):
            if place == until:
                entering = values[step.inputs[0]]
                assert entering is not None
                return entering
            if given and place in given:
                values[step.outputs[0]] = given[place]
            else:
                self._advance(place, values, len(x), gap, relaxed)
        scores = values[self.target]
        assert scores is not None
        return _two_columns(scores.reshape(len(x), -1))

    def outputs(
        self, x: Tensor, gap: Tensor, relaxed: Mapping[int, Relaxation], places: Sequence[int]
    ) -> list[Tensor]:
        """What some layers give, relaxed when differentiated; nothing behind them is evaluated."""
        values = self._start(x)
        for place in range(max(places) + 1):
            self._advance(place, values, len(x), gap, relaxed)
        found = [values[self.steps[place].outputs[0]] for place in places]
        return [value for value in found if value is not None]

    def _start(self, x: Tensor) -> Values:
        return {**self.constants, self.source: self.prepare(x)}

    def _advance(
        self,
        place: int,
        values: Values,
        batch: int,
        gap: Tensor | None,
        relaxed: Mapping[int, Relaxation] | None,
    ) -> None:
        step, layer = self.steps[place], self.layers.get(place)
        inputs = [values[name] if name else None for name in step.inputs]
        if layer is None:
            values.update(zip(step.outputs, self.affine(step, inputs, batch), strict=False))
            return
        entering = inputs[0]
        assert entering is not None
        if gap is None:
            values[step.outputs[0]] = layer.exact(entering)
        else:
            assert relaxed is not None
            values[step.outputs[0]] = layer.apply(entering, gap, relaxed[place])

    def affine(self, step: Step, inputs: list[Tensor | None], batch: int) -> tuple[Tensor, ...]:
        """What a step that is no layer makes of its inputs, for so many samples."""
        name, moving = step.node.operator, step.outputs[0] in self.moving
        if name in RESHAPING and moving:
            data = inputs[0]
            assert data is not None
            # A graph exported for one sample names its batch size here.
            return (data.reshape(batch, *self.shapes[step.outputs[0]][1:]),)
        if name in CASTS and moving and inputs[0] is not None:
            return (inputs[0],)
        return tuple(_as_float(value, self.dtype) for value in computed(step, inputs))


def _as_float(value: Tensor, dtype: torch.dtype) -> Tensor:
    """A float tensor in the type of the computation; integers are shapes and indices."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == dtype:
        return value
    return value.to(dtype)


def _as_floats(values: Values, dtype: torch.dtype) -> Values:
    return {
        name: value if value is None else _as_float(value, dtype) for name, value in values.items()
    }


def network_of(
    module: OnnxModule,
    prepare: Callable[[Tensor], Tensor],
    sample: Tensor,
    threshold: float = 0.0,
) -> Network:
    """Find the affine and the nonlinear operations of a lifted graph.

    Args:
        module: the lifted graph, up to its logits.
        prepare: samples to its input.
        sample: (1 or more, ...) samples; the first is run to learn shapes.
        threshold: value of a single score above which the model names class 1; it is subtracted.

    Raises:
        UnsupportedOperator: an operation is neither affine in the input nor one with a relaxation.
    """
    lifted, stored, source, target = module.scores_program()
    if threshold:
        step = _less(target, threshold)
        lifted, target = [*lifted, step], step.outputs[0]
        stored[step.inputs[1]] = torch.tensor(threshold)
    constants = _as_floats(stored, torch.float32)
    network = Network([], {}, constants, source, target, prepare, stored=stored)
    # Run once in the file's own types: they tell where its numbers are rounded.
    values: Values = {**stored, source: prepare(sample[:1]).to(module.input_dtype)}
    network.moving.add(source)
    network.rounding |= _narrow(values[source])
    for step in lifted:
        inputs = [values[name] if name else None for name in step.inputs]
        moving = [place for place, name in enumerate(step.inputs) if name in network.moving]
        result = computed(step, inputs)
        values.update(zip(step.outputs, result, strict=False))
        for name, value in zip(step.outputs, result, strict=False):
            if isinstance(value, Tensor):
                network.shapes[name] = tuple(value.shape)
        if moving and not step.shape_only:
            network.moving.update(name for name in step.outputs if name)
            network.rounding |= {dtype for value in result for dtype in _narrow(value)}
            layer = _layer(step, inputs)
            if layer is not None:
                network.layers[len(network.steps)] = layer
            elif step.node.operator in CASTS:
                _require_float(step, inputs)
            else:
                _require_affine(step, moving)
        network.steps.append(step)
    return network


def _less(scores: str, threshold: float) -> Step:
    """The step that subtracts a threshold from the scores of that name."""
    inputs, outputs = (scores, f"threshold of {scores}"), (f"{scores} less its threshold",)
    node = Node(f"{scores} - {threshold:g}", "Sub", "", 14, inputs, outputs, {})
    return Step(node, torch.sub, inputs, outputs, shape_only=False)


def _narrow(value: Tensor | None) -> set[torch.dtype]:
    """The type of a float tensor with fewer digits than float32."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return set()
    return {value.dtype} if value.element_size() < torch.float32.itemsize else set()


def _require_float(step: Step, inputs: list[Tensor | None]) -> None:
    """Refuse a cast whose rounding cannot be left out: to integers, booleans and 8-bit floats."""
    like = inputs[1] if len(inputs) > 1 else None
    dtype = TORCH[step.node.attributes["to"]] if like is None else like.dtype
    if not dtype.is_floating_point or dtype in FLOAT8:
        kind = str(dtype).removeprefix("torch.")
        raise step.node.refuse(f"a cast of what depends on the input to {kind} has no linear bound")


def _require_affine(step: Step, moving: list[int]) -> None:
    name = step.node.operator
    if step.node.domain == "" and (name in MOVING or name == "Neg"):
        return
    if name in FACTORS and (name in ("Sub",) or len(moving) == 1):
        if name == "Div" and moving != [0]:
            raise step.node.refuse("dividing by what depends on the input has no linear bound here")
        return
    if name == "BatchNormalization" and moving == [0]:
        return
    raise step.node.refuse("no linear bound of this operation is known")


def _layer(step: Step, inputs: list[Tensor | None]) -> Layer | None:
    node = step.node
    if node.domain:
        return None
    if node.operator == "Relu":
        return Layer(step, torch.relu, lambda low, high: relaxation.kinked(low, high, 0.0), (0.0,))
    if node.operator == "LeakyRelu":
        slope = float(node.attributes.get("alpha", 0.01))
        if not 0 <= slope <= 1:
            raise node.refuse(f"a negative slope of {slope:g} has no linear bound here")
        return Layer(
            step,
            lambda x: F.leaky_relu(x, slope),
            lambda low, high: relaxation.kinked(low, high, slope),
            (0.0,),
        )
    if node.operator == "Clip":
        floor, ceiling = _limits(node, inputs)
        return Layer(
            step,
            lambda x: x.clamp(floor, ceiling),
            lambda low, high: relaxation.clipped(low, high, floor, ceiling),
            (floor, ceiling),
        )
    if node.operator == "Sigmoid":
        return Layer(step, torch.sigmoid, relaxation.sigmoid)
    if node.operator == "Tanh":
        return Layer(step, torch.tanh, relaxation.tanh)
    if node.operator in ("MaxPool", "GlobalMaxPool"):
        return Layer(step, lambda x: x.amax(-1), Candidates.of, spread=_windows(node))
    return None


def _limits(node: Node, inputs: list[Tensor | None]) -> tuple[float, float]:
    given = [*inputs[1:], None, None][:2]
    names = ("min", "max")
    ends = (-3.4e38, 3.4e38)
    low, high = (
        float(node.attributes.get(name, end)) if value is None else float(value)
        for name, end, value in zip(names, ends, given, strict=True)
    )
    return low, high


def _windows(node: Node) -> Callable[[Tensor], Tensor]:
    """Gather what competes for each maximum along a last axis."""
    if node.operator == "GlobalMaxPool":
        return lambda x: x.flatten(2).reshape(*x.shape[:2], *[1] * (x.dim() - 2), -1)
    kernel = list(node.attributes.get("kernel_shape", []))
    window = read_window(node, len(kernel), kernel)
    if window.ceil or any(dilation != 1 for dilation in window.dilations):
        raise node.refuse("a maximum with ceil_mode or dilations has no linear bound here")

    def gather(x: Tensor) -> Tensor:
        begins, ends = window.padding(x.shape[2:])
        pads = [
            size for pair in zip(reversed(begins), reversed(ends), strict=True) for size in pair
        ]
        x = F.pad(x, pads, value=NEVER) if any(pads) else x
        for axis, (size, stride) in enumerate(zip(window.kernel, window.strides, strict=True)):
            x = x.unfold(2 + axis, size, stride)
        return x.flatten(-len(kernel))

    return gather


def _two_columns(scores: Tensor) -> Tensor:
    """A single logit z stands for (0, z)."""
    if scores.shape[1] > 1:
        return scores
    return torch.cat([torch.zeros_like(scores), scores], dim=1)
