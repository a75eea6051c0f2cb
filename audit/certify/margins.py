"""Linear lower bounds of the margins f_y(x) - f_k(x) around samples."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from audit.certify.layers import Bounds
from audit.certify.network import Network

RADIUS_BISECTIONS = 40
"""Bisections of the radius up to which linear bounds stay positive; after 40 the interval is 1e-12
of the radius, below what the certificate is rounded down by."""


@dataclass(frozen=True)
class Hints:
    """What is known from other radii.

    Attributes:
        intermediate: bounds of what enters each layer, by index, that hold in a ball at least as
            large.
        slopes: lower slopes that were good there, by index of the layer.
    """

    intermediate: Mapping[int, Bounds] = field(default_factory=dict)
    slopes: Mapping[int, Tensor] = field(default_factory=dict)


NO_HINTS = Hints()
"""The hints before any radius was tried."""


@dataclass(frozen=True)
class Margins:
    """Linear functions below f_y - f_k that hold in balls of a radius, and so in smaller ones.

    Attributes:
        radius: (B,) float64 of the balls.
        at_sample: (B, K - 1) their values at the samples.
        decrease: how far they decrease at most, (B, K - 1), within radii (B,) float64.
        intermediate: bounds of what enters each layer, by index.
        slopes: lower slopes of the relaxations they were made with, by index of the layer.
    """

    radius: Tensor
    at_sample: Tensor
    decrease: Callable[[Tensor], Tensor]
    intermediate: Mapping[int, Bounds]
    slopes: Mapping[int, Tensor]

    def at(self, radius: Tensor) -> Tensor:
        """Return their minima (B, K - 1) in balls of this radius ``(B,)`` float64."""
        return self.at_sample - self.decrease(radius)

    def least(self) -> Tensor:
        """Return the smallest margin in each ball, ``(B,)``."""
        return self.at(self.radius).amin(1)

    def positive_radius(self, cap: Tensor, needed: Tensor | float = 0.0) -> Tensor:
        """Return the radius (B,) float64 up to which every margin exceeds ``needed``.

        Beyond `radius` the result is an extrapolation, and proves nothing.

        Args:
            cap: (B,) float64, the largest radius that is returned.
            needed: number or (B,) that the margins have to exceed; the radius is 0 where they do
                not exceed it at the sample.
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
    """Method that bounds the margins of one network in one metric."""

    network: Network

    def margins(
        self, x0: Tensor, labels: Tensor, radius: Tensor, hints: Hints = NO_HINTS
    ) -> Margins:
        """Bound the margins over the balls around samples (B, ...), of labels and radii (B,)."""


def rivals_of(labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """List all other classes of each sample.

    Args:
        labels: (B,) int64.
        classes: K.

    Returns:
        The class and the sample of every row, ``(B·(K - 1),)`` int64 each.
    """
    others = torch.arange(classes - 1, device=labels.device).expand(len(labels), -1)
    rivals = others + (others >= labels[:, None])
    sample_of = torch.arange(len(labels), device=labels.device).repeat_interleave(classes - 1)
    return rivals.reshape(-1), sample_of
