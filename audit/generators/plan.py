"""Training plan of a generator: the model under attack, training samples, held-out set, options."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attackers.wagan.networks import SMALLEST_IMAGE, Spec
from audit.data import Dataset, check_labels
from audit.errors import ModelError, NothingToEvaluate, UsageError
from audit.evidence.chance import TRIAL_SAMPLES
from audit.evidence.samples import Samples, choose, evaluate, read_samples
from audit.generators.epochs import steps_per_epoch
from audit.generators.held_out import LARGEST_HELD_OUT_SHARE, split_held_out
from audit.models.classifier import Classifier, Load
from audit.options import TrainConfig


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that the training of a generator needs, read and checked.

    Attributes:
        classifier: model under attack.
        dataset: source of the samples.
        config: options.
        x: (N, C, H, W) training samples, on the CPU.
        labels: (N,) int64.
        held_out: samples that the judge evaluates after every epoch.
    """

    classifier: Classifier
    dataset: Dataset
    config: TrainConfig
    x: Tensor
    labels: Tensor
    held_out: Samples

    @property
    def steps_per_epoch(self) -> int:
        """Number of training steps per epoch."""
        return steps_per_epoch(len(self.x), self.config.batch)

    @property
    def spec(self) -> Spec:
        """Architecture of the generator."""
        channels, height, width = self.x.shape[1:]
        config = self.config
        return Spec(config.chosen_head, channels, height, width, config.low, config.high)


def plan_training(dataset: Dataset, config: TrainConfig, load: Load) -> TrainingPlan:
    """Read the samples, load the model, and set the held-out set aside.

    Raises:
        AuditError: the data or the model is unsuitable, or the model has no gradients.
    """
    index = choose(len(dataset), config.samples, config.seed)
    if len(dataset.shape) != 3 or min(dataset.shape[1:]) < SMALLEST_IMAGE:
        raise UsageError(
            f"A generator needs images of at least {SMALLEST_IMAGE}×{SMALLEST_IMAGE} pixels, but "
            f"the data has samples of shape {dataset.shape}."
        )
    kept, used = split_held_out(index, config.seed)
    if not len(kept):
        raise NothingToEvaluate(
            f"{len(index)} samples are too few to train on: at least "
            f"{math.ceil(1 / LARGEST_HELD_OUT_SHARE)} are needed, and thousands are usual."
        )
    x_held_out = read_samples(dataset, kept)
    classifier = load(x_held_out[:TRIAL_SAMPLES], int(np.max(dataset.labels)) + 1)
    check_labels(dataset, classifier.classes)
    if classifier.white_box is None:
        raise ModelError(
            f"{classifier.source.path} has no gradients to train a generator with: train the "
            "generator against a model that has gradients, and scan this one with "
            "`--attack wagan --generator FILE`."
        )
    labels = torch.from_numpy(np.asarray(dataset.labels).astype(np.int64))
    held_out = evaluate(classifier, x_held_out, labels[kept], kept, config.seed)
    if not bool(held_out.correct.any()):
        raise NothingToEvaluate(
            f"{classifier.source.path} classifies none of {len(held_out)} samples correctly: there "
            "is nothing to attack. Check that --mean, --std and --layout fit the model."
        )
    return TrainingPlan(
        classifier, dataset, config, read_samples(dataset, used), labels[used], held_out
    )
