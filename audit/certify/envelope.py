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
    """Upper bounds of the cross-entropy of some samples, float64.

    Attributes:
        clean: (B,) bounds at the samples.
        within: (B, K) bounds in the balls of the radii.
        everywhere: (B,) bounds in the whole box.
    """

    clean: Tensor
    within: Tensor
    everywhere: Tensor


@dataclass
class Enveloper:
    """Bounds of the loss of one network in one metric.

    Attributes:
        exact: prover of a float64 network.
        metric: metric of the balls.
        budgets: (D,) float64, ascending.
        radii: (K,) float64 radii of the envelope, ascending; they include the budgets.
        wide: prover for the whole box.
    """

    exact: Prover
    metric: Metric
    budgets: Tensor
    radii: Tensor
    wide: Crown = field(init=False)

    def __post_init__(self) -> None:
        """Make a prover of the whole box that uses intervals only, as no bound is tight there."""
        self.wide = Crown(self.exact.network, self.metric, backwards=False)

    def bounds(self, x: Tensor, labels: Tensor, proven: Margins) -> LossBounds:
        """Bound the loss around samples.

        The linear functions that proved a radius hold in all smaller balls. New bounds are computed
        for the first budget beyond it; in larger balls the bound of the whole box is used.

        Args:
            x: (B, ...) float64 samples.
            labels: (B,) int64.
            proven: margins in the certified balls.
        """
        with torch.no_grad():
            scores = self.exact.network.run(x)
            clean = torch.nn.functional.cross_entropy(scores, labels, reduction="none")
        in_the_box = self.wide.margins(x, labels, self.metric.diameter(x).double())
        everywhere = cross_entropy_bound(in_the_box.at(in_the_box.radius))
        within = self._within(proven, everywhere)
        index = torch.searchsorted(self.budgets, proven.radius, right=True)
        beyond = self.budgets[index.clamp_max(len(self.budgets) - 1)]
        if bool((beyond > proven.radius).any()):
            farther = self.exact.margins(x, labels, beyond, Hints(slopes=proven.slopes))
            within = torch.minimum(within, self._within(farther, everywhere))
        return LossBounds(clean, torch.maximum(within, clean[:, None]), everywhere)

    def _within(self, proven: Margins, everywhere: Tensor) -> Tensor:
        """Bound the loss (B, K) at every radius; beyond the proven one by ``everywhere``."""
        levels = []
        for radius in self.radii:
            inside = proven.at(torch.minimum(radius, proven.radius))
            holds = radius <= proven.radius
            levels.append(torch.where(holds, cross_entropy_bound(inside), everywhere))
        return torch.stack(levels, dim=1)
