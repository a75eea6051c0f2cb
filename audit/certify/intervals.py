"""Interval arithmetic through a network: the middle and the largest change of each value."""

from collections.abc import Callable
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
    """

    network: Network
    centre: Tensor
    reach: Tensor

    def walk(self, image: Callable[[int, Bounds], Bounds], until: int | None = None) -> Bounds:
        """Bounds of what enters a layer, or of the scores, each ``(B, ...)``.

        Args:
            image: bounds of what a layer gives, from its place and bounds of what enters it.
            until: the layer; None for the scores.
        """
        network = self.network
        start = network.prepare(self.centre)
        change = (network.prepare(self.centre + self.reach) - start).abs()
        values: Values = {**network.constants, network.source: start}
        changes: Values = {network.source: change}
        for place, step in enumerate(network.steps):
            if place in network.layers:
                entering = _between(values, changes, step.inputs[0])
                if place == until:
                    return entering
                given = image(place, entering)
                values[step.outputs[0]] = (given.low + given.high) / 2
                changes[step.outputs[0]] = (given.high - given.low) / 2
                continue
            inputs = [values[name] if name else None for name in step.inputs]
            result = network.affine(step, inputs, len(self.centre))
            values.update(zip(step.outputs, result, strict=False))
            if any(name in changes for name in step.inputs if name):
                moved = self._change(step, inputs, changes)
                changes.update(zip(step.outputs, moved, strict=False))
        return _between(values, changes, network.target)

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


def _between(values: Values, changes: Values, name: str) -> Bounds:
    centre, reach = values[name], changes[name]
    assert centre is not None
    assert reach is not None
    return Bounds(centre - reach, centre + reach)


def _statistics(place: int, value: Tensor) -> Tensor:
    """Scale by absolute values; neither shift nor mean; the variance as it is."""
    if place == 1:
        return value.abs()
    return value if place == 4 else torch.zeros_like(value)
