"""The nearest confirmed adversarial example of every sample, under one metric."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from audit.evidence.judge import Judgement
from audit.evidence.samples import Samples
from audit.runtime.storage import copy


@dataclass
class Frontier:
    """Attacked radii; they never increase, and only examples that the judge confirmed change them.

    Attributes:
        radius: (N,) float64, 0 where the clean sample is misclassified, ``inf`` where no example
            is known.
        x: (N, ...) the example at that radius, or the sample itself where no example is known.
        prediction: (N,) int64, the served model's prediction on ``x``.
        attack: (N) name of the attack that found the example; empty where no attack was needed or
            none succeeded.
    """

    radius: Tensor
    x: Tensor
    prediction: Tensor
    attack: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, samples: Samples) -> "Frontier":
        """Return the frontier of samples that have not been attacked yet."""
        radius = torch.where(samples.correct, torch.inf, 0.0).double()
        return cls(radius, copy(samples.x), samples.prediction.clone(), [""] * len(samples))

    @property
    def broken(self) -> Tensor:
        """(N,) bool: a confirmed example exists; misclassified clean samples are not counted."""
        return self.radius.isfinite() & (self.radius > 0)

    def offer(self, rows: Tensor, judgement: Judgement, attack: str) -> None:
        """Keep the examples that are nearer than the known ones.

        Args:
            rows: (B,) int64 rows of the samples that were judged.
            judgement: the result of the judge for these samples.
            attack: name of the attack that proposed the candidates.
        """
        nearer = judgement.distance < self.radius[rows]
        chosen = rows[nearer]
        self.radius[chosen] = judgement.distance[nearer]
        self.x[chosen] = judgement.x[nearer]
        self.prediction[chosen] = judgement.prediction[nearer]
        for row in chosen.tolist():
            self.attack[row] = attack
