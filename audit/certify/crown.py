"""CROWN: lower bounds of margins by linear bound propagation, in every metric.

Whether a sample keeps its class within a radius is decided by lower bounds of its margins
f_y(x) - f_k(x). A margin is propagated backwards to a linear function of the input that lies below
it everywhere in the ball (Zhang, Weng, Chen, Hsieh, Daniel 2018; `audit.certify.relaxation`), and

    min over the ball of A·(x - x0) = -radius · ||A||_*

by the metric's dual norm; in linf the box takes part, coordinate by coordinate. The bounds of what
enters each nonlinear operation are found the same way, layer by layer: those of the first layer
exactly, for all samples by one matrix; those of later ones by interval arithmetic, and by backward
propagation where that leaves it open on which side of a bend a value lies.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attackers.geometry import Linf, Metric
from attackers.rows import flat, over
from audit.certify.affine import ROWS, Maps
from audit.certify.intervals import Interval
from audit.certify.margins import NOTHING, Hints, Margins, Relaxations, slopes_of, tuned
from audit.certify.network import Bounds, Network
from audit.certify.relaxation import dot

Chosen = Callable[[Tensor, Tensor, Relaxations, Tensor], "Linear"]
"""The value of each of some rows (R,), of (samples, gap, relaxations, rows)."""


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
        tuning: gradients that look for the best slopes of the margins.
        maps: affine maps between layers.
    """

    network: Network
    metric: Metric
    backwards: bool = True
    tuning: int = 0
    maps: Maps = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is mapped yet."""
        self.maps = Maps(self.network, self.metric)

    def margins(
        self, x0: Tensor, labels: Tensor, radius: Tensor, hints: Hints = NOTHING
    ) -> Margins:
        """Lower bounds of f_y - f_k over the balls.

        Args:
            x0: (B, ...) centres, in the network's dtype.
            labels: (B,) int64.
            radius: (B,) float64.
            hints: what is known from other radii.
        """
        known: dict[int, Bounds] = {}
        relaxed: Relaxations = {}
        for place, layer in self.network.layers.items():
            known[place] = self._entering(place, x0, radius, known, relaxed, hints.within)
            relaxed = {**relaxed, place: layer.relax(known[place])}

        def bounded(relaxed: Relaxations) -> Margins:
            return self._last(x0, labels, radius, known, relaxed)

        best = tuned(bounded, relaxed, hints.slopes, self.tuning)
        with torch.no_grad():
            return bounded(best)

    def _last(
        self,
        x0: Tensor,
        labels: Tensor,
        radius: Tensor,
        known: Mapping[int, Bounds],
        relaxed: Relaxations,
    ) -> Margins:
        rivals, owner = rivals_of(labels, self.network.classes)

        def margin(x: Tensor, gap: Tensor, taken: Relaxations, rows: Tensor) -> Linear:
            out = self.network.run(x, gap, taken)
            own = out.gather(1, labels[owner[rows], None])
            return Linear.of((own - out.gather(1, rivals[rows, None]))[:, 0])

        found = [
            self._linear(x0, relaxed, owner, rows, margin, both=False)
            for rows in torch.arange(len(owner), device=x0.device).split(ROWS)
        ]
        centre = torch.cat([values for ((values, _),) in found]).reshape(len(x0), -1)
        coefficients = torch.cat([slopes for ((_, slopes),) in found])
        return Margins(
            radius, centre, self._falling(x0, coefficients, owner), known, slopes_of(relaxed)
        )

    def _falling(
        self, x0: Tensor, coefficients: Tensor, owner: Tensor
    ) -> Callable[[Tensor], Tensor]:
        """How far linear functions of the samples may fall within radii."""
        if isinstance(self.metric, Linf):

            def fall(radius: Tensor) -> Tensor:
                least = self._least(x0, coefficients, radius, owner)
                return -least.reshape(len(x0), -1)

            return fall
        dual = self.metric.dual_norm(x0[owner], coefficients).reshape(len(x0), -1)
        return lambda radius: (radius[:, None] * dual).to(x0)

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
        chosen = self._chosen(x0, relaxed, place, samples, values)
        lows: list[Tensor] = []
        highs: list[Tensor] = []
        with torch.no_grad():
            for rows in torch.arange(len(samples), device=x0.device).split(ROWS):
                below, above = self._linear(x0, relaxed, samples, rows, chosen, both=True)
                for (centre, coefficients), sign, ends in (
                    (below, 1.0, lows),
                    (above, -1.0, highs),
                ):
                    least = self._least(x0, coefficients, radius, samples[rows])
                    ends.append((centre + least) * sign)
        return torch.cat(lows), torch.cat(highs)

    def _chosen(
        self, x0: Tensor, relaxed: Relaxations, place: int, samples: Tensor, values: Tensor
    ) -> Chosen:
        """Values that enter a layer, through the map into it where that is kept."""
        segment = self.maps.segment(place, x0[:1], sorted(relaxed))
        if segment is None or not segment.before:

            def value(x: Tensor, gap: Tensor, taken: Relaxations, rows: Tensor) -> Linear:
                out = flat(self.network.run(x, gap, taken, place))
                return Linear.of(out.gather(1, values[rows, None])[:, 0])

            return value
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

        return combined

    def _linear(
        self,
        x0: Tensor,
        relaxed: Relaxations,
        owner: Tensor,
        rows: Tensor,
        chosen: Chosen,
        *,
        both: bool,
    ) -> list[tuple[Tensor, Tensor]]:
        """Linear functions of the samples below chosen values, and below minus them where asked.

        Args:
            x0: (B, ...) centres.
            relaxed: relaxations of the layers before.
            owner: (N,) int64, the sample of every row.
            rows: (R,) int64, those that are asked for.
            chosen: their values.
            both: whether functions below minus the values are asked for too.

        Returns:
            Values at the samples (R,) and coefficients (R, ...), for each sign.
        """
        mine, learns = owner[rows], torch.is_grad_enabled()
        with torch.enable_grad():
            x = x0[mine].requires_grad_()
            gap = x0.new_zeros(len(mine), requires_grad=True)
            # Of a single sample the relaxations serve all rows as they are.
            taken = (
                relaxed
                if len(x0) == 1
                else {place: found.take(mine) for place, found in relaxed.items()}
            )
            value = chosen(x, gap, taken, rows)
        found = []
        for sign in (1.0, -1.0)[: 1 + both]:
            coefficients, lost = torch.autograd.grad(
                value.outputs,
                (x, gap),
                [sign * weight for weight in value.weights],
                retain_graph=both or learns,
                create_graph=learns,
                materialize_grads=True,
            )
            if value.direct is not None:
                coefficients = coefficients + sign * value.direct
            found.append((sign * value.centre + lost, coefficients))
        return found

    def _least(self, x0: Tensor, coefficients: Tensor, radius: Tensor, owner: Tensor) -> Tensor:
        """The least A·(x - x0) over ball and box, ``(R,)``, of rows that belong to samples."""
        if isinstance(self.metric, Linf):
            down, up = self._room(x0, radius)
            if len(x0) > 1:
                down, up = down[owner], up[owner]
            # A positive coefficient falls with its value, a negative one as its value rises.
            return dot(coefficients, up) - dot(coefficients.clamp_min(0), down + up)
        return -(radius[owner] * self.metric.dual_norm(x0[owner], coefficients)).to(x0)

    def _room(self, x0: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        """How far each value may fall and rise inside the box, in a ball that is linf's."""
        r = over(radius.to(x0), x0)
        return (
            torch.minimum(r, x0 - self.metric.low).clamp_min(0),
            torch.minimum(r, self.metric.high - x0).clamp_min(0),
        )

    def _first_bounds(self, place: int, x0: Tensor, radius: Tensor) -> Bounds:
        first = self.maps.first(place, x0[:1])
        with torch.no_grad():
            centre = self.network.run(x0, until=place)
            if isinstance(self.metric, Linf):
                down, up = self._room(x0, radius)
                positive, negative = first.positive.T, first.negative.T
                fall = flat(down) @ positive - flat(up) @ negative
                rise = flat(up) @ positive - flat(down) @ negative
            else:
                scale = radius * self.metric.extent(x0)
                fall = rise = (scale[:, None] * first.dual).to(x0)
            shape = centre.shape
            return Bounds(centre - fall.reshape(shape), centre + rise.reshape(shape))

    def _by_intervals(
        self, place: int, x0: Tensor, radius: Tensor, known: Mapping[int, Bounds]
    ) -> Bounds:
        # No value moves farther than the norm of the change: the distance times the extent.
        down, up = self._room(x0, radius * self.metric.extent(x0))
        with torch.no_grad():
            intervals = Interval(self.network, x0 + (up - down) / 2, (up + down) / 2)
            return intervals.walk(lambda p, _: self.network.layers[p].image(known[p]), place)


def rivals_of(labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """For each sample all other classes: the class and the sample of every row, ``(B·(K-1),)``."""
    others = torch.arange(classes - 1, device=labels.device).expand(len(labels), -1)
    rivals = others + (others >= labels[:, None])
    owner = torch.arange(len(labels), device=labels.device).repeat_interleave(classes - 1)
    return rivals.reshape(-1), owner
