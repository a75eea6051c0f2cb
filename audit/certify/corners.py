"""A network's bounds at the corners of one ball; see `audit.certify.simplex`."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attackers.rows import flat
from audit.certify.corner_relaxation import CornerLines, CornerMaximum
from audit.certify.intervals import IntervalPropagation
from audit.certify.layers import Bounds, Layer, Relaxation
from audit.certify.margins import rivals_of
from audit.certify.maximum import Candidates
from audit.certify.network import Network, Relaxations
from audit.certify.relaxation import Lines

MAX_UNSTABLE = 256
"""Largest number of unstable neurons of a layer that are bounded backwards at every corner: each is
a row of the backward pass and is multiplied with every corner."""

RowsOf = Callable[[Tensor, Tensor, Relaxations], Tensor]
"""Function of (samples, bias, relaxations): evaluates the value of every row."""


@dataclass
class Corners:
    """Bounds of a network's values at the corners of one ball.

    Attributes:
        network: the network.
        x0: (1, ...) float, the sample.
        displacements: (V, ...) float, the corners minus the sample; the first one is 0.
        relaxed: relaxation of each layer, by index.
        increases: (V, n) increase of the upper bound of a layer's output from the sample to each
            corner, by index; only for layers that are relaxed at corners.
        intermediate: bounds of each layer's input over the whole ball, by index.
    """

    network: Network
    x0: Tensor
    displacements: Tensor
    relaxed: dict[int, Relaxation] = field(default_factory=dict)
    increases: dict[int, Tensor] = field(default_factory=dict)
    intermediate: dict[int, Bounds] = field(default_factory=dict)

    def propagate(self) -> None:
        """Bound every layer at every corner."""
        points = self.x0 + self.displacements
        IntervalPropagation(self.network, points, torch.zeros_like(points)).bounds(self._image)

    def _image(self, index: int, bounds: Bounds) -> Bounds:
        """Relax a layer; bound its output from bounds of its input, (V, ...) each."""
        layer = self.network.layers[index]
        bounds = self._tightened(index, layer, bounds)
        whole = _over_all(bounds)
        self.intermediate[index] = whole
        found = layer.relax(whole)
        if isinstance(found, Candidates):
            return self._maximum(index, layer, found, bounds)
        if found.unstable is None:
            self.relaxed[index] = found
            return _between(found, bounds)
        return self._convex(index, layer, found, bounds)

    def _convex(self, index: int, layer: Layer, lines: Lines, bounds: Bounds) -> Bounds:
        middle = (bounds.lower[:1] + bounds.upper[:1]) / 2
        # Choose the slope that is exact at the sample.
        flattest = torch.full_like(middle, lines.min_slope)
        lines = lines.with_lower_slope(torch.where(middle > 0, torch.ones_like(middle), flattest))
        upper = layer.value(bounds.upper)
        self.increases[index] = flat(upper - upper[:1])
        self.relaxed[index] = CornerLines.of(lines, upper[:1])
        slope = lines.lower_slope
        return Bounds(slope * bounds.lower, upper)

    def _maximum(self, index: int, layer: Layer, found: Candidates, bounds: Bounds) -> Bounds:
        assert layer.windows is not None
        lowers, uppers = layer.windows(bounds.lower), layer.windows(bounds.upper)
        # Choose the best value at the sample; any other value would give a sound bound as well.
        best = lowers[:1].argmax(-1, keepdim=True)
        decided = found.decided & (best == found.best)[..., 0]
        lower = lowers.gather(-1, best.expand(len(lowers), *best.shape[1:]))[..., 0]
        own = uppers.gather(-1, best.expand(len(lowers), *best.shape[1:]))[..., 0]
        upper = torch.where(decided, own, uppers.amax(-1))
        self.increases[index] = flat(upper - upper[:1])
        self.relaxed[index] = CornerMaximum(best, upper[:1], decided)
        return Bounds(lower, upper)

    def _tightened(self, index: int, layer: Layer, bounds: Bounds) -> Bounds:
        """Bound unstable neurons backwards if several layers come before."""
        if len(self.relaxed) < 2 or layer.breakpoints is None:
            return bounds
        neurons = flat(layer.unstable(_over_all(bounds)))[0].nonzero()[:, 0]
        if not 0 < len(neurons) <= MAX_UNSTABLE:
            return bounds
        every = torch.arange(len(self.displacements), device=self.x0.device)
        lower, upper = flat(bounds.lower).clone(), flat(bounds.upper).clone()
        for sign, ends in ((1.0, lower), (-1.0, upper)):

            def entering(x: Tensor, bias: Tensor, relaxed: Relaxations) -> Tensor:
                out = flat(self.network.run(x, bias, relaxed, index))
                return out.gather(1, neurons[:, None])[:, 0]

            found = self._values(entering, len(neurons), self.relaxed, every, sign) * sign
            better = torch.maximum if sign > 0 else torch.minimum
            ends[:, neurons] = better(ends[:, neurons], found.T)
        return Bounds(lower.reshape(bounds.lower.shape), upper.reshape(bounds.upper.shape))

    def margins(self, labels: Tensor, relaxed: Relaxations, corners: Tensor) -> Tensor:
        """Bound the margins from below at some corners.

        Args:
            labels: (1,) int64.
            relaxed: relaxation of every layer.
            corners: (V,) int64.

        Returns:
            (K - 1, V) float.
        """
        rivals, _ = rivals_of(labels, self.network.classes)

        def margin(x: Tensor, bias: Tensor, taken: Relaxations) -> Tensor:
            out = self.network.run(x, bias, taken)
            return out[:, int(labels)] - out.gather(1, rivals[:, None])[:, 0]

        return self._values(margin, len(rivals), relaxed, corners, 1.0)

    def _values(
        self, evaluate: RowsOf, rows: int, relaxed: Relaxations, corners: Tensor, sign: float
    ) -> Tensor:
        """Return lower bounds of ``sign`` times the values of the rows at corners, (R, V)."""
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            x = self.x0.expand(rows, *self.x0.shape[1:]).clone().requires_grad_()
            bias = x.new_zeros(rows, requires_grad=True)
            taken: dict[int, Relaxation] = dict(relaxed)
            remaining: dict[int, Tensor] = {}
            for index, found in relaxed.items():
                if isinstance(found, CornerLines | CornerMaximum):
                    shape = (rows, *found.upper_at_sample.shape[1:])
                    zeros = found.upper_at_sample.new_zeros(shape, requires_grad=True)
                    remaining[index] = zeros
                    taken[index] = found.collecting(zeros)
            value = evaluate(x, bias, taken)
            lA, lost, *on_upper = torch.autograd.grad(
                value.sum() * sign,
                (x, bias, *remaining.values()),
                create_graph=differentiable,
                materialize_grads=True,
            )
        change = flat(lA) @ flat(self.displacements[corners]).T
        for index, weight in zip(remaining, on_upper, strict=True):
            change = change + flat(weight) @ self.increases[index][corners].T
        return (sign * value.detach() + lost)[:, None] + change


def _over_all(bounds: Bounds) -> Bounds:
    """Bound values over the whole ball, (1, ...), from bounds at its corners (V, ...)."""
    return Bounds(bounds.lower.amin(0, keepdim=True), bounds.upper.amax(0, keepdim=True))


def _between(lines: Lines, bounds: Bounds) -> Bounds:
    """Bound values that lie between two lines, from bounds of the lines' input."""

    def least(slope: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return slope.clamp_min(0) * low + slope.clamp_max(0) * high

    return Bounds(
        least(lines.lower_slope, bounds.lower, bounds.upper) + lines.lower_offset,
        least(lines.upper_slope, bounds.upper, bounds.lower) + lines.upper_offset,
    )
