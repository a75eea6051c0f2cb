"""Certificates of single samples, collected into those of a whole scan."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from audit.certify.envelope import LossBounds
from audit.statistics.value import Envelope


@dataclass(frozen=True)
class Certificates:
    """Certificates of some samples.

    Attributes:
        rows: (R,) int64 rows of the samples.
        radius: (R,) float64 certified radii.
        loss: bounds of the loss, if they were requested.
        error: error that stopped the certificates; empty if there was none.
    """

    rows: Tensor
    radius: Tensor
    loss: LossBounds | None
    error: str = ""


@dataclass
class Collected:
    """Results of all samples so far.

    Attributes:
        radius: (N,) float64, 0 where nothing is certified.
        losses: bounds of the loss around all samples.
        errors: errors that stopped the certificates of single samples.
    """

    radius: Tensor
    losses: LossBounds
    errors: list[str] = field(default_factory=list)

    @classmethod
    def empty(cls, samples: int, levels: int) -> "Collected":
        """Return an empty collection for this many samples and radii of the envelope."""
        radius = torch.zeros(samples, dtype=torch.float64)
        clean, everywhere = torch.zeros_like(radius), torch.zeros_like(radius)
        return cls(radius, LossBounds(clean, radius.new_zeros(samples, levels), everywhere))

    def add(self, found: Certificates) -> None:
        """Store the result of some samples."""
        self.radius[found.rows] = found.radius
        if found.error:
            self.errors.append(found.error)
        if found.loss is not None:
            for whole, part in zip(
                vars(self.losses).values(), vars(found.loss).values(), strict=True
            ):
                whole[found.rows] = part

    def envelope(self, levels: Tensor) -> Envelope | None:
        """Return the bounds of the loss, or None if any sample has none."""
        if self.errors or not len(levels):
            return None
        losses = self.losses
        return Envelope(
            levels.numpy(), losses.clean.numpy(), losses.within.numpy(), losses.everywhere.numpy()
        )
