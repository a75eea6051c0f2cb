"""CROWN: lower bounds of margins by linear bound propagation, in every metric.

A sample provably keeps its class within a radius where lower bounds of its margins f_y(x) - f_k(x)
are positive. A margin is propagated backwards to a linear function of the input that lies below it
everywhere in the ball (`audit.certify.backward`), which is then concretised by the metric's dual
norm (`audit.certify.concretise`). The inputs of nonlinear operations are bounded layer by layer:
those of the first layer exactly, by one matrix for all samples; those of later layers by interval
arithmetic, and by backward propagation for their unstable neurons.

Source: Zhang, Weng, Chen, Hsieh, Daniel 2018.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attackers.geometry import Metric
from attackers.rows import flat
from audit.certify.affine import ROWS_PER_PASS, Maps
from audit.certify.backward import (
    Evaluate,
    backward_bounds,
    entering_values,
    margin_values,
    segment_values,
)
from audit.certify.concretise import box_room, decrease_of, first_layer_changes, minima
from audit.certify.intervals import IntervalPropagation
from audit.certify.layers import Bounds
from audit.certify.margins import NO_HINTS, Hints, Margins, rivals_of
from audit.certify.network import Network, Relaxations
from audit.certify.slopes import slopes_of, tuned


@dataclass
class Crown:
    """Linear bounds of one network in one metric.

    Attributes:
        network: network in float32 or float64.
        metric: metric of the balls.
        backwards: whether unstable neurons of later layers are bounded by backward propagation.
        tuning: number of gradient steps that optimise the slopes of the margins.
        maps: affine maps between layers.
    """

    network: Network
    metric: Metric
    backwards: bool = True
    tuning: int = 0
    maps: Maps = field(init=False)

    def __post_init__(self) -> None:
        """Prepare the maps, without computing any."""
        self.maps = Maps(self.network, self.metric)

    def margins(
        self, x0: Tensor, labels: Tensor, radius: Tensor, hints: Hints = NO_HINTS
    ) -> Margins:
        """Bound f_y - f_k from below over the balls.

        Args:
            x0: (B, ...) centres, in the network's dtype.
            labels: (B,) int64.
            radius: (B,) float64.
            hints: results at other radii.

        Raises:
            UnsupportedOperator: the first layer is too large.
        """
        intermediate: dict[int, Bounds] = {}
        relaxed: Relaxations = {}
        for index, layer in self.network.layers.items():
            found = self._entering(index, x0, radius, intermediate)
            found = _intersection(found, hints.intermediate.get(index) if intermediate else None)
            if intermediate:
                found = self._tightened(index, x0, radius, relaxed, found)
            intermediate[index] = found
            relaxed = {**relaxed, index: layer.relax(found)}

        def bounded(relaxed: Relaxations) -> Margins:
            lA, at_sample, sample_of = self._linear_margins(x0, labels, relaxed)
            decrease = decrease_of(self.metric, x0, lA, sample_of)
            return Margins(radius, at_sample, decrease, intermediate, slopes_of(relaxed))

        best = tuned(bounded, relaxed, hints.slopes, self.tuning)
        with torch.no_grad():
            return bounded(best)

    def _linear_margins(
        self, x0: Tensor, labels: Tensor, relaxed: Relaxations
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return lA (B·(K - 1), ...), values at the samples (B, K - 1), and each row's sample."""
        rivals, sample_of = rivals_of(labels, self.network.classes)
        evaluate = margin_values(self.network, labels[sample_of], rivals)
        bounds = [
            bound
            for rows in torch.arange(len(sample_of), device=x0.device).split(ROWS_PER_PASS)
            for bound in backward_bounds(x0, relaxed, sample_of, evaluate, rows)
        ]
        at_sample = torch.cat([bound.value for bound in bounds]).reshape(len(x0), -1)
        return torch.cat([bound.lA for bound in bounds]), at_sample, sample_of

    def _entering(
        self, index: int, x0: Tensor, radius: Tensor, intermediate: Mapping[int, Bounds]
    ) -> Bounds:
        """Bound a layer's input: exactly for the first, by interval arithmetic for later ones."""
        if intermediate:
            return self._by_intervals(index, x0, radius, intermediate)
        first = self.maps.first(index, x0[:1])
        with torch.no_grad():
            centre = self.network.run(x0, until=index)
            decrease, increase = first_layer_changes(self.metric, first, x0, radius)
            shape = centre.shape
            return Bounds(centre - decrease.reshape(shape), centre + increase.reshape(shape))

    def _by_intervals(
        self, index: int, x0: Tensor, radius: Tensor, intermediate: Mapping[int, Bounds]
    ) -> Bounds:
        # No value changes by more than the norm of the change, the distance times the extent.
        down, up = box_room(self.metric, x0, radius * self.metric.extent(x0))
        with torch.no_grad():
            intervals = IntervalPropagation(self.network, x0 + (up - down) / 2, (up + down) / 2)
            return intervals.bounds(
                lambda layer, _: self.network.layers[layer].image(intermediate[layer]), index
            )

    def _tightened(
        self, index: int, x0: Tensor, radius: Tensor, relaxed: Relaxations, bounds: Bounds
    ) -> Bounds:
        """Bound the unstable neurons of a later layer backwards."""
        layer = self.network.layers[index]
        if not self.backwards or (layer.windows is not None and self._follows_a_layer(index)):
            return bounds
        samples, neurons = flat(layer.unstable(bounds)).nonzero(as_tuple=True)
        if not len(samples):
            return bounds
        lower, upper = self._backward(x0, radius, relaxed, index, samples, neurons)
        lowers, uppers = flat(bounds.lower).clone(), flat(bounds.upper).clone()
        lowers[samples, neurons] = torch.maximum(lowers[samples, neurons], lower)
        uppers[samples, neurons] = torch.minimum(uppers[samples, neurons], upper)
        shape = bounds.lower.shape
        return Bounds(lowers.reshape(shape), uppers.reshape(shape))

    def _follows_a_layer(self, index: int) -> bool:
        """Return whether the input is another layer's output, where intervals are as tight."""
        source = self.network.layers[index].step.inputs[0]
        return any(source in layer.step.outputs for layer in self.network.layers.values())

    def _backward(
        self,
        x0: Tensor,
        radius: Tensor,
        relaxed: Relaxations,
        index: int,
        samples: Tensor,
        neurons: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return lower and upper bounds (N,) of a layer's input neurons (N,) of samples (N,)."""
        evaluate = self._evaluate(x0, relaxed, index, samples, neurons)
        lower: list[Tensor] = []
        upper: list[Tensor] = []
        with torch.no_grad():
            for rows in torch.arange(len(samples), device=x0.device).split(ROWS_PER_PASS):
                both = backward_bounds(x0, relaxed, samples, evaluate, rows, signs=(1.0, -1.0))
                for bound, sign, ends in zip(both, (1.0, -1.0), (lower, upper), strict=True):
                    least = minima(self.metric, x0, bound.lA, radius, samples[rows])
                    ends.append((bound.value + least) * sign)
        return torch.cat(lower), torch.cat(upper)

    def _evaluate(
        self, x0: Tensor, relaxed: Relaxations, index: int, samples: Tensor, neurons: Tensor
    ) -> Evaluate:
        """Return a function that evaluates neurons, by the map into the layer if it is kept."""
        segment = self.maps.segment(index, x0[:1], sorted(relaxed))
        if segment is None or not segment.before:
            return entering_values(self.network, index, neurons)
        with torch.no_grad():
            at_sample = flat(self.network.run(x0, until=index))[samples, neurons]
        return segment_values(self.network, segment, neurons, at_sample)


def _intersection(bounds: Bounds, others: Bounds | None) -> Bounds:
    """Return the tighter of two bounds of each value, or ``bounds`` if ``others`` is None."""
    if others is None:
        return bounds
    return Bounds(
        torch.maximum(bounds.lower, others.lower), torch.minimum(bounds.upper, others.upper)
    )
