"""Lower bounds of margins in balls that are the convex hull of few corners: l1 and transport.

Linear bounds by norms allow every value of a layer its own worst point of the ball, though no point
is bad for many: mass that arrives at one pixel cannot arrive at another. A ball whose corners v can
be listed keeps that in view (Behl, Kumar, Torr, Dvijotham 2021). Its points are mixtures
x0 + Σ λ_v·v with λ >= 0, Σ λ <= 1, and bounds are kept as linear functions of λ, by their values
L(v) <= z <= U(v) at the corners. Affine maps take corners to corners; and because a ReLU (leaky
ReLU, maximum) is convex,

    a(Σ λ_v z_v)  <=  Σ λ_v a(U(v)),        a(z) >= slope·z,

so the upper bound is exact at every corner at which z is, and what is lost there is only what
changes sign between the sample and that one corner.

Margins are then propagated backwards as in CROWN: positive coefficients take slope·z, and negative
ones of values that may change sign stay where they are, on U.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from attackers.geometry import Metric
from attackers.rows import flat
from audit.certify.crown import rivals_of
from audit.certify.intervals import Interval
from audit.certify.margins import NOTHING, Hints, Margins, Relaxations, slopes_of, tuned
from audit.certify.network import Bounds, Layer, Network, Relaxation
from audit.certify.relaxation import Candidates, CornerLines, CornerMaximum, Lines
from audit.errors import UnsupportedOperator

Chosen = Callable[[Tensor, Tensor, Relaxations], Tensor]
"""The value of every row, of (samples, gap, relaxations)."""

WORST = 256
"""Corners that slopes are tuned at."""

KEPT = 2**27
"""The most values at corners that are kept, over all layers."""

DENSE = 256
"""The most values of a layer that are bounded backwards at every corner."""


@dataclass
class Simplex:
    """Bounds of one network in one metric, of one sample at a time.

    Attributes:
        network: in float32 or float64.
        metric: with corners.
        tuning: gradients that look for the best slopes of the margins.
    """

    network: Network
    metric: Metric
    tuning: int = 0

    def margins(
        self, x0: Tensor, labels: Tensor, radius: Tensor, hints: Hints = NOTHING
    ) -> Margins:
        """Lower bounds of f_y - f_k over the ball around one sample (1, ...).

        Args:
            x0: (1, ...) centre, in the network's dtype.
            labels: (1,) int64.
            radius: (1,) float64.
            hints: slopes from other radii.

        Raises:
            UnsupportedOperator: there are too many corners.
        """
        unit = self.metric.corners(x0, 1.0)
        if unit is None:
            raise UnsupportedOperator(f"balls in {self.metric.name} have too many corners")
        if not fits(self.network, len(unit)):
            raise UnsupportedOperator(
                f"a ball with {len(unit):,} corners is too much for this network"
            )
        if not bool(radius > 0):
            return self._linear_part(x0, labels, radius, unit)
        moves = torch.cat([torch.zeros_like(x0), (radius * unit.double()).to(x0)])
        with torch.no_grad():
            found = Corners(self.network, x0, moves)
            found.propagate()

        def bounded(relaxed: Relaxations, corners: Tensor) -> Margins:
            values = found.margins(labels, relaxed, corners)
            lost = (values[:, :1] - values).amax(1)[None]

            def fall(r: Tensor) -> Tensor:
                return (r / radius)[:, None].to(lost) * lost

            return Margins(radius, values[:, 0][None], fall, found.entering, slopes_of(relaxed))

        every = torch.arange(len(moves), device=x0.device)
        with torch.no_grad():
            least = found.margins(labels, found.relaxed, every).amin(0)
            least[0] = -torch.inf  # the sample itself comes first
            worst = least.argsort()[:WORST]
        best = tuned(lambda r: bounded(r, worst), found.relaxed, hints.slopes, self.tuning)
        with torch.no_grad():
            return bounded(best, every)

    def _linear_part(self, x0: Tensor, labels: Tensor, radius: Tensor, unit: Tensor) -> Margins:
        """The network's own linear part at the sample: the bounds of a ball of radius 0."""
        with torch.no_grad():
            found = Corners(self.network, x0, torch.zeros_like(x0))
            found.propagate()
            found.moves = torch.cat([torch.zeros_like(x0), unit])
            found.rises = {p: rise.expand(len(found.moves), -1) for p, rise in found.rises.items()}
            every = torch.arange(len(found.moves), device=x0.device)
            values = found.margins(labels, found.relaxed, every)
        lost = (values[:, :1] - values).amax(1)[None]
        return Margins(
            radius, values[:, 0][None], lambda r: r[:, None].to(lost) * lost, found.entering, {}
        )


def fits(network: Network, corners: int) -> bool:
    """Whether a network's values at so many corners can be kept."""
    values = sum(prod(network.shapes[layer.step.outputs[0]]) for layer in network.layers.values())
    return values * corners <= KEPT


@dataclass
class Corners:
    """A network's values at the corners of one ball.

    Attributes:
        network: the network.
        x0: (1, ...) the sample.
        moves: (V, ...) the corners as displacements, 0 first.
        relaxed: the relaxation of each layer, by place.
        rises: (V, n) by how much the upper bound of what a layer gives rises from the sample to
            each corner; of layers that are relaxed there.
        entering: bounds of what enters each layer over the whole ball.
    """

    network: Network
    x0: Tensor
    moves: Tensor
    relaxed: dict[int, Relaxation] = field(default_factory=dict)
    rises: dict[int, Tensor] = field(default_factory=dict)
    entering: dict[int, Bounds] = field(default_factory=dict)

    def propagate(self) -> None:
        """Bound every layer at every corner."""
        points = self.x0 + self.moves
        Interval(self.network, points, torch.zeros_like(points)).walk(self._pass)

    def _pass(self, place: int, bounds: Bounds) -> Bounds:
        """Relax a layer; bounds (V, ...) of what enters it to those of what it gives."""
        layer = self.network.layers[place]
        bounds = self._tightened(place, layer, bounds)
        whole = Bounds(bounds.low.amin(0, keepdim=True), bounds.high.amax(0, keepdim=True))
        self.entering[place] = whole
        found = layer.relax(whole)
        if isinstance(found, Candidates):
            return self._maximum(place, layer, found, bounds)
        if found.free is None:
            self.relaxed[place] = found
            return _through(found, bounds)
        return self._kinked(place, layer, found, bounds)

    def _kinked(self, place: int, layer: Layer, lines: Lines, bounds: Bounds) -> Bounds:
        middle = (bounds.low[:1] + bounds.high[:1]) / 2
        # The slope that is exact at the sample.
        flattest = torch.full_like(middle, lines.flattest)
        lines = lines.sloped(torch.where(middle > 0, torch.ones_like(middle), flattest))
        upper = layer.value(bounds.high)
        self.rises[place] = flat(upper - upper[:1])
        self.relaxed[place] = CornerLines.of(lines, upper[:1])
        slope = lines.lower_slope
        return Bounds(slope * bounds.low, upper)

    def _maximum(self, place: int, layer: Layer, found: Candidates, bounds: Bounds) -> Bounds:
        assert layer.spread is not None
        low, high = layer.spread(bounds.low), layer.spread(bounds.high)
        # The best at the sample; any would do.
        best = low[:1].argmax(-1, keepdim=True)
        decided = found.decided & (best == found.best)[..., 0]
        lower = low.gather(-1, best.expand(len(low), *best.shape[1:]))[..., 0]
        own = high.gather(-1, best.expand(len(low), *best.shape[1:]))[..., 0]
        upper = torch.where(decided, own, high.amax(-1))
        self.rises[place] = flat(upper - upper[:1])
        self.relaxed[place] = CornerMaximum(best, upper[:1], decided)
        return Bounds(lower, upper)

    def _tightened(self, place: int, layer: Layer, bounds: Bounds) -> Bounds:
        """Bound backwards what may change sign, where several layers come before."""
        if len(self.relaxed) < 2 or layer.bends is None:
            return bounds
        whole = Bounds(bounds.low.amin(0, keepdim=True), bounds.high.amax(0, keepdim=True))
        values = flat(layer.loose(whole))[0].nonzero()[:, 0]
        if not 0 < len(values) <= DENSE:
            return bounds
        every = torch.arange(len(self.moves), device=self.x0.device)
        low, high = flat(bounds.low).clone(), flat(bounds.high).clone()
        for sign, ends in ((1.0, low), (-1.0, high)):

            def chosen(x: Tensor, gap: Tensor, taken: Relaxations) -> Tensor:
                out = flat(self.network.run(x, gap, taken, place))
                return out.gather(1, values[:, None])[:, 0]

            found = self._values(chosen, len(values), self.relaxed, every, sign) * sign
            better = torch.maximum if sign > 0 else torch.minimum
            ends[:, values] = better(ends[:, values], found.T)
        return Bounds(low.reshape(bounds.low.shape), high.reshape(bounds.high.shape))

    def margins(self, labels: Tensor, relaxed: Relaxations, corners: Tensor) -> Tensor:
        """Lower bounds (K - 1, V) of the margins at some corners ``(V,)``."""
        rivals, _ = rivals_of(labels, self.network.classes)

        def margin(x: Tensor, gap: Tensor, taken: Relaxations) -> Tensor:
            out = self.network.run(x, gap, taken)
            return out[:, int(labels)] - out.gather(1, rivals[:, None])[:, 0]

        return self._values(margin, len(rivals), relaxed, corners, 1.0)

    def _values(
        self,
        chosen: Chosen,
        rows: int,
        relaxed: Relaxations,
        corners: Tensor,
        sign: float,
    ) -> Tensor:
        """Lower bounds (R, V) of sign times chosen values at corners."""
        learns = torch.is_grad_enabled()
        with torch.enable_grad():
            x = self.x0.expand(rows, *self.x0.shape[1:]).clone().requires_grad_()
            gap = x.new_zeros(rows, requires_grad=True)
            taken: dict[int, Relaxation] = dict(relaxed)
            left: dict[int, Tensor] = {}
            for place, found in relaxed.items():
                if isinstance(found, CornerLines | CornerMaximum):
                    shape = (rows, *found.top.shape[1:])
                    left[place] = found.top.new_zeros(shape, requires_grad=True)
                    taken[place] = found.leaving(left[place])
            value = chosen(x, gap, taken)
            coefficients, lost, *above = torch.autograd.grad(
                value.sum() * sign,
                (x, gap, *left.values()),
                create_graph=learns,
                materialize_grads=True,
            )
        moved = flat(coefficients) @ flat(self.moves[corners]).T
        for place, weight in zip(left, above, strict=True):
            moved = moved + flat(weight) @ self.rises[place][corners].T
        return (sign * value.detach() + lost)[:, None] + moved


def _through(lines: Lines, bounds: Bounds) -> Bounds:
    """What lies between two lines, from bounds of what enters."""

    def ends(slope: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return slope.clamp_min(0) * low + slope.clamp_max(0) * high

    return Bounds(
        ends(lines.lower_slope, bounds.low, bounds.high) + lines.lower_offset,
        ends(lines.upper_slope, bounds.high, bounds.low) + lines.upper_offset,
    )
