"""Preparation of a hardening: reads the data, opens the model, and makes the training plan."""

import hashlib
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from audit.data import Dataset, check_labels
from audit.errors import DataError, UsageError
from audit.evidence.chance import TRIAL_SAMPLES
from audit.evidence.samples import choose, read_samples
from audit.generators.generator_files import Trained
from audit.generators.held_out import split_held_out
from audit.generators.resuming import RunIdentity, json_values
from audit.hardening.objective import HardeningObjective
from audit.hardening.plan import HardeningPlan, Hyperparameters
from audit.hardening.request import HardenRequest
from audit.hardening.validation import Labelled, Validation
from audit.hardening.weights import open_trainable
from audit.models.classifier import Classifier

FEWEST_TRAINING_SAMPLES = 100
"""Smallest number of training samples; with fewer, a model only memorises them."""


@dataclass(frozen=True)
class HardeningSession:
    """Model with its data and training plan.

    Attributes:
        classifier: the original model as served.
        train: training data.
        evaluation: evaluation data.
        plan: training plan.
        warnings: sentences on the data, for the report.
    """

    classifier: Classifier
    train: Dataset
    evaluation: Dataset
    plan: HardeningPlan
    warnings: tuple[str, ...]


def prepare_hardening(
    request: HardenRequest, train: Dataset, evaluation: Dataset, generator: Trained | None
) -> HardeningSession:
    """Read the data, open the model for training, and make the training plan.

    Args:
        request: model and options.
        train: training data.
        evaluation: evaluation data, on which ``min_clean`` is required.
        generator: fixed generator for ``wagan``, or None to train one along with the model.

    Raises:
        AuditError: the model or the data is unsuitable; the message states the reason.
    """
    config = request.config
    index = choose(len(train), config.samples, config.seed)
    if len(index) < FEWEST_TRAINING_SAMPLES:
        raise DataError(
            f"{len(index)} training samples are too few: at least {FEWEST_TRAINING_SAMPLES} are "
            "needed, and thousands are usual."
        )
    if train.shape != evaluation.shape:
        raise DataError(
            f"{train.path} has samples of shape {train.shape}, but {evaluation.path} has samples "
            f"of shape {evaluation.shape}: both must have the input shape of the model."
        )
    kept, used = split_held_out(index, config.seed)
    x_held_out = read_samples(train, kept)
    classifier = request.load(request.model)(
        x_held_out[:TRIAL_SAMPLES], int(np.max(train.labels)) + 1
    )
    check_labels(train, classifier.classes)
    check_labels(evaluation, classifier.classes)
    if "wasserstein" in config.metrics and x_held_out.dim() != 4:
        raise UsageError(f"The wasserstein threat needs images, found {train.shape}.")
    model = open_trainable(request.model, classifier, request.loading, x_held_out, config.freeze)
    labels = _labels_of(train)
    x = read_samples(train, used)
    x_evaluation = read_samples(evaluation, np.arange(len(evaluation)))
    objective = HardeningObjective.of(config, model, x, labels[used], generator)
    plan = HardeningPlan(
        model=model,
        x=x,
        labels=labels[used],
        loss=objective.loss,
        hyperparameters=Hyperparameters.of(config),
        validate=Validation(
            model,
            config,
            Labelled(x_held_out, labels[kept]),
            Labelled(x_evaluation, _labels_of(evaluation)),
        ),
        identity=_run_identity(request, classifier, (train, evaluation), generator),
        adversary=objective.trained_adversary,
    )
    warnings = _overlap(train, evaluation, x, x_evaluation)
    return HardeningSession(classifier, train, evaluation, plan, warnings)


def _labels_of(dataset: Dataset) -> Tensor:
    return torch.from_numpy(np.asarray(dataset.labels).astype(np.int64))


def _run_identity(
    request: HardenRequest,
    classifier: Classifier,
    data: tuple[Dataset, Dataset],
    generator: Trained | None,
) -> RunIdentity:
    """Return the identity of a run; a resumed run may have another time limit."""
    options = json_values(asdict(request.config))
    del options["seconds"]
    hashes = {
        "model": classifier.source.sha256,
        "data": data[0].sha256,
        "evaluation": data[1].sha256,
        "generator": None if generator is None else generator.sha256,
    }
    return RunIdentity(hashes, options)


def _overlap(
    train: Dataset, evaluation: Dataset, x: Tensor, x_evaluation: Tensor
) -> tuple[str, ...]:
    """Return a warning if evaluation samples were trained on: their accuracy is too optimistic."""
    if train.sha256 == evaluation.sha256:
        return (
            "Training and evaluation data are the same file: the numbers measure how well the "
            "model memorised it. Give other data with --eval.",
        )
    seen = {_digest(row) for row in x}
    shared = sum(_digest(row) in seen for row in x_evaluation)
    if not shared:
        return ()
    return (
        f"{shared} of {len(x_evaluation)} evaluation samples are among the training samples: the "
        "numbers are better than they would be on new data.",
    )


def _digest(row: Tensor) -> bytes:
    return hashlib.blake2b(row.numpy().tobytes(), digest_size=16).digest()
