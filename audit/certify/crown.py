"""CROWN: certified radii by linear bound propagation, in every metric from one implementation.

Whether a sample keeps its class within a radius is decided by lower bounds of its margins
f_y(x) - f_k(x). A margin is propagated backwards to a linear function of the input that lies below
it everywhere in the ball (Zhang, Weng, Chen, Hsieh, Daniel 2018; `audit.certify.relaxation`), and

    min over the ball of A·(x - x0) = -radius · ||A||_*

by the metric's dual norm; in linf the box takes part, coordinate by coordinate. The bounds of what
enters each nonlinear operation are found the same way, layer by layer: those of the first layer
exactly, for all samples by one matrix; those of later ones by interval arithmetic, and by backward
propagation where that leaves it open on which side of a bend a value lies.

The search for the radius runs in float32, never beyond the radius at which the sample is known to
break; what it finds is checked in float64, with a margin for rounding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from attackers.geometry import Linf, Metric
from attackers.rows import flat, over
from audit.certify.network import Bounds, Interval, Network, Relaxation
from audit.errors import UnsupportedOperator

Relaxations = Mapping[int, Relaxation]
"""The relaxation of layers, by place."""

FIRST = 0.35
"""The radius that is tried first, in units of the least that is known to fail."""

STEPS = 6
"""Radii that are tried."""

EDGE = 0.05
"""How near to an end of its bracket the next radius may lie, in units of the bracket."""

ROWS = 256
"""Linear functions that are propagated together."""

DENSE = 2**26
"""The most entries of the first layer's matrix."""

MARGIN = 1e-6
"""What a margin has to exceed in float64, in units of the largest score."""

RETRIES = (1.0, 1 - 1e-4, 0.99, 0.9)
"""Shares of the float32 radius that are checked in float64, until one holds."""


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
class Linear:
    """One value per row, as a linear function of what is differentiated.

    Attributes:
        centre: (R,) the values at the samples.
        outputs, weights: (R, ...) each; the value is the sum of their products, but for a constant.
        direct: (R, ...) coefficients of the samples themselves, or None.
    """

    centre: Tensor
    outputs: list[Tensor]
    weights: list[Tensor]
    direct: Tensor | None = None

    @classmethod
    def of(cls, value: Tensor) -> "Linear":
        """The values as they were computed."""
        return cls(value.detach(), [value], [torch.ones_like(value)])


@dataclass
class Crown:
    """Bounds of one network in one metric.

    Attributes:
        network: in float32 or float64.
        metric: of the balls.
        backwards: whether what enters later layers is bounded backwards where that helps.
        first: the first layer's matrix, made when it is first needed.
        segments: those of later layers; None where they are too large to be kept.
    """

    network: Network
    metric: Metric
    backwards: bool = True
    first: FirstLayer | None = field(default=None)
    segments: dict[int, Segment | None] = field(default_factory=dict)

    def margins(
        self,
        x0: Tensor,
        labels: Tensor,
        radius: Tensor,
        within: Mapping[int, Bounds] | None = None,
    ) -> tuple[Tensor, dict[int, Bounds]]:
        """Lower bounds of f_y - f_k over the balls.

        Args:
            x0: (B, ...) centres, in the network's dtype.
            labels: (B,) int64.
            radius: (B,) float64.
            within: bounds that hold in balls at least as large, by layer.

        Returns:
            (B, K - 1) lower bounds, and the bounds of what enters each layer.
        """
        known: dict[int, Bounds] = {}
        relaxed: dict[int, Relaxation] = {}
        for place, layer in self.network.layers.items():
            known[place] = self._entering(place, x0, radius, known, relaxed, within or {})
            relaxed[place] = layer.relax(known[place])
        scores = self.network.classes
        others = torch.arange(scores - 1, device=x0.device).expand(len(x0), -1)
        rivals = others + (others >= labels[:, None])
        owner = torch.arange(len(x0), device=x0.device).repeat_interleave(scores - 1)

        def margin(x: Tensor, gap: Tensor, taken: Relaxations, rows: Tensor) -> Linear:
            out = self.network.run(x, gap, taken)
            own = out.gather(1, labels[owner[rows], None])
            return Linear.of((own - out.gather(1, rivals.reshape(-1)[rows, None]))[:, 0])

        low, _ = self._propagated(x0, radius, relaxed, owner, margin, both=False)
        return low.reshape(len(x0), -1), known

    def _entering(
        self,
        place: int,
        x0: Tensor,
        radius: Tensor,
        known: Mapping[int, Bounds],
        relaxed: Relaxations,
        within: Mapping[int, Bounds],
    ) -> Bounds:
        if not known:
            return self._first_bounds(place, x0, radius)
        bounds = self._by_intervals(place, x0, radius, known)
        if place in within:
            wider = within[place]
            bounds = Bounds(
                torch.maximum(bounds.low, wider.low), torch.minimum(bounds.high, wider.high)
            )
        layer = self.network.layers[place]
        if not self.backwards or (layer.spread is not None and self._follows_a_layer(place)):
            return bounds
        samples, values = flat(layer.loose(bounds)).nonzero(as_tuple=True)
        if not len(samples):
            return bounds

        low, high = self._bounded(x0, radius, relaxed, place, samples, values)
        lows, highs = flat(bounds.low).clone(), flat(bounds.high).clone()
        lows[samples, values] = torch.maximum(lows[samples, values], low)
        highs[samples, values] = torch.minimum(highs[samples, values], high)
        shape = bounds.low.shape
        return Bounds(lows.reshape(shape), highs.reshape(shape))

    def _follows_a_layer(self, place: int) -> bool:
        """Whether what enters is what another layer gives: then intervals are as tight."""
        source = self.network.layers[place].step.inputs[0]
        return any(source in layer.step.outputs for layer in self.network.layers.values())

    def _bounded(
        self,
        x0: Tensor,
        radius: Tensor,
        relaxed: Relaxations,
        place: int,
        samples: Tensor,
        values: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Bounds (R,) of chosen values that enter a layer, each of a sample."""
        segment = self._segment(place, x0[:1], sorted(relaxed))
        if segment is None or not segment.before:

            def value(x: Tensor, gap: Tensor, taken: Relaxations, rows: Tensor) -> Linear:
                out = flat(self.network.run(x, gap, taken, place))
                return Linear.of(out.gather(1, values[rows, None])[:, 0])

            return self._propagated(x0, radius, relaxed, samples, value, both=True)
        with torch.no_grad():
            centre = flat(self.network.run(x0, until=place))[samples, values]

        def combined(x: Tensor, gap: Tensor, taken: Relaxations, rows: Tensor) -> Linear:
            given = self.network.outputs(x, gap, taken, list(segment.before))
            chosen = values[rows]
            weights = [
                matrix[chosen].reshape(out.shape)
                for matrix, out in zip(segment.before.values(), given, strict=True)
            ]
            direct = None if segment.direct is None else segment.direct[chosen].reshape(x.shape)
            return Linear(centre[rows], given, weights, direct)

        return self._propagated(x0, radius, relaxed, samples, combined, both=True)

    def _segment(self, place: int, sample: Tensor, earlier: list[int]) -> Segment | None:
        """The affine map into a layer, by differentiating it; kept, as it is the same for all."""
        if place not in self.segments:
            self.segments[place] = self._made(place, sample, earlier)
        return self.segments[place]

    def _made(self, place: int, sample: Tensor, earlier: list[int]) -> Segment | None:
        network = self.network
        gives = {p: network.shapes[network.steps[p].outputs[0]][1:] for p in earlier}
        values = prod(network.shapes[network.layers[place].step.inputs[0]])
        if values * max(sample.numel(), *map(prod, gives.values())) > DENSE // 4:
            return None
        before: dict[int, list[Tensor]] = {p: [] for p in earlier}
        direct: list[Tensor] = []
        for places in torch.arange(values, device=sample.device).split(ROWS):
            with torch.enable_grad():
                x = sample.expand(len(places), *sample.shape[1:]).clone().requires_grad_()
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

    def _propagated(
        self,
        x0: Tensor,
        radius: Tensor,
        relaxed: Relaxations,
        owner: Tensor,
        chosen: Callable[[Tensor, Tensor, Relaxations, Tensor], Linear],
        *,
        both: bool,
    ) -> tuple[Tensor, Tensor]:
        """Bound one chosen value per row from below, and from above where both are asked.

        Args:
            x0: (B, ...) centres.
            radius: (B,) float64.
            relaxed: relaxations of the layers before.
            owner: (R,) int64, the sample of each row.
            chosen: the value of each of some rows, of (samples, gap, relaxations, rows).
            both: whether the upper bounds are needed.
        """
        lows: list[Tensor] = []
        highs: list[Tensor] = []
        for rows in torch.arange(len(owner), device=x0.device).split(ROWS):
            mine = owner[rows]
            with torch.enable_grad():
                x = x0[mine].requires_grad_()
                gap = x0.new_zeros(len(mine), requires_grad=True)
                taken = {place: found.take(mine) for place, found in relaxed.items()}
                value = chosen(x, gap, taken, rows)
            for sign, found in ((1.0, lows), (-1.0, highs))[: 1 + both]:
                coefficients, lost = torch.autograd.grad(
                    value.outputs,
                    (x, gap),
                    [sign * weight for weight in value.weights],
                    retain_graph=both,
                    materialize_grads=True,
                )
                if value.direct is not None:
                    coefficients = coefficients + sign * value.direct
                least = self._least(x0[mine], coefficients, radius[mine])
                found.append((sign * value.centre + lost + least) * sign)
        low = torch.cat(lows)
        return low, torch.cat(highs) if both else low

    def _least(self, x0: Tensor, coefficients: Tensor, radius: Tensor) -> Tensor:
        """The least A·(x - x0) over ball and box, ``(R,)``."""
        if isinstance(self.metric, Linf):
            down, up = self._room(x0, radius)
            positive, negative = coefficients.clamp_min(0), coefficients.clamp_max(0)
            return flat(negative * up - positive * down).sum(1)
        return -(radius * self.metric.dual_norm(x0, coefficients)).to(x0)

    def _room(self, x0: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        """How far each value may fall and rise inside the box, in a ball that is linf's."""
        r = over(radius.to(x0), x0)
        return (
            torch.minimum(r, x0 - self.metric.low).clamp_min(0),
            torch.minimum(r, self.metric.high - x0).clamp_min(0),
        )

    def _first_bounds(self, place: int, x0: Tensor, radius: Tensor) -> Bounds:
        if self.first is None:
            self.first = self._first_layer(place, x0[:1])
        with torch.no_grad():
            centre = self.network.run(x0, until=place)
            if isinstance(self.metric, Linf):
                down, up = self._room(x0, radius)
                positive, negative = self.first.positive.T, self.first.negative.T
                fall = flat(down) @ positive - flat(up) @ negative
                rise = flat(up) @ positive - flat(down) @ negative
            else:
                scale = radius * self.metric.extent(x0)
                fall = rise = (scale[:, None] * self.first.dual).to(x0)
            shape = centre.shape
            return Bounds(centre - fall.reshape(shape), centre + rise.reshape(shape))

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
                x = sample.expand(len(places), *sample.shape[1:]).clone().requires_grad_()
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

    def _by_intervals(
        self, place: int, x0: Tensor, radius: Tensor, known: Mapping[int, Bounds]
    ) -> Bounds:
        # No value moves farther than the norm of the change: the distance times the extent.
        down, up = self._room(x0, radius * self.metric.extent(x0))
        centre, reach = x0 + (up - down) / 2, (up + down) / 2
        with torch.no_grad():
            return Interval(self.network, centre, reach, known).at(place)


def certified_radii(
    crown: Crown,
    x0: Tensor,
    labels: Tensor,
    limit: Tensor,
    *,
    steps: int = STEPS,
) -> Tensor:
    """The largest radii found at which every margin is positive.

    Args:
        crown: a float32 network and its metric.
        x0: (B, ...) float32 correctly classified samples.
        labels: (B,) int64.
        limit: (B,) float64 beyond which nothing can be certified: where the sample breaks.
        steps: radii that are tried.

    Returns:
        (B,) float64, rounded down; 0 where nothing was certified.
    """
    low, high = torch.zeros_like(limit), limit.clone()
    with torch.no_grad():
        scores = crown.network.run(x0)
    at_low = _clean_margin(scores, labels).double()
    at_high = torch.full_like(at_low, -torch.inf)
    within: dict[int, Bounds] = {}
    for _ in range(steps):
        # The margin falls almost linearly with the radius: where both ends are known, interpolate.
        share = (at_low / (at_low - at_high)).clamp(EDGE, 1 - EDGE)
        first = torch.where(low > 0, (low * high).sqrt(), FIRST * high)
        radius = torch.where(at_high.isfinite(), low + share * (high - low), first)
        margins, bounds = crown.margins(x0, labels, radius, within)
        least = margins.amin(1).double()
        holds = least > 0
        # An end that stays is trusted less, so that both close in (Illinois rule).
        at_low = torch.where(holds, least, at_low / 2)
        at_high = torch.where(holds, at_high / 2, least)
        low, high = torch.where(holds, radius, low), torch.where(holds, high, radius)
        # What was found in the larger ball holds in every smaller one.
        within = _replaced(within, bounds, ~holds)
    return low


def checked(
    exact: Crown,
    x0: Tensor,
    labels: Tensor,
    radius: Tensor,
    *,
    margin: float = MARGIN,
    shares: Sequence[float] = RETRIES,
) -> Tensor:
    """The radii that float64 confirms, each at one of a few shares, ``(B,)`` float64.

    Args:
        exact: a float64 network and its metric.
        x0: (B, ...) samples.
        labels: (B,) int64.
        radius: (B,) float64, what the search found.
        margin: what every margin has to exceed, in units of the largest score.
        shares: of the radius that are tried in turn, until one holds.
    """
    x, confirmed = x0.double(), torch.zeros_like(radius)
    with torch.no_grad():
        needed = margin * exact.network.run(x).abs().amax(1).clamp_min(1)
    for share in shares:
        rows = ((confirmed == 0) & (radius > 0)).nonzero()[:, 0]
        if not len(rows):
            break
        tried = share * radius[rows]
        margins, _ = exact.margins(x[rows], labels[rows], tried)
        holds = (margins > needed[rows, None]).all(1)
        confirmed[rows] = torch.where(holds, tried, 0.0)
    return confirmed


def _clean_margin(scores: Tensor, labels: Tensor) -> Tensor:
    """Score of the label less the largest other one, ``(B,)``."""
    own = scores.gather(1, labels[:, None])[:, 0]
    return own - scores.scatter(1, labels[:, None], -torch.inf).amax(1)


def _replaced(
    old: Mapping[int, Bounds], new: Mapping[int, Bounds], rows: Tensor
) -> dict[int, Bounds]:
    """The new bounds of the given samples; of the others the old ones, or none."""
    merged = {}
    for place, bounds in new.items():
        if place in old:
            low, high = old[place].low, old[place].high
        else:
            low = torch.full_like(bounds.low, -torch.inf)
            high = torch.full_like(bounds.high, torch.inf)
        mask = over(rows, bounds.low)
        merged[place] = Bounds(
            torch.where(mask, bounds.low, low), torch.where(mask, bounds.high, high)
        )
    return merged
