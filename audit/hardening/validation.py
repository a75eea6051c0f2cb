"""Validation of a model in training: accuracies after every epoch, used to compare epochs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attackers.losses import cross_entropy, misclassified
from audit.hardening.adversaries import Pgd
from audit.hardening.config import threats_of
from audit.hardening.plan import EpochRecord
from audit.hardening.trainable import Trainable
from audit.options import HardenConfig

VALIDATION_STEPS = 20
"""Number of gradients of the attack that validates an epoch.

It is stronger than the inner attack of training, so that an epoch that overfits to that attack is
not preferred; the time after every epoch grows in proportion.
"""

VALIDATION_BATCH = 128
"""Number of samples evaluated together; random numbers of the attack are keyed by the batch."""


@dataclass(frozen=True)
class Labelled:
    """Samples ``x`` (N, ...) with their ``labels`` (N,) int64, on the CPU."""

    x: Tensor
    labels: Tensor

    def batches(self) -> "list[Labelled]":
        """Split into batches of `VALIDATION_BATCH`."""
        parts = zip(
            self.x.split(VALIDATION_BATCH), self.labels.split(VALIDATION_BATCH), strict=True
        )
        return [Labelled(x, labels) for x, labels in parts]


@dataclass(frozen=True)
class Validation:
    """Measurement of the model with its current weights.

    Attributes:
        model: model in training.
        config: threats, seed and the smallest accepted clean accuracy.
        held_out: held-out samples of the training data.
        evaluation: samples of the evaluation data.
    """

    model: Trainable
    config: HardenConfig
    held_out: Labelled
    evaluation: Labelled

    def __call__(self) -> EpochRecord:
        """Return ``clean`` and mean ``attacked`` accuracy on the held-out set, and evaluation."""
        evaluation = self._clean(self.evaluation)
        attacked = [
            self._attacked(Pgd(metric, radius, VALIDATION_STEPS, cross_entropy))
            for metric, radius in threats_of(self.config)
        ]
        return {
            "clean": self._clean(self.held_out),
            "attacked": sum(attacked) / len(attacked),
            "evaluation": evaluation,
            "accepted": evaluation >= self.config.min_clean,
        }

    def _clean(self, samples: Labelled) -> float:
        return _share([self._correct(batch.x, batch.labels) for batch in samples.batches()])

    def _attacked(self, attack: Pgd) -> float:
        found = []
        for number, batch in enumerate(self.held_out.batches()):
            random = torch.Generator().manual_seed(self.config.seed + number)
            x0, labels = batch.x.to(self.model.device), batch.labels.to(self.model.device)
            x = attack(self.model.logits, x0, labels, random)
            found.append(self._correct(x, labels) & self._correct(x0, labels))
        return _share(found)

    @torch.no_grad()
    def _correct(self, x: Tensor, labels: Tensor) -> Tensor:
        device = self.model.device
        return ~misclassified(self.model.logits(x.to(device)), labels.to(device)).cpu()


def _share(found: list[Tensor]) -> float:
    return float(torch.cat(found).double().mean())
