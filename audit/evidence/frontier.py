"""The nearest confirmed adversarial example of every sample, under one metric."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from audit.evidence.judge import Judgement
from audit.evidence.samples import Samples
from audit.runtime.storage import copy


@dataclass
class Frontier:
    """Attacked radii; it only ever improves, and only by what the judge has confirmed.

    Attributes:
        radius: (N,) float64, 0 where misclassified from the start, ``inf`` where nothing is known.
        x: (N, ...) the example at that radius, the sample itself where there is none.
        prediction: (N,) int64, what the served model says of ``x``.
        attack: (N) name of the attack that found it, empty where none was needed or found.
    """

    radius: Tensor
    x: Tensor
    prediction: Tensor
    attack: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, samples: Samples) -> "Frontier":
        """Nothing attacked yet."""
        radius = torch.where(samples.correct, torch.inf, 0.0).double()
        return cls(radius, copy(samples.x), samples.prediction.clone(), [""] * len(samples))

    @property
    def broken(self) -> Tensor:
        """(N,) bool: a confirmed example exists (samples wrong from the start not counted)."""
        return self.radius.isfinite() & (self.radius > 0)

    def offer(self, rows: Tensor, judgement: Judgement, attack: str) -> None:
        """Take over what is nearer than before; ``rows``: (B,) int64 of the judgement's samples."""
        nearer = judgement.distance < self.radius[rows]
        chosen = rows[nearer]
        self.radius[chosen] = judgement.distance[nearer]
        self.x[chosen] = judgement.x[nearer]
        self.prediction[chosen] = judgement.prediction[nearer]
        for row in chosen.tolist():
            self.attack[row] = attack
