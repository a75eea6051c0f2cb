"""Interval bound propagation (IBP): centre and half-width of every value of a network.

Source: Gowal et al. 2018.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from audit.certify.affine_operators import FACTORS
from audit.certify.layers import Bounds
from audit.certify.network import Network
from audit.models.onnx.program import Step, Values


@dataclass
class IntervalPropagation:
    """Interval arithmetic through a network, step by step.

    Attributes:
        network: network that is evaluated.
        centre: (B, ...) float, middle of the interval of every input value.
        half_width: (B, ...) float, half the width of that interval.
    """

    network: Network
    centre: Tensor
    half_width: Tensor

    def bounds(self, image: Callable[[int, Bounds], Bounds], until: int | None = None) -> Bounds:
        """Bound the input of a layer, or the scores, ``(B, ...)``.

        Args:
            image: returns bounds of a layer's output, given its index and bounds of its input.
            until: index of the layer; None for the scores.
        """
        network = self.network
        start = network.prepare(self.centre)
        width = (network.prepare(self.centre + self.half_width) - start).abs()
        values: Values = {**network.constants, network.source: start}
        widths: Values = {network.source: width}
        for index, step in enumerate(network.steps):
            if index in network.layers:
                entering = _bounds(values, widths, step.inputs[0])
                if index == until:
                    return entering
                output = image(index, entering)
                values[step.outputs[0]] = (output.lower + output.upper) / 2
                widths[step.outputs[0]] = (output.upper - output.lower) / 2
                continue
            inputs = [values[name] if name else None for name in step.inputs]
            result = network.affine(step, inputs, len(self.centre))
            values.update(zip(step.outputs, result, strict=False))
            if any(name in widths for name in step.inputs if name):
                moved = self._half_widths(step, inputs, widths)
                widths.update(zip(step.outputs, moved, strict=False))
        return _bounds(values, widths, network.target)

    def _half_widths(
        self, step: Step, inputs: list[Tensor | None], known: Values
    ) -> tuple[Tensor, ...]:
        """Return the half-widths of a step's outputs, by absolute weights and without a bias."""
        name = step.node.operator
        widths: list[Tensor | None] = []
        for position, (source, value) in enumerate(zip(step.inputs, inputs, strict=True)):
            if source in known:
                widths.append(known[source])
            elif value is None or not value.is_floating_point():
                widths.append(value)
            elif name == "BatchNormalization":
                widths.append(_batch_statistics(position, value))
            elif position >= FACTORS.get(name, 0) or name == "Sub":
                widths.append(torch.zeros_like(value))
            else:
                widths.append(value.abs())
        if name == "Sub":
            left, right = widths
            assert left is not None
            assert right is not None
            return (left + right,)
        if name == "Neg":
            assert widths[0] is not None
            return (widths[0],)
        return self.network.affine(step, widths, len(self.centre))


def _bounds(values: Values, widths: Values, name: str) -> Bounds:
    centre, half_width = values[name], widths[name]
    assert centre is not None
    assert half_width is not None
    return Bounds(centre - half_width, centre + half_width)


def _batch_statistics(position: int, value: Tensor) -> Tensor:
    """Return the input of a batch normalisation that maps half-widths.

    The scale becomes its absolute value, shift and mean become 0, the variance is unchanged.
    """
    if position == 1:
        return value.abs()
    return value if position == 4 else torch.zeros_like(value)
