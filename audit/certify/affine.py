"""The affine maps between the nonlinear operations of a network, found by differentiating it.

They are the same for every sample and radius, so they are computed once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from attackers.geometry import Metric
from attackers.rows import flat
from audit.certify.network import Network
from audit.errors import UnsupportedOperator

ROWS_PER_PASS = 256
"""Number of linear functions propagated in one backward pass. A larger number needs more memory: a
pass holds that many copies of all activations."""

MAX_ENTRIES = 2**26
"""Largest number of entries in the first layer's matrix: 256 MiB in float32."""


@dataclass
class FirstLayer:
    """Input of the first layer, as an affine function of n values of the network's d inputs.

    Attributes:
        positive, negative: (n, d) coefficients, with those of the other sign set to 0.
        dual: (n,) float64, dual norms of the rows in units of the metric's extent.
    """

    positive: Tensor
    negative: Tensor
    dual: Tensor


@dataclass
class Segment:
    """Input of a layer, as an affine function of the outputs of earlier layers and of the input.

    Attributes:
        before: (n, m) coefficients of the outputs of each earlier layer that contributes, by index.
        direct: (n, d) coefficients of the network's input; None if it does not contribute.
    """

    before: dict[int, Tensor]
    direct: Tensor | None


@dataclass
class Maps:
    """The affine maps of one network, each computed when it is first needed.

    Attributes:
        network: network in float32 or float64.
        metric: metric of the dual norms of the first layer.
    """

    network: Network
    metric: Metric
    _first: FirstLayer | None = field(default=None, init=False)
    _segments: dict[int, Segment | None] = field(default_factory=dict, init=False)

    def first(self, index: int, sample: Tensor) -> FirstLayer:
        """Return the map into the first layer.

        Args:
            index: index of the layer.
            sample: (1, ...) any sample, in the network's dtype.

        Raises:
            UnsupportedOperator: the map is too large to be kept as a matrix.
        """
        if self._first is None:
            self._first = self._first_layer(index, sample)
        return self._first

    def segment(self, index: int, sample: Tensor, earlier: Sequence[int]) -> Segment | None:
        """Return the map into a later layer, or None if it is too large to be kept.

        Args:
            index: index of the layer.
            sample: (1, ...) any sample, in the network's dtype.
            earlier: indices of all layers before it.
        """
        if index not in self._segments:
            self._segments[index] = self._between(index, sample, earlier)
        return self._segments[index]

    def _first_layer(self, index: int, sample: Tensor) -> FirstLayer:
        with torch.no_grad():
            values = flat(self.network.run(sample, until=index)).shape[1]
        if values * sample.numel() > MAX_ENTRIES:
            raise UnsupportedOperator(
                f"the first layer computes {values:,} values from {sample.numel():,} inputs, but "
                f"bound propagation keeps at most {MAX_ENTRIES:,} coefficients"
            )
        rows = []
        for positions in torch.arange(values, device=sample.device).split(ROWS_PER_PASS):
            with torch.enable_grad():
                x = _copies(sample, len(positions))
                out = flat(self.network.run(x, until=index)).gather(1, positions[:, None])
                (grad,) = torch.autograd.grad(out.sum(), x)
            rows.append(grad)
        matrix = torch.cat(rows)
        centres = sample.expand(len(matrix), *sample.shape[1:])
        # The dual norm is a norm times the extent, and both are 0 for an image without mass.
        # Therefore it is computed at an image that has mass everywhere.
        bright = torch.full_like(centres[:1], self.metric.high).expand_as(centres)
        dual = self.metric.dual_norm(bright, matrix) / self.metric.extent(bright)
        matrix = flat(matrix)
        return FirstLayer(matrix.clamp_min(0), matrix.clamp_max(0), dual)

    def _between(self, index: int, sample: Tensor, earlier: Sequence[int]) -> Segment | None:
        network = self.network
        shapes: Mapping[int, tuple[int, ...]] = {
            layer: network.shapes[network.steps[layer].outputs[0]][1:] for layer in earlier
        }
        values = prod(network.shapes[network.layers[index].step.inputs[0]])
        if values * max(sample.numel(), *map(prod, shapes.values())) > MAX_ENTRIES // 4:
            return None
        before: dict[int, list[Tensor]] = {layer: [] for layer in earlier}
        direct: list[Tensor] = []
        for positions in torch.arange(values, device=sample.device).split(ROWS_PER_PASS):
            with torch.enable_grad():
                x = _copies(sample, len(positions))
                given = {
                    layer: sample.new_zeros((len(positions), *shape), requires_grad=True)
                    for layer, shape in shapes.items()
                }
                out = flat(network.run(x, until=index, given=given)).gather(1, positions[:, None])
                *grads, of_input = torch.autograd.grad(
                    out.sum(), (*given.values(), x), materialize_grads=True
                )
            for layer, grad in zip(given, grads, strict=True):
                before[layer].append(flat(grad))
            direct.append(flat(of_input))
        matrices = {layer: torch.cat(rows) for layer, rows in before.items()}
        from_input = torch.cat(direct)
        return Segment(
            {layer: matrix for layer, matrix in matrices.items() if bool(matrix.any())},
            from_input if bool(from_input.any()) else None,
        )


def _copies(sample: Tensor, count: int) -> Tensor:
    return sample.expand(count, *sample.shape[1:]).clone().requires_grad_()
