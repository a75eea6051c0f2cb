"""Upper bounds of the cross-entropy around samples, from lower bounds of their margins."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from attackers.geometry import Metric
from audit.certify.crown import Crown
from audit.certify.margins import Hints, Margins, Prover
from audit.statistics.value import cross_entropy_bound


@dataclass(frozen=True)
class LossBounds:
    """Upper bounds of some samples' cross-entropy, float64.

    Attributes:
        clean: (B,) at the samples.
        within: (B, K) in the balls of the radii.
        everywhere: (B,) in the whole box.
    """

    clean: Tensor
    within: Tensor
    everywhere: Tensor


@dataclass
class Enveloper:
    """What bounds the loss of one network, in one metric.

    Attributes:
        exact: the prover of a float64 network.
        metric: of the balls.
        budgets: (D,) float64, ascending.
        radii: (K,) float64 of the envelope, ascending; the budgets are among them.
        wide: bounds in the whole box.
    """

    exact: Prover
    metric: Metric
    budgets: Tensor
    radii: Tensor
    wide: Crown = field(init=False)

    def __post_init__(self) -> None:
        """Intervals do for the whole box, where nothing is tight."""
        self.wide = Crown(self.exact.network, self.metric, backwards=False)

    def bounds(self, x: Tensor, labels: Tensor, proven: Margins) -> LossBounds:
        """Bound the loss of samples (B, ...) in float64.

        The linear functions that proved a radius serve all smaller ones. The first budget beyond is
        bounded anew; in larger balls nothing better is known than in the whole box.
        """
        with torch.no_grad():
            scores = self.exact.network.run(x)
            clean = torch.nn.functional.cross_entropy(scores, labels, reduction="none")
        everywhere = cross_entropy_bound(_least(self.wide, x, labels, self.metric.diameter(x)))
        within = self._within(proven, everywhere)
        place = torch.searchsorted(self.budgets, proven.radius, right=True)
        beyond = self.budgets[place.clamp_max(len(self.budgets) - 1)]
        if bool((beyond > proven.radius).any()):
            farther = self.exact.margins(x, labels, beyond, Hints(slopes=proven.slopes))
            within = torch.minimum(within, self._within(farther, everywhere))
        return LossBounds(clean, torch.maximum(within, clean[:, None]), everywhere)

    def _within(self, proven: Margins, everywhere: Tensor) -> Tensor:
        levels = []
        for radius in self.radii:
            inside = proven.at(torch.minimum(radius, proven.radius))
            holds = radius <= proven.radius
            levels.append(torch.where(holds, cross_entropy_bound(inside), everywhere))
        return torch.stack(levels, dim=1)


def _least(prover: Prover, x: Tensor, labels: Tensor, radius: Tensor) -> Tensor:
    found = prover.margins(x, labels, radius.double())
    return found.at(found.radius)
