"""The affine maps between the nonlinear operations of a network, found by differentiating it.

They are the same for every sample and radius, so they are made once.
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

ROWS = 256
"""Linear functions that are propagated together."""

DENSE = 2**26
"""The most entries of the first layer's matrix."""


@dataclass
class FirstLayer:
    """What enters the first nonlinear operation, as a function of the input.

    Attributes:
        positive, negative: (n, d) coefficients, those of the other sign zero.
        dual: (n,) float64, dual norms over the metric's extent.
    """

    positive: Tensor
    negative: Tensor
    dual: Tensor


@dataclass
class Segment:
    """What enters a layer, as a function of what earlier layers give and of the input.

    Attributes:
        before: (n, m) coefficients of the outputs of each earlier layer that takes part, by place.
        direct: (n, d) those of the input, or None where it takes no part itself.
    """

    before: dict[int, Tensor]
    direct: Tensor | None


@dataclass
class Maps:
    """The affine maps of one network, made when first needed.

    Attributes:
        network: in float32 or float64.
        metric: of the dual norms of the first layer.
    """

    network: Network
    metric: Metric
    _first: FirstLayer | None = field(default=None, init=False)
    _segments: dict[int, Segment | None] = field(default_factory=dict, init=False)

    def first(self, place: int, sample: Tensor) -> FirstLayer:
        """The map into the first layer.

        Raises:
            UnsupportedOperator: it is too large to be kept as a matrix.
        """
        if self._first is None:
            self._first = self._first_layer(place, sample)
        return self._first

    def segment(self, place: int, sample: Tensor, earlier: Sequence[int]) -> Segment | None:
        """The map into a later layer, or None where it is too large to be kept."""
        if place not in self._segments:
            self._segments[place] = self._between(place, sample, earlier)
        return self._segments[place]

    def _first_layer(self, place: int, sample: Tensor) -> FirstLayer:
        with torch.no_grad():
            values = flat(self.network.run(sample, until=place)).shape[1]
        if values * sample.numel() > DENSE:
            raise UnsupportedOperator(
                f"the first layer has {values:,} values of {sample.numel():,} inputs, more than "
                "bound propagation is meant for"
            )
        rows = []
        for places in torch.arange(values, device=sample.device).split(ROWS):
            with torch.enable_grad():
                x = _copies(sample, len(places))
                out = flat(self.network.run(x, until=place)).gather(1, places[:, None])
                (grad,) = torch.autograd.grad(out.sum(), x)
            rows.append(grad)
        matrix = torch.cat(rows)
        centres = sample.expand(len(matrix), *sample.shape[1:])
        # The dual norm is a norm times the extent; an image without mass has none of either.
        whole = torch.full_like(centres[:1], self.metric.high).expand_as(centres)
        dual = self.metric.dual_norm(whole, matrix) / self.metric.extent(whole)
        matrix = flat(matrix)
        return FirstLayer(matrix.clamp_min(0), matrix.clamp_max(0), dual)

    def _between(self, place: int, sample: Tensor, earlier: Sequence[int]) -> Segment | None:
        network = self.network
        gives: Mapping[int, tuple[int, ...]] = {
            p: network.shapes[network.steps[p].outputs[0]][1:] for p in earlier
        }
        values = prod(network.shapes[network.layers[place].step.inputs[0]])
        if values * max(sample.numel(), *map(prod, gives.values())) > DENSE // 4:
            return None
        before: dict[int, list[Tensor]] = {p: [] for p in earlier}
        direct: list[Tensor] = []
        for places in torch.arange(values, device=sample.device).split(ROWS):
            with torch.enable_grad():
                x = _copies(sample, len(places))
                given = {
                    p: sample.new_zeros((len(places), *shape), requires_grad=True)
                    for p, shape in gives.items()
                }
                out = flat(network.run(x, until=place, given=given)).gather(1, places[:, None])
                *grads, straight = torch.autograd.grad(
                    out.sum(), (*given.values(), x), materialize_grads=True
                )
            for p, grad in zip(given, grads, strict=True):
                before[p].append(flat(grad))
            direct.append(flat(straight))
        matrices = {p: torch.cat(rows) for p, rows in before.items()}
        whole = torch.cat(direct)
        return Segment(
            {p: matrix for p, matrix in matrices.items() if bool(matrix.any())},
            whole if bool(whole.any()) else None,
        )


def _copies(sample: Tensor, count: int) -> Tensor:
    return sample.expand(count, *sample.shape[1:]).clone().requires_grad_()
