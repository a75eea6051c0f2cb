"""Training plan of a hardening: the model, samples, loss, validation and hyperparameters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from audit.generators.epochs import steps_per_epoch
from audit.generators.resuming import RunIdentity
from audit.hardening.adversaries import TrainingLoss
from audit.hardening.config import PEAK_LEARNING_RATE
from audit.hardening.trainable import Trainable
from audit.options import HardenConfig

EpochRecord = dict[str, Any]
"""Measurements of one epoch, as JSON values."""


@dataclass(frozen=True)
class Hyperparameters:
    """Length and speed of training.

    Attributes:
        epochs: number of passes over the data.
        batch: images per step.
        rate: peak learning rate of Adam.
        schedule: a name of `audit.hardening.schedules.SCHEDULES`.
        average: decay of the running mean of the weights.
        seed: seed of the order of samples and of the adversary.
        seconds: time limit, or None.
    """

    epochs: int
    batch: int
    rate: float
    schedule: str
    average: float
    seed: int
    seconds: float | None = None

    @classmethod
    def of(cls, config: HardenConfig) -> "Hyperparameters":
        """Take the hyperparameters from the options."""
        return cls(
            epochs=config.epochs,
            batch=config.batch,
            rate=config.rate or PEAK_LEARNING_RATE,
            schedule=config.schedule,
            average=config.average,
            seed=config.seed,
            seconds=config.seconds,
        )


class TrainedAdversary(Protocol):
    """Adversary that is trained between the epochs of the model."""

    def refresh(self, epoch: int) -> None:
        """Train until the steps that are due before an epoch are done; idempotent."""

    def tensors(self) -> dict[str, Tensor]:
        """Return its training state by name."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Continue from a training state."""


@dataclass(frozen=True)
class HardeningPlan:
    """Inputs of the training loop.

    Attributes:
        model: model whose weights are trained.
        x: (N, ...) training samples, on the CPU.
        labels: (N,) int64.
        loss: training loss.
        hyperparameters: length and speed.
        validate: measures ``clean``, ``attacked``, ``evaluation`` and ``accepted`` with the
            weights that the model has when it is called.
        identity: properties that a checkpoint must share to be resumed.
        adversary: an adversary that is trained along with the model, or None.
    """

    model: Trainable
    x: Tensor
    labels: Tensor
    loss: TrainingLoss
    hyperparameters: Hyperparameters
    validate: Callable[[], EpochRecord]
    identity: RunIdentity
    adversary: TrainedAdversary | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Number of training steps per epoch."""
        return steps_per_epoch(len(self.x), self.hyperparameters.batch)

    @property
    def steps(self) -> int:
        """Number of training steps in total."""
        return self.hyperparameters.epochs * self.steps_per_epoch
