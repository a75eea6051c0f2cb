"""The bookkeeping of an attack's batch: best iterates, and samples that leave once broken.

A sample that is broken costs nothing any more: it lands, and the batch shrinks. Asking which have
landed makes a GPU wait, so there it is asked at a few steps only; a sample that is broken between
two of them keeps the iterate that broke it.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from attackers.random_streams import SampleGenerator
from attackers.rows import over, row_max, row_sum


@dataclass(frozen=True)
class Flight:
    """The samples that are still attacked.

    Attributes:
        rows: (B,) int64, their places in the whole batch.
        labels: (B,) int64.
        best: (B, ...) the first misclassified iterate, or else the one to return.
        top: (B,) its loss, where the largest is kept.
        broken: (B,) bool.
    """

    rows: Tensor
    labels: Tensor
    best: Tensor
    top: Tensor
    broken: Tensor

    @classmethod
    def of(cls, x: Tensor, labels: Tensor) -> Self:
        """All samples, none seen yet."""
        return cls(
            rows=torch.arange(len(x), device=x.device),
            labels=labels,
            best=x,
            top=x.new_full((len(x),), -torch.inf),
            broken=torch.zeros(len(x), dtype=torch.bool, device=x.device),
        )

    def passed(self, x: Tensor, broken: Tensor) -> Self:
        """Keep the iterate, unless an earlier one was misclassified; ``broken``: (B,) bool."""
        if x.device.type == "cpu":
            # Broken samples land at once, so every one here was correct until now.
            return replace(self, best=x, broken=broken)
        best = torch.where(over(self.broken, x), self.best, x)
        return replace(self, best=best, broken=self.broken | broken)

    def seen(self, x: Tensor, value: Tensor, broken: Tensor) -> Self:
        """Keep what is better than before; ``value``: (B,) loss, ``broken``: (B,) bool."""
        better = ~self.broken & (broken | (value > self.top))
        return replace(
            self,
            best=torch.where(over(better, x), x, self.best),
            top=torch.where(better, value, self.top),
            broken=self.broken | broken,
        )

    def land(self, result: Tensor) -> Tensor | None:
        """Write out broken samples; who flies on, ``(K,)`` int64, or None where all do."""
        if not bool(self.broken.any()):
            return None
        result[self.rows[self.broken]] = self.best[self.broken]
        return (~self.broken).nonzero()[:, 0]

    def take(self, keep: Tensor) -> Self:
        """The flight of some samples."""
        return replace(
            self,
            rows=self.rows[keep],
            labels=self.labels[keep],
            best=self.best[keep],
            top=self.top[keep],
            broken=self.broken[keep],
        )

    def write(self, result: Tensor) -> None:
        """Write out everything that is left."""
        result[self.rows] = self.best


def asks(x: Tensor, step: int) -> bool:
    """Whether a loop may look at its data at this step: always, but on a GPU every eighth step."""
    return x.device.type == "cpu" or step % 8 == 0


def usable(grad: Tensor, generator: SampleGenerator, rows: Tensor, step: int) -> Tensor:
    """Replace gradients that are not finite by zeros, and all-zero ones by random directions.

    A dead unit or a plateau gives no direction at all, and any is better than none.

    Args:
        grad: (B, ...) gradients.
        generator: of the whole batch.
        rows: (B,) places in the whole batch.
        step: tells the random directions of different steps apart.
    """
    size = row_sum(grad.abs())
    if bool((size.isfinite() & (size > 0)).all()):
        return grad
    grad = grad.nan_to_num()
    stuck = (row_max(grad.abs()) == 0).nonzero()[:, 0]
    if not len(stuck):
        return grad
    streams = generator.take(rows[stuck]).fold(f"stuck {step}")
    return grad.index_put((stuck,), streams.normal(grad[stuck]))
