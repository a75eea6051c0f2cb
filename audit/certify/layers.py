"""The nonlinear operations of a network, with bounds of their inputs and their relaxations."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from audit.certify.corner_relaxation import CornerMaximum
from audit.certify.maximum import Candidates
from audit.certify.piecewise_linear import clip_lines, leaky_relu_lines
from audit.certify.relaxation import Lines
from audit.certify.s_shaped import sigmoid_lines, tanh_lines
from audit.models.onnx.node import Node
from audit.models.onnx.operators.window import read_window
from audit.models.onnx.program import Step

PADDING = -1e30
"""Value that pads the windows of a maximum: smaller than every other value, yet finite."""

CURVED = 1e-3
"""Width of bounds up to which a curved operation counts as linear: tighter bounds gain little."""


@dataclass
class Bounds:
    """Lower and upper bounds of the input of a nonlinear operation, ``(B, ...)`` each."""

    lower: Tensor
    upper: Tensor


BallRelaxation = Lines | Candidates
"""Relaxation of an operation between bounds that hold in the whole ball."""

Relaxation = BallRelaxation | CornerMaximum


@dataclass
class Layer:
    """A nonlinear operation.

    Attributes:
        step: its step in the graph.
        value: the operation, an increasing function.
        lines: returns its relaxation between lower and upper bounds.
        breakpoints: inputs at which a piecewise linear operation changes its slope; None for a
            curved operation.
        windows: gathers the candidates of each maximum along a last axis; None for elementwise
            operations.
    """

    step: Step
    value: Callable[[Tensor], Tensor]
    lines: Callable[[Tensor, Tensor], BallRelaxation]
    breakpoints: tuple[float, ...] | None = None
    windows: Callable[[Tensor], Tensor] | None = None

    def unstable(self, bounds: Bounds) -> Tensor:
        """Return which neurons would gain from tighter bounds, bool of the shape of the bounds.

        These are the neurons whose bounds contain a breakpoint, or are wide for a curved operation.
        """
        if self.breakpoints is None:
            return bounds.upper - bounds.lower > CURVED
        found = torch.zeros_like(bounds.lower, dtype=torch.bool)
        for at in self.breakpoints:
            found |= (bounds.lower < at) & (bounds.upper > at)
        return found

    def relax(self, bounds: Bounds) -> BallRelaxation:
        """Relax the operation between bounds of its input."""
        windows = self.windows or (lambda x: x)
        return self.lines(windows(bounds.lower), windows(bounds.upper))

    def relaxed(self, x: Tensor, bias: Tensor, relaxation: Relaxation) -> Tensor:
        """Evaluate the operation at ``x``, with the relaxation as its gradient."""
        entering = x if self.windows is None else self.windows(x)
        return relaxation.attach(entering, bias, self.value(entering.detach()))

    def exact(self, x: Tensor) -> Tensor:
        """Evaluate the operation itself; it is increasing in its input."""
        return self.value(x if self.windows is None else self.windows(x))

    def image(self, bounds: Bounds) -> Bounds:
        """Bound the output, from bounds of the input."""
        return Bounds(self.exact(bounds.lower), self.exact(bounds.upper))


def layer_of(step: Step, inputs: list[Tensor | None]) -> Layer | None:
    """Return the layer of a step, or None if its operation has no relaxation.

    Args:
        step: step of the graph.
        inputs: its inputs for one sample; inputs after the first are read only if constant.

    Raises:
        UnsupportedOperator: the operation has a relaxation, but not with these attributes.
    """
    node = step.node
    if node.domain:
        return None
    if node.operator == "Relu":
        return Layer(
            step, torch.relu, lambda lower, upper: leaky_relu_lines(lower, upper, 0.0), (0.0,)
        )
    if node.operator == "LeakyRelu":
        slope = float(node.attributes.get("alpha", 0.01))
        if not 0 <= slope <= 1:
            raise node.refuse(f"a negative slope of {slope:g} has no linear bound here")
        return Layer(
            step,
            lambda x: F.leaky_relu(x, slope),
            lambda lower, upper: leaky_relu_lines(lower, upper, slope),
            (0.0,),
        )
    if node.operator == "Clip":
        floor, ceiling = _limits(node, inputs)
        return Layer(
            step,
            lambda x: x.clamp(floor, ceiling),
            lambda lower, upper: clip_lines(lower, upper, floor, ceiling),
            (floor, ceiling),
        )
    if node.operator == "Sigmoid":
        return Layer(step, torch.sigmoid, sigmoid_lines)
    if node.operator == "Tanh":
        return Layer(step, torch.tanh, tanh_lines)
    if node.operator in ("MaxPool", "GlobalMaxPool"):
        return Layer(step, lambda x: x.amax(-1), Candidates.of, windows=_windows(node))
    return None


def _limits(node: Node, inputs: list[Tensor | None]) -> tuple[float, float]:
    """Read the range of a Clip from its inputs, or from its attributes in old opsets."""
    given = [*inputs[1:], None, None][:2]
    names = ("min", "max")
    ends = (-3.4e38, 3.4e38)
    floor, ceiling = (
        float(node.attributes.get(name, end)) if value is None else float(value)
        for name, end, value in zip(names, ends, given, strict=True)
    )
    return floor, ceiling


def _windows(node: Node) -> Callable[[Tensor], Tensor]:
    """Return a function that gathers the candidates of each maximum along a last axis."""
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
        x = F.pad(x, pads, value=PADDING) if any(pads) else x
        for axis, (size, stride) in enumerate(zip(window.kernel, window.strides, strict=True)):
            x = x.unfold(2 + axis, size, stride)
        return x.flatten(-len(kernel))

    return gather
