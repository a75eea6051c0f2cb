"""A classifier as affine maps and a few nonlinear operations, for bound propagation.

The importer's own kernels compute the affine operations; automatic differentiation passes linear
bounds backwards through them exactly. Only the nonlinear operations are replaced, by functions
whose backward pass is their relaxation (`audit.certify.relaxation`). Therefore every graph whose
other operations are affine in the input can be bounded, and the bounds hold for the served model:
weight layouts and paddings are read in one place only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import torch
from torch import Tensor

from audit.certify.affine_operators import CASTS, RESHAPING, as_float
from audit.certify.layers import Layer, Relaxation
from audit.models.onnx.program import Step, Values, computed

Relaxations = Mapping[int, Relaxation]
"""Relaxations of layers, by index of their step."""


@dataclass
class Network:
    """Scores of a classifier, as a function of samples ``(B, ...)`` in the user's units.

    A layer is identified by the index of its step.

    Attributes:
        steps: operations in order.
        layers: the nonlinear operations, by index of the step.
        constants: values that do not depend on the input, by name.
        source, target: names of the graph's input and of the scores.
        prepare: affine map from samples to the graph's input.
        shapes: shape of every value for one sample, by name.
        varying: names of the values that depend on the values of the input.
        stored: constants in the types of the file, by name.
        dtype: type of all computations; a cast between floats is the identity.
        rounding: floating types narrower than float32 in which the file computes.
    """

    steps: list[Step]
    layers: dict[int, Layer]
    constants: Values
    source: str
    target: str
    prepare: Callable[[Tensor], Tensor]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    varying: set[str] = field(default_factory=set)
    stored: Values = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    rounding: set[torch.dtype] = field(default_factory=set)

    @property
    def classes(self) -> int:
        """Number of classes; a model with a single score has two."""
        return max(2, prod(self.shapes[self.target]))

    def double(self) -> "Network":
        """Return the network in float64, with the constants of the file at full precision."""
        constants = floats_of(self.stored, torch.float64)
        return replace(self, constants=constants, dtype=torch.float64)

    def run(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        relaxed: Relaxations | None = None,
        until: int | None = None,
        given: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Evaluate the network at samples.

        Args:
            x: (B, ...) float samples.
            bias: (B,) zeros whose gradient is the bias of the linear bounds; None evaluates the
                network exactly.
            relaxed: relaxation of every layer that is evaluated.
            until: index of the layer whose input is returned; None for the scores (B, K).
            given: outputs of layers that replace the computed ones, by index.
        """
        values = self._start(x)
        for index, step in enumerate(self.steps):
            if index == until:
                entering = values[step.inputs[0]]
                assert entering is not None
                return entering
            if given and index in given:
                values[step.outputs[0]] = given[index]
            else:
                self._advance(index, values, len(x), bias, relaxed)
        scores = values[self.target]
        assert scores is not None
        return _two_columns(scores.reshape(len(x), -1))

    def outputs(
        self, x: Tensor, bias: Tensor, relaxed: Relaxations, indices: Sequence[int]
    ) -> list[Tensor]:
        """Evaluate the outputs of some layers, with the relaxations as their gradients.

        Args:
            x: (B, ...) float samples.
            bias: (B,) zeros whose gradient is the bias of the linear bounds.
            relaxed: relaxation of every layer that is evaluated.
            indices: indices of the layers; no step after the last of them is evaluated.
        """
        values = self._start(x)
        for index in range(max(indices) + 1):
            self._advance(index, values, len(x), bias, relaxed)
        found = [values[self.steps[index].outputs[0]] for index in indices]
        return [value for value in found if value is not None]

    def _start(self, x: Tensor) -> Values:
        return {**self.constants, self.source: self.prepare(x)}

    def _advance(
        self,
        index: int,
        values: Values,
        batch: int,
        bias: Tensor | None,
        relaxed: Relaxations | None,
    ) -> None:
        """Evaluate one step, and add its outputs to ``values``."""
        step, layer = self.steps[index], self.layers.get(index)
        inputs = [values[name] if name else None for name in step.inputs]
        if layer is None:
            values.update(zip(step.outputs, self.affine(step, inputs, batch), strict=False))
            return
        entering = inputs[0]
        assert entering is not None
        if bias is None:
            values[step.outputs[0]] = layer.exact(entering)
        else:
            assert relaxed is not None
            values[step.outputs[0]] = layer.relaxed(entering, bias, relaxed[index])

    def affine(self, step: Step, inputs: list[Tensor | None], batch: int) -> tuple[Tensor, ...]:
        """Evaluate an affine step for a batch of this size."""
        name, varying = step.node.operator, step.outputs[0] in self.varying
        if name in RESHAPING and varying:
            data = inputs[0]
            assert data is not None
            # A graph that was exported for one sample contains its batch size here.
            return (data.reshape(batch, *self.shapes[step.outputs[0]][1:]),)
        if name in CASTS and varying and inputs[0] is not None:
            return (inputs[0],)
        return tuple(as_float(value, self.dtype) for value in computed(step, inputs))


def floats_of(values: Values, dtype: torch.dtype) -> Values:
    """Convert all float tensors to ``dtype``."""
    return {
        name: value if value is None else as_float(value, dtype) for name, value in values.items()
    }


def _two_columns(scores: Tensor) -> Tensor:
    """Turn a single logit z into the scores (0, z)."""
    if scores.shape[1] > 1:
        return scores
    return torch.cat([torch.zeros_like(scores), scores], dim=1)
