"""Linear lower bounds of margins around samples: how far they reach, and their best slopes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from audit.certify.network import Bounds, Network, Relaxation
from audit.certify.relaxation import Lines

Relaxations = Mapping[int, Relaxation]
"""The relaxation of layers, by place."""

BISECTIONS = 40
"""Of the radius up to which linear bounds stay positive."""

RATE = 0.25
"""The first step of slopes, which lie between 0 and 1; it falls to a tenth."""


@dataclass(frozen=True)
class Hints:
    """What is known from other radii.

    Attributes:
        within: bounds of what enters each layer that hold in a ball at least as large.
        slopes: lower slopes that were good there, by layer.
    """

    within: Mapping[int, Bounds] = field(default_factory=dict)
    slopes: Mapping[int, Tensor] = field(default_factory=dict)


NOTHING = Hints()
"""Nothing is known yet."""


@dataclass(frozen=True)
class Margins:
    """Linear functions below f_y - f_k in balls of some radius, so in smaller ones too.

    Attributes:
        radius: (B,) float64 of the balls.
        centre: (B, K - 1) their values at the samples.
        fall: how far they fall at most, (B, K - 1), within radii (B,) float64.
        entering: bounds of what enters each layer, by place.
        slopes: lower slopes of the lines that they were made with, by place.
    """

    radius: Tensor
    centre: Tensor
    fall: Callable[[Tensor], Tensor]
    entering: Mapping[int, Bounds]
    slopes: Mapping[int, Tensor]

    def at(self, radius: Tensor) -> Tensor:
        """Their least values (B, K - 1) in balls of this radius ``(B,)``."""
        return self.centre - self.fall(radius)

    def least(self) -> Tensor:
        """The least margin in each ball, ``(B,)``."""
        return self.at(self.radius).amin(1)

    def reach(self, cap: Tensor, needed: Tensor | float = 0.0) -> Tensor:
        """The radius (B,) up to ``cap`` below which all exceed ``needed`` (B,); 0 where none is.

        Beyond `radius` that is an extrapolation, and proves nothing.
        """

        def holds(radius: Tensor) -> Tensor:
            return (self.at(radius).amin(1) > needed).to(torch.bool)

        low, high = torch.zeros_like(cap), cap
        low = torch.where(holds(cap), cap, low)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            inside = holds(middle)
            low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
        return low


class Prover(Protocol):
    """What bounds the margins of one network in one metric."""

    network: Network

    def margins(
        self, x0: Tensor, labels: Tensor, radius: Tensor, hints: Hints = NOTHING
    ) -> Margins:
        """Lower bounds over the balls around samples (B, ...), of labels and radii (B,)."""


def tuned(
    margins: Callable[[Relaxations], Margins],
    relaxed: Relaxations,
    slopes: Mapping[int, Tensor],
    steps: int,
) -> Relaxations:
    """Relaxations with the lower slopes that make the least margin largest.

    Every slope between the two of a bend gives a lower bound; Adam looks for good ones, sample by
    sample, and the best that it meets are kept.

    Args:
        margins: of relaxations, differentiable by their slopes.
        relaxed: where to begin.
        slopes: where to begin instead, for layers that have an entry.
        steps: gradients; 0 evaluates nothing, and takes ``slopes`` as they are.

    Source: Xu, Zhang, Wang, Wang, Jana, Lin, Hsieh 2021 (alpha-CROWN), for the margins alone: the
    bounds of what enters the layers stay.
    """
    start = {
        place: found.sloped(slopes[place]) if place in slopes else found
        for place, found in relaxed.items()
        if isinstance(found, Lines) and found.free is not None and bool(found.free.any())
    }
    if not steps or not start:
        return {**relaxed, **start}
    best = {place: found.lower_slope for place, found in start.items()}
    most: Tensor | None = None
    moved = [found.lower_slope.clone().requires_grad_() for found in start.values()]
    optimiser = torch.optim.Adam(moved, lr=RATE)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.1 ** (1 / steps))
    for step in range(steps + 1):
        with torch.enable_grad():
            now = {
                place: found.sloped(slope)
                for (place, found), slope in zip(start.items(), moved, strict=True)
            }
            least = margins({**relaxed, **now}).least()
        better = torch.ones_like(least, dtype=torch.bool) if most is None else least > most
        most = least.detach() if most is None else torch.maximum(most, least.detach())
        for (place, old), slope in zip(best.items(), moved, strict=True):
            mask = better.reshape(-1, *[1] * (slope.dim() - 1))
            best[place] = torch.where(mask, slope.detach(), old)
        if step == steps:
            break
        grads = torch.autograd.grad(-least.sum(), moved, allow_unused=True)
        for slope, grad in zip(moved, grads, strict=True):
            # A norm has no gradient where it is 0.
            slope.grad = None if grad is None else grad.nan_to_num()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            for found, slope in zip(start.values(), moved, strict=True):
                slope.clamp_(found.flattest, 1.0)
    return {**relaxed, **{place: start[place].sloped(slope) for place, slope in best.items()}}


def slopes_of(relaxed: Relaxations) -> dict[int, Tensor]:
    """The lower slopes of relaxations that are free to have others."""
    return {
        place: found.lower_slope
        for place, found in relaxed.items()
        if isinstance(found, Lines) and found.free is not None
    }
