"""Interval arithmetic through a network: the middle and the largest change of each value."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from audit.certify.network import FACTORS, Bounds, Network
from audit.models.onnx.program import Step, Values


@dataclass
class Interval:
    """Interval arithmetic, step by step.

    Attributes:
        network: what is evaluated.
        centre: (B, ...) middle of what the samples may become, value by value.
        reach: (B, ...) how far each value may move from it.
        given: bounds of what each layer before the one asked for gives.
    """

    network: Network
    centre: Tensor
    reach: Tensor
    given: Mapping[int, Bounds]

    def at(self, layer: int) -> Bounds:
        """Bounds of what enters a layer, each ``(B, ...)``."""
        network = self.network
        start = network.prepare(self.centre)
        change = (network.prepare(self.centre + self.reach) - start).abs()
        values: Values = {**network.constants, network.source: start}
        changes: Values = {network.source: change}
        for place, step in enumerate(network.steps):
            if place == layer:
                centre, reach = values[step.inputs[0]], changes[step.inputs[0]]
                assert centre is not None
                assert reach is not None
                return Bounds(centre - reach, centre + reach)
            if place in network.layers:
                bounds = self.given[place]
                values[step.outputs[0]] = (bounds.low + bounds.high) / 2
                changes[step.outputs[0]] = (bounds.high - bounds.low) / 2
                continue
            inputs = [values[name] if name else None for name in step.inputs]
            result = network.affine(step, inputs, len(self.centre))
            values.update(zip(step.outputs, result, strict=False))
            if any(name in changes for name in step.inputs if name):
                moved = self._change(step, inputs, changes)
                changes.update(zip(step.outputs, moved, strict=False))
        raise AssertionError(f"there is no layer {layer}")

    def _change(self, step: Step, inputs: list[Tensor | None], known: Values) -> tuple[Tensor, ...]:
        """The largest change of a step's outputs: absolute weights, no bias."""
        name = step.node.operator
        changes: list[Tensor | None] = []
        for place, (source, value) in enumerate(zip(step.inputs, inputs, strict=True)):
            if source in known:
                changes.append(known[source])
            elif value is None or not value.is_floating_point():
                changes.append(value)
            elif name == "BatchNormalization":
                changes.append(_statistics(place, value))
            elif place >= FACTORS.get(name, 0) or name == "Sub":
                changes.append(torch.zeros_like(value))
            else:
                changes.append(value.abs())
        if name == "Sub":
            left, right = changes
            assert left is not None
            assert right is not None
            return (left + right,)
        if name == "Neg":
            assert changes[0] is not None
            return (changes[0],)
        return self.network.affine(step, changes, len(self.centre))


def _statistics(place: int, value: Tensor) -> Tensor:
    """Scale by absolute values; neither shift nor mean; the variance as it is."""
    if place == 1:
        return value.abs()
    return value if place == 4 else torch.zeros_like(value)
