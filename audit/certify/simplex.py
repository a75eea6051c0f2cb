"""Lower bounds of margins in balls that are the convex hull of few corners: l1 and wasserstein.

Linear bounds by dual norms let every value of a layer attain its own worst point of the ball, but
no single point is the worst for many values: mass that moves to one pixel cannot move to another.
Listing the corners v of a ball avoids this. Its points are mixtures x0 + Σ λ_v·v with λ >= 0,
Σ λ <= 1, and bounds are kept as linear functions of λ, by their values L(v) <= z <= U(v) at the
corners. Affine maps take corners to corners; and because a ReLU (leaky ReLU, maximum) is convex,

    a(Σ λ_v z_v)  <=  Σ λ_v a(U(v)),        a(z) >= slope·z,

so the upper bound is exact at every corner at which the bound of z is exact, and it is loose only
for values that change sign between the sample and that corner.

Margins are then propagated backwards as in CROWN: positive coefficients take slope·z, and negative
ones of unstable neurons remain on U.

Source: Behl, Kumar, Torr, Dvijotham 2021.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from attackers.geometry import Metric
from audit.certify.corners import Corners
from audit.certify.margins import NO_HINTS, Hints, Margins
from audit.certify.network import Network, Relaxations
from audit.certify.slopes import slopes_of, tuned
from audit.errors import UnsupportedOperator

TUNED_CORNERS = 256
"""Number of corners at which slopes are optimised: those with the smallest margins. A larger number
costs time in every gradient; the final bounds use all corners."""

MAX_CORNER_VALUES = 2**27
"""Largest number of values at corners that are kept over all layers: 512 MiB in float32, 1 GiB in
float64."""


@dataclass
class Simplex:
    """Bounds of one network in one metric, for one sample at a time.

    Attributes:
        network: network in float32 or float64.
        metric: metric whose balls have corners.
        tuning: number of gradient steps that optimise the slopes of the margins.
    """

    network: Network
    metric: Metric
    tuning: int = 0

    def margins(
        self, x0: Tensor, labels: Tensor, radius: Tensor, hints: Hints = NO_HINTS
    ) -> Margins:
        """Bound f_y - f_k from below over the ball around one sample.

        Args:
            x0: (1, ...) centre, in the network's dtype.
            labels: (1,) int64.
            radius: (1,) float64.
            hints: slopes from other radii.

        Raises:
            UnsupportedOperator: the ball has too many corners.
        """
        unit = self.metric.corners(x0, 1.0)
        if unit is None:
            raise UnsupportedOperator(f"balls in {self.metric.name} have too many corners")
        if not corners_fit(self.network, len(unit)):
            raise UnsupportedOperator(
                f"a ball with {len(unit):,} corners needs too much memory for this network"
            )
        if not bool(radius > 0):
            return self._linear_part(x0, labels, radius, unit)
        displacements = torch.cat([torch.zeros_like(x0), (radius * unit.double()).to(x0)])
        with torch.no_grad():
            found = Corners(self.network, x0, displacements)
            found.propagate()

        def bounded(relaxed: Relaxations, corners: Tensor) -> Margins:
            values = found.margins(labels, relaxed, corners)
            lost = (values[:, :1] - values).amax(1)[None]

            def decrease(r: Tensor) -> Tensor:
                return (r / radius)[:, None].to(lost) * lost

            return Margins(
                radius, values[:, 0][None], decrease, found.intermediate, slopes_of(relaxed)
            )

        every = torch.arange(len(displacements), device=x0.device)
        with torch.no_grad():
            least = found.margins(labels, found.relaxed, every).amin(0)
            least[0] = -torch.inf  # the sample itself comes first
            worst = least.argsort()[:TUNED_CORNERS]
        best = tuned(lambda r: bounded(r, worst), found.relaxed, hints.slopes, self.tuning)
        with torch.no_grad():
            return bounded(best, every)

    def _linear_part(self, x0: Tensor, labels: Tensor, radius: Tensor, unit: Tensor) -> Margins:
        """Return the bounds of a ball of radius 0: the network's linear part at the sample."""
        with torch.no_grad():
            found = Corners(self.network, x0, torch.zeros_like(x0))
            found.propagate()
            found.displacements = torch.cat([torch.zeros_like(x0), unit])
            count = len(found.displacements)
            found.increases = {p: rise.expand(count, -1) for p, rise in found.increases.items()}
            every = torch.arange(count, device=x0.device)
            values = found.margins(labels, found.relaxed, every)
        lost = (values[:, :1] - values).amax(1)[None]
        return Margins(
            radius, values[:, 0][None], lambda r: r[:, None].to(lost) * lost, found.intermediate, {}
        )


def corners_fit(network: Network, corners: int) -> bool:
    """Return whether a network's values at this number of corners can be kept in memory."""
    values = sum(prod(network.shapes[layer.step.outputs[0]]) for layer in network.layers.values())
    return values * corners <= MAX_CORNER_VALUES
