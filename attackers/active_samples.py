"""Samples that an attack still works on, with their best iterates.

A misclassified sample leaves the batch, so that it costs nothing more. Finding out which samples
are misclassified makes a GPU synchronise, so a GPU does it at a few steps only; a sample that is
fooled in between keeps the iterate that fooled it.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from attackers.random_streams import SampleGenerator
from attackers.rows import over, row_max, row_sum


@dataclass(frozen=True)
class ActiveSamples:
    """Samples that are still attacked.

    Attributes:
        rows: (B,) int64, their indices in the whole batch.
        labels: (B,) int64.
        best: (B, ...) the first misclassified iterate, or else the iterate to return.
        best_loss: (B,) largest loss so far, only updated by `keep_best`.
        fooled: (B,) bool, True once an iterate was misclassified.
    """

    rows: Tensor
    labels: Tensor
    best: Tensor
    best_loss: Tensor
    fooled: Tensor

    @classmethod
    def of(cls, x: Tensor, labels: Tensor) -> Self:
        """Start with all samples, none evaluated."""
        return cls(
            rows=torch.arange(len(x), device=x.device),
            labels=labels,
            best=x,
            best_loss=x.new_full((len(x),), -torch.inf),
            fooled=torch.zeros(len(x), dtype=torch.bool, device=x.device),
        )

    def keep_latest(self, x: Tensor, fooled: Tensor) -> Self:
        """Keep the iterate unless an earlier one was misclassified; ``fooled``: (B,) bool."""
        if x.device.type == "cpu":
            # On a CPU fooled samples leave at once, so every sample here was correct until now.
            return replace(self, best=x, fooled=fooled)
        best = torch.where(over(self.fooled, x), self.best, x)
        return replace(self, best=best, fooled=self.fooled | fooled)

    def keep_best(self, x: Tensor, value: Tensor, fooled: Tensor) -> Self:
        """Keep the iterate where it is better; ``value``: (B,) loss, ``fooled``: (B,) bool."""
        better = ~self.fooled & (fooled | (value > self.best_loss))
        return replace(
            self,
            best=torch.where(over(better, x), x, self.best),
            best_loss=torch.where(better, value, self.best_loss),
            fooled=self.fooled | fooled,
        )

    def write_fooled(self, result: Tensor) -> Tensor | None:
        """Write fooled samples to ``result``; return the other indices, None where all remain."""
        if not bool(self.fooled.any()):
            return None
        result[self.rows[self.fooled]] = self.best[self.fooled]
        return (~self.fooled).nonzero()[:, 0]

    def take(self, keep: Tensor) -> Self:
        """Select some samples."""
        return replace(
            self,
            rows=self.rows[keep],
            labels=self.labels[keep],
            best=self.best[keep],
            best_loss=self.best_loss[keep],
            fooled=self.fooled[keep],
        )

    def write_all(self, result: Tensor) -> None:
        """Write the best iterates of all remaining samples to ``result``."""
        result[self.rows] = self.best


def may_synchronise(x: Tensor, step: int) -> bool:
    """Return True if a loop may read values at this step: on a GPU every eighth step."""
    return x.device.type == "cpu" or step % 8 == 0


def usable_gradient(grad: Tensor, generator: SampleGenerator, rows: Tensor, step: int) -> Tensor:
    """Replace gradients that are not finite by zeros, and all-zero ones by random directions.

    A dead unit or a plateau gives no direction, and a random one is better than none.

    Args:
        grad: (B, ...) gradients.
        generator: random streams of the whole batch.
        rows: (B,) indices in the whole batch.
        step: number of the step, which keys the random directions.

    Returns:
        (B, ...) finite gradients in the dtype of ``grad``.
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
