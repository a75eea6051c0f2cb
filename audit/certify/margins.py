"""Linear lower bounds of the margins f_y(x) - f_k(x) around samples."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from audit.certify.layers import Bounds
from audit.certify.network import Network

RADIUS_BISECTIONS = 40
"""Number of bisections of the radius up to which linear bounds stay positive; after 40 the interval
is 1e-12 of the radius, which is less than the certificate is rounded down by."""


@dataclass(frozen=True)
class Hints:
    """Results at other radii.

    Attributes:
        intermediate: bounds of each layer's input, by index, that hold in a ball at least as large.
        slopes: lower slopes that were good at another radius, by index of the layer.
    """

    intermediate: Mapping[int, Bounds] = field(default_factory=dict)
    slopes: Mapping[int, Tensor] = field(default_factory=dict)


NO_HINTS = Hints()
"""The hints before any radius has been tried."""


@dataclass(frozen=True)
class Margins:
    """Linear functions below f_y - f_k that hold in balls of a radius and in all smaller balls.

    Attributes:
        radius: (B,) float64 radii of the balls.
        at_sample: (B, K - 1) values of the functions at the samples.
        decrease: returns their largest decrease (B, K - 1) within radii (B,) float64.
        intermediate: bounds of each layer's input, by index.
        slopes: lower slopes of the relaxations behind the functions, by index of the layer.
    """

    radius: Tensor
    at_sample: Tensor
    decrease: Callable[[Tensor], Tensor]
    intermediate: Mapping[int, Bounds]
    slopes: Mapping[int, Tensor]

    def at(self, radius: Tensor) -> Tensor:
        """Return the minima (B, K - 1) of the functions in balls of radii ``(B,)`` float64."""
        return self.at_sample - self.decrease(radius)

    def least(self) -> Tensor:
        """Return the smallest margin in each ball, ``(B,)``."""
        return self.at(self.radius).amin(1)

    def positive_radius(self, cap: Tensor, needed: Tensor | float = 0.0) -> Tensor:
        """Return the radius (B,) float64 up to which every margin exceeds ``needed``.

        Beyond `radius` the result is an extrapolation and proves nothing.

        Args:
            cap: (B,) float64, the largest radius that is returned.
            needed: number or (B,) that the margins have to exceed; the radius is 0 for a sample at
                which they do not exceed it.
        """

        def holds(radius: Tensor) -> Tensor:
            return (self.at(radius).amin(1) > needed).to(torch.bool)

        low, high = torch.zeros_like(cap), cap
        low = torch.where(holds(cap), cap, low)
        for _ in range(RADIUS_BISECTIONS):
            middle = (low + high) / 2
            inside = holds(middle)
            low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
        return low


class Prover(Protocol):
    """A method that bounds the margins of one network in one metric."""

    network: Network

    def margins(
        self, x0: Tensor, labels: Tensor, radius: Tensor, hints: Hints = NO_HINTS
    ) -> Margins:
        """Bound the margins over balls around samples (B, ...), with labels and radii (B,)."""


def rivals_of(labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """List all other classes of each sample.

    Args:
        labels: (B,) int64.
        classes: number K of classes.

    Returns:
        The class and the sample of every row, ``(B·(K - 1),)`` int64 each.
    """
    others = torch.arange(classes - 1, device=labels.device).expand(len(labels), -1)
    rivals = others + (others >= labels[:, None])
    sample_of = torch.arange(len(labels), device=labels.device).repeat_interleave(classes - 1)
    return rivals.reshape(-1), sample_of
