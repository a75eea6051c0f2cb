"""Hardening from end to end: checks, training, and the same scan before and after."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attackers.geometry import METRICS, Metric
from attackers.gradient import Logits
from attackers.losses import cross_entropy, misclassified
from attackers.threat import Threat
from attackers.wagan.networks import SMALLEST_IMAGE, Spec
from attackers.wagan.objective import VARIANTS
from attackers.wagan.training import Networks, State
from attackers.wagan.training import step as generator_step
from audit.data import Dataset, check_labels
from audit.errors import DataError, UsageError
from audit.evidence.chance import TRIED
from audit.evidence.samples import choose, read_samples
from audit.generators.generator_files import Trained
from audit.hardening import loop
from audit.hardening.adversaries import (
    METHODS,
    Adversary,
    Generated,
    Mixed,
    Pgd,
    TrainingLoss,
    Wdro,
    adversarial_loss,
    divergence,
    trades_loss,
)
from audit.hardening.loop import SCHEDULES, Plan, Training
from audit.hardening.weights import Trainable, trainable
from audit.models import LoadOptions
from audit.models.classifier import Classifier, Load

HELD_OUT, LARGEST_SHARE = 500, 0.1
"""Training samples kept out to judge epochs by, and the most of the data that they may be."""

FEWEST = 100
"""Samples below which training only memorises."""

STEPS, JUDGE_STEPS = 8, 20
"""Gradients of the inner attack, and of the one that judges an epoch."""

RATES = {"pgd": 1e-3, "trades": 1e-3, "wagan": 1e-3, "wdro": 1e-3, "mixed": 1e-3}
BATCH = 128
LESSON = 200
"""Steps of a generator's training when it is refreshed."""


@dataclass(frozen=True)
class HardenConfig:
    """How to harden; defaults are the CLI's.

    Attributes:
        method: a name of `audit.hardening.adversaries.METHODS`.
        metrics: threats; several for ``mixed`` only.
        radii: one per threat.
        order: of ``wdro``: the budget is shared within a batch.
        epochs, batch, rate, schedule, average: see `audit.hardening.loop.Plan`.
        steps: gradients of the inner attack.
        beta: of ``trades``.
        clean: share of the originals' loss beside that of attacked images.
        refresh: epochs between the trainings of a generator.
        min_clean: least clean accuracy on the evaluation data of a weight set that is kept.
        freeze: patterns of weights that stay.
        samples: size of a random subset of the training data, or None.
        seconds: time budget of training, or None.
        seed: of everything random.
        low, high: the box.
    """

    method: str = "pgd"
    metrics: tuple[str, ...] = ("linf",)
    radii: tuple[float, ...] = (0.1,)
    order: float = 2.0
    epochs: int = 10
    batch: int = BATCH
    rate: float | None = None
    schedule: str = "cosine"
    average: float = 0.995
    steps: int = STEPS
    beta: float = 6.0
    clean: float = 0.0
    refresh: int = 1
    min_clean: float = 0.0
    freeze: tuple[str, ...] = ()
    samples: int | None = None
    seconds: float | None = None
    seed: int = 0
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name, found, known in (
            ("method", (self.method,), METHODS),
            ("threat", self.metrics, METRICS),
            ("schedule", (self.schedule,), SCHEDULES),
        ):
            for value in found:
                if value not in known:
                    raise UsageError(f"Unknown {name} {value!r}: choose from {', '.join(known)}.")
        if len(self.radii) != len(self.metrics):
            raise UsageError(
                f"{len(self.metrics)} threats and {len(self.radii)} radii were given: --radius "
                "takes one number per --threat, in the same order."
            )
        if len(self.metrics) > 1 and self.method != "mixed":
            raise UsageError(f"--with {self.method} takes one threat: several need --with mixed.")
        if self.method == "wagan" and self.metrics != ("wasserstein",):
            raise UsageError("--with wagan moves mass: it takes --threat wasserstein.")
        for radius in self.radii:
            if not 0 < radius < math.inf:
                raise UsageError(f"--radius must be positive and finite, found {radius:g}.")
        for name in ("epochs", "batch", "steps", "refresh", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name} must be at least 1, found {value}.")
        for name in ("rate", "beta", "seconds"):
            value = getattr(self, name)
            option = "time-budget" if name == "seconds" else name
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"--{option} must be positive and finite, found {value:g}.")
        for name in ("average", "clean", "min_clean"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} must be at least 0 and below 1, found {value:g}.")
        if not self.order > 1:
            raise UsageError(f"--order of wdro must be above 1, found {self.order:g}.")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed must be between 0 and 2**63 - 1, found {self.seed}.")

    @property
    def threats(self) -> tuple[tuple[Metric, float], ...]:
        """Metrics with their radii."""
        return tuple(
            (METRICS[name](low=self.low, high=self.high), radius)
            for name, radius in zip(self.metrics, self.radii, strict=True)
        )

    @property
    def plan(self) -> Plan:
        """What the loop needs to know."""
        return Plan(
            epochs=self.epochs,
            batch=self.batch,
            rate=self.rate or RATES[self.method],
            schedule=self.schedule,
            average=self.average,
            seed=self.seed,
            seconds=self.seconds,
        )


@dataclass
class Session:
    """A model on its way.

    Attributes:
        classifier: the model as served, before.
        model: its weights.
        training: what the loop runs.
        notes: how it is trained, for the report.
        warnings: what the reader has to know of the data.
    """

    classifier: Classifier
    model: Trainable
    training: Training
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def prepare(
    path: Path,
    train: Dataset,
    evaluation: Dataset,
    config: HardenConfig,
    options: LoadOptions,
    load: Load,
    generator: Trained | None = None,
) -> Session:
    """Read the data, open the model for training, and set up the adversary.

    Args:
        path: of the model.
        train: to train on.
        evaluation: whose clean accuracy ``min_clean`` is about.
        config: the options.
        options: how the model is loaded.
        load: loads it.
        generator: a trained one for ``wagan``, or None to train one here.

    Raises:
        AuditError: model or data cannot be used; says why.
    """
    index = choose(len(train), config.samples, config.seed)
    if len(index) < FEWEST:
        raise DataError(
            f"{len(index)} training samples are too few: at least {FEWEST} are needed, and "
            "thousands are usual."
        )
    if train.shape != evaluation.shape:
        raise DataError(
            f"{train.path} has samples of shape {train.shape}, {evaluation.path} of "
            f"{evaluation.shape}: both must be what the model takes."
        )
    order = np.random.default_rng(config.seed).permutation(len(index))
    count = max(1, min(HELD_OUT, int(LARGEST_SHARE * len(index))))
    kept, used = index[np.sort(order[:count])], index[np.sort(order[count:])]
    held_out = read_samples(train, kept)
    classifier = load(held_out[:TRIED], int(np.max(train.labels)) + 1)
    check_labels(train, classifier.classes)
    check_labels(evaluation, classifier.classes)
    if "wasserstein" in config.metrics and held_out.dim() != 4:
        raise UsageError(f"The wasserstein threat needs images, found {train.shape}.")
    model = trainable(path, classifier, options, held_out, config.freeze)
    labels = torch.from_numpy(np.asarray(train.labels).astype(np.int64))
    judged = choose(len(evaluation), None, config.seed)
    x_eval = read_samples(evaluation, judged)
    labels_eval = torch.from_numpy(np.asarray(evaluation.labels).astype(np.int64))
    loss, opponent = _loss(config, train.shape, model, generator, classifier.device)
    x = read_samples(train, used)
    if opponent is not None:
        opponent.x, opponent.labels = x, labels[used]
    identity = {
        "model": classifier.source.sha256,
        "data": train.sha256,
        "evaluation": evaluation.sha256,
        "generator": None if generator is None else generator.sha256,
        "options": _plain(asdict(config)),
    }
    training = Training(
        model=model,
        x=x,
        labels=labels[used],
        loss=loss,
        plan=config.plan,
        validate=_validator(
            config, model, held_out, labels[kept], x_eval, labels_eval, classifier.device
        ),
        identity=identity,
        opponent=opponent,
    )
    session = Session(classifier, model, training, list(model.notes))
    session.warnings.extend(_overlap(train, evaluation, x, x_eval))
    return session


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives them back."""
    return {
        name: list(value)
        if isinstance(value, tuple)
        else str(value)
        if value == math.inf
        else value
        for name, value in values.items()
        if name != "seconds"
    }


def _overlap(train: Dataset, evaluation: Dataset, x: Tensor, x_eval: Tensor) -> list[str]:
    """A warning where evaluation samples were trained on: their accuracy says little."""
    if train.sha256 == evaluation.sha256:
        return [
            "Training and evaluation data are the same file: the numbers say how well it was "
            "memorised. Give other data with --eval."
        ]
    seen = {_hash(row) for row in x}
    shared = sum(_hash(row) in seen for row in x_eval)
    if not shared:
        return []
    return [
        f"{shared} of {len(x_eval)} evaluation samples are among the training samples: the numbers "
        "are better than they would be on new data."
    ]


def _hash(row: Tensor) -> bytes:
    return hashlib.blake2b(row.numpy().tobytes(), digest_size=16).digest()


# The adversary ------------------------------------------------------------------------------------


def _loss(
    config: HardenConfig,
    shape: tuple[int, ...],
    model: Trainable,
    generator: Trained | None,
    device: torch.device,
) -> tuple[TrainingLoss, "CoTrained | None"]:
    """What is minimised, and the generator that learns beside, if one does."""
    (metric, radius), *_ = config.threats
    if config.method == "trades":
        attack = Pgd(metric, radius, config.steps, divergence)
        return lambda *batch: trades_loss(batch[0], attack, *batch[1:], beta=config.beta), None
    opponent: CoTrained | None = None
    adversary: Adversary
    if config.method == "wdro":
        adversary = Wdro(Threat(metric, radius, config.order), config.steps)
    elif config.method == "wagan" and generator is not None:
        adversary = Generated(generator.network, radius)
    elif config.method == "wagan":
        opponent = CoTrained(
            Spec("flow", *_image(shape), config.low, config.high),
            model.logits,
            radius,
            config.refresh,
            config.seed,
            device,
        )
        adversary = opponent
    elif config.method == "mixed":
        adversary = Mixed(tuple(Pgd(m, r, config.steps) for m, r in config.threats))
    else:
        adversary = Pgd(metric, radius, config.steps)
    return (
        lambda logits, x0, labels, random: adversarial_loss(
            logits, adversary, x0, labels, random, clean=config.clean
        ),
        opponent,
    )


def _image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3 or min(shape[1:]) < SMALLEST_IMAGE:
        raise UsageError(
            f"A generator needs images of {SMALLEST_IMAGE}×{SMALLEST_IMAGE}, found {shape}."
        )
    channels, height, width = shape
    return channels, height, width


class CoTrained:
    """A generator that is trained further against the model as it is, every few epochs."""

    def __init__(
        self,
        spec: Spec,
        logits: Logits,
        radius: float,
        every: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.networks = Networks.of(spec, seed)
        self.networks.generator.to(device)
        self.networks.discriminator.to(device)
        self.state = State.of(self.networks)
        self.logits, self.radius, self.every, self.seed = logits, radius, every, seed
        self.x = self.labels = torch.empty(0)

    def __call__(
        self, logits: Logits, x0: Tensor, labels: Tensor, random: torch.Generator
    ) -> Tensor:
        """See `Adversary`."""
        return Generated(self.networks.generator, self.radius)(logits, x0, labels, random)

    def refresh(self, epoch: int) -> None:
        """Let the generator learn for `LESSON` steps, every so many epochs."""
        device = next(self.networks.generator.parameters()).device
        while self.state.number < LESSON * (epoch // self.every + 1):
            # Keyed by its own steps, so that a lesson that was stopped goes on as it would have.
            random = torch.Generator().manual_seed(self.seed * 1_000_003 + self.state.number)
            rows = torch.randint(len(self.x), (min(BATCH, len(self.x)),), generator=random)
            self.state, _ = generator_step(
                self.networks,
                self.state,
                self.logits,
                self.x[rows].to(device),
                self.labels[rows].to(device),
                VARIANTS["wagan"],
                radius=self.radius,
                seed=self.seed,
            )
        self._use()

    def tensors(self) -> dict[str, Tensor]:
        """Everything it has learnt, by name."""
        return self.state.tensors()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what was learnt."""
        self.state = self.state.restored(tensors)
        self._use()

    def _use(self) -> None:
        self.networks.generator.load_state_dict(self.state.attacker)


# Validation ---------------------------------------------------------------------------------------


def _validator(
    config: HardenConfig,
    model: Trainable,
    held_out: Tensor,
    labels: Tensor,
    x_eval: Tensor,
    labels_eval: Tensor,
    device: torch.device,
) -> Callable[[], loop.Entry]:
    """Accuracy of what was kept out, clean and under every threat, and of the evaluation data."""
    attacks = [Pgd(metric, radius, JUDGE_STEPS, cross_entropy) for metric, radius in config.threats]

    def right(x: Tensor, wanted: Tensor) -> Tensor:
        with torch.no_grad():
            return ~misclassified(model.logits(x.to(device)), wanted.to(device)).cpu()

    def accuracy(x: Tensor, wanted: Tensor) -> float:
        parts = zip(x.split(BATCH), wanted.split(BATCH), strict=True)
        return float(torch.cat([right(*part) for part in parts]).double().mean())

    def attacked(attack: Pgd) -> float:
        left = []
        for number, (x, wanted) in enumerate(
            zip(held_out.split(BATCH), labels.split(BATCH), strict=True)
        ):
            random = torch.Generator().manual_seed(config.seed + number)
            broken = attack(model.logits, x.to(device), wanted.to(device), random)
            left.append(right(broken, wanted) & right(x, wanted))
        return float(torch.cat(left).double().mean())

    def validate() -> loop.Entry:
        clean = accuracy(x_eval, labels_eval)
        under = [attacked(attack) for attack in attacks]
        return {
            "clean": accuracy(held_out, labels),
            "attacked": sum(under) / len(under),
            "evaluation": clean,
            "accepted": clean >= config.min_clean,
        }

    return validate
