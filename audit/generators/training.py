"""Training a generator against a served model: data, epochs, validation by the judge, checkpoints.

What a step does is `attackers.wagan.training`; here is what surrounds it. A run that is interrupted
writes where it is, and goes on from there to the same generator, to the bit.
"""

import copy
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attackers.geometry import Wasserstein
from attackers.losses import misclassified
from attackers.wagan.attack import generated
from attackers.wagan.networks import HEADS, SMALLEST_IMAGE, Generator, Spec
from attackers.wagan.objective import VARIANTS, Objective, as_published
from attackers.wagan.training import Networks, State, step, under
from audit.data import Dataset, check_labels
from audit.errors import ModelError, NothingToEvaluate, UsageError
from audit.evidence.chance import TRIED
from audit.evidence.judge import judge
from audit.evidence.samples import Samples, choose, evaluate, read_samples
from audit.generators.generator_files import Record, read_tensors, tensor_file, to_bytes
from audit.models.classifier import Classifier, Load
from audit.runtime.atomic_files import replacing
from audit.runtime.progress import Progress, silent

BATCH = 128
RATE, LATE_RATE = 1e-3, 1e-4
"""Of Adam, before and after `LATE`."""

LATE = 5 / 6
"""Share of the epochs after which the rate falls: 50 of 60, as published."""

VALIDATION, LARGEST_SHARE = 500, 0.1
"""Images kept out of training for the judge, and the most of the data that they may be."""

CHECKPOINT = "wasserstein-audit training"
VERSION = 1


@dataclass(frozen=True)
class TrainConfig:
    """How a generator is trained; defaults are the CLI's.

    Attributes:
        variant: a name of `attackers.wagan.objective.VARIANTS`.
        head: of `attackers.wagan.networks.HEADS`; None for the one that fits the variant.
        radius: the largest that it is trained for, in pixels × fraction of mass.
        epochs: passes over the data.
        batch: images per step.
        samples: size of a random subset, or None for all.
        seed: of subset, order, noise and weights.
        paper: the published constants, literally.
        average: decay of a running mean of the weights, or None for the last ones.
        low, high: the box.
    """

    variant: str = "wagan"
    head: str | None = None
    radius: float = 0.3
    epochs: int = 60
    batch: int = BATCH
    samples: int | None = None
    seed: int = 0
    paper: bool = False
    average: float | None = None
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.variant not in VARIANTS:
            known = ", ".join(VARIANTS)
            raise UsageError(f"Unknown variant {self.variant!r}: choose from {known}.")
        if self.head is not None and self.head not in HEADS:
            raise UsageError(f"Unknown head {self.head!r}: choose from {', '.join(HEADS)}.")
        if not 0 < self.radius < math.inf:
            raise UsageError(f"--radius must be positive and finite, found {self.radius:g}.")
        for name in ("epochs", "batch", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name} must be at least 1, found {value}.")
        if self.average is not None and not 0 < self.average < 1:
            raise UsageError(f"--average must lie between 0 and 1, found {self.average:g}.")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed must be between 0 and 2**63 - 1, found {self.seed}.")
        if self.paper and self.head == "flow":
            raise UsageError(
                "--paper trains what was published, which is the head image: leave --head out."
            )

    @property
    def chosen_head(self) -> str:
        """The head: as asked, else the published one for published variants without transport."""
        if self.head is not None:
            return self.head
        return "image" if self.paper or self.variant == "advgan" else "flow"

    @property
    def objective(self) -> Objective:
        """What is played for."""
        return as_published(self.variant) if self.paper else VARIANTS[self.variant]


@dataclass(frozen=True)
class Lesson:
    """Everything that training needs, read and checked.

    Attributes:
        classifier: under attack.
        dataset: its provenance.
        config: the options.
        x, labels: (N, ...) to train on.
        held_out: what the judge looks at after every epoch.
    """

    classifier: Classifier
    dataset: Dataset
    config: TrainConfig
    x: Tensor
    labels: Tensor
    held_out: Samples

    @property
    def steps_per_epoch(self) -> int:
        """Full batches; the rest of an epoch's images wait for another order."""
        return max(1, len(self.x) // self.config.batch)

    @property
    def spec(self) -> Spec:
        """Of the generator."""
        channels, height, width = self.x.shape[1:]
        config = self.config
        return Spec(config.chosen_head, channels, height, width, config.low, config.high)


@dataclass
class Course:
    """How far training is.

    Attributes:
        state: of the players.
        history: an entry per finished epoch.
        best: weights of the epoch that left the least accuracy, empty before the first.
        sums: of the terms, over the steps of the epoch so far.
    """

    state: State
    history: list[Record] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)


def prepare(dataset: Dataset, config: TrainConfig, load: Load) -> Lesson:
    """Read the samples, load the model, and keep some samples out for the judge.

    Raises:
        AuditError: data or model are wrong, or cannot be attacked by gradients.
    """
    index = choose(len(dataset), config.samples, config.seed)
    if len(dataset.shape) != 3 or min(dataset.shape[1:]) < SMALLEST_IMAGE:
        raise UsageError(
            f"A generator makes images of at least {SMALLEST_IMAGE}×{SMALLEST_IMAGE} pixels, but "
            f"the data has samples of shape {dataset.shape}."
        )
    order = np.random.default_rng(config.seed).permutation(len(index))
    count = min(VALIDATION, int(LARGEST_SHARE * len(index)))
    if not count:
        raise NothingToEvaluate(
            f"{len(index)} samples are too few to train on: at least {math.ceil(1 / LARGEST_SHARE)}"
            " are needed, and thousands are usual."
        )
    kept, used = index[np.sort(order[:count])], index[np.sort(order[count:])]
    held_out = read_samples(dataset, kept)
    classifier = load(held_out[:TRIED], int(np.max(dataset.labels)) + 1)
    check_labels(dataset, classifier.classes)
    if classifier.attackable is None:
        raise ModelError(
            f"{classifier.source.path} has no gradients to train a generator with: train it "
            "against a model that has, and scan this one with `--attack wagan --generator FILE`."
        )
    labels = torch.from_numpy(np.asarray(dataset.labels).astype(np.int64))
    judged = evaluate(classifier, held_out, labels[kept], kept, config.seed)
    if not bool(judged.correct.any()):
        raise NothingToEvaluate(
            f"{classifier.source.path} is right on none of {len(judged)} samples: there is nothing "
            "to attack. Do --mean, --std and --layout fit the model?"
        )
    return Lesson(classifier, dataset, config, read_samples(dataset, used), labels[used], judged)


def begin(lesson: Lesson) -> Course:
    """Training that has not begun."""
    networks = Networks.of(lesson.spec, lesson.config.seed)
    return Course(State.of(networks, averaged=lesson.config.average is not None))


def train(
    lesson: Lesson, course: Course, checkpoint: Path | None, progress: Progress = silent
) -> Course:
    """Train to the end, from wherever the course is.

    Args:
        lesson: what to train on.
        course: how far it is; changed in place, also when it is interrupted.
        checkpoint: file that is written after every epoch and when it is interrupted.
        progress: shows the images done.
    """
    config, device = lesson.config, lesson.classifier.device
    networks = Networks.of(lesson.spec, config.seed)
    networks.generator.to(device)
    networks.discriminator.to(device)
    course.state = course.state.to(device)
    each = lesson.steps_per_epoch
    total = config.epochs * each
    try:
        with progress(f"training {config.variant}", total * config.batch) as tick:
            tick(course.state.number * config.batch)
            while len(course.history) < config.epochs:
                epoch = len(course.history)
                for rows in _batches(lesson, epoch, course.state.number - epoch * each):
                    course.state, terms = step(
                        networks,
                        course.state,
                        lesson.classifier.differentiable,
                        lesson.x[rows].to(device),
                        lesson.labels[rows].to(device),
                        config.objective,
                        radius=config.radius,
                        seed=config.seed,
                        rate=RATE if epoch < LATE * config.epochs else LATE_RATE,
                        decay=config.average or 0.0,
                    )
                    for name, value in terms.items():
                        course.sums[name] = course.sums.get(name, 0.0) + float(value)
                    tick(config.batch)
                _finish_epoch(lesson, course, networks, epoch)
                if checkpoint is not None:
                    write_checkpoint(lesson, course, checkpoint)
    except KeyboardInterrupt:
        if checkpoint is not None:
            write_checkpoint(lesson, course, checkpoint)
        raise
    return course


def _batches(lesson: Lesson, epoch: int, done: int) -> Iterator[Tensor]:
    """Rows of the batches of an epoch that are left, in an order keyed by seed and epoch."""
    config = lesson.config
    random = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    order = torch.randperm(len(lesson.x), generator=random)
    size = min(config.batch, len(order))
    for number in range(done, lesson.steps_per_epoch):
        yield order[number * size : (number + 1) * size]


def _finish_epoch(lesson: Lesson, course: Course, networks: Networks, epoch: int) -> None:
    """Let the judge look at the samples that were kept out; remember the best weights."""
    weights = course.state.attacker
    validated = validate(lesson, networks.generator, weights)
    means = {name: total / lesson.steps_per_epoch for name, total in course.sums.items()}
    course.history.append({"epoch": epoch + 1, **validated, "terms": means})
    course.sums = {}
    # Judged accuracy says nothing of a head that leaves every ball: that one is as it generates.
    key = "judged" if networks.generator.holds else "generated"
    if validated[key] <= min(entry[key] for entry in course.history):
        course.best = {name: value.detach().clone() for name, value in weights.items()}


def validate(lesson: Lesson, network: Generator, weights: Mapping[str, Tensor]) -> Record:
    """Accuracy of the samples kept out, all counted: as generated, and as the judge lets it stand.

    Both at the largest radius, under the image-Wasserstein threat.
    """
    config, samples, classifier = lesson.config, lesson.held_out, lesson.classifier
    network = copy.deepcopy(network)
    network.load_state_dict(dict(weights))
    network.eval().to(classifier.device)
    metric = Wasserstein(low=config.low, high=config.high)
    rows = samples.correct.nonzero()[:, 0]
    x0, labels = samples.x[rows], samples.labels[rows]
    streams = samples.generator.take(rows).fold("validation")
    x = generated(network, x0.to(classifier.device), config.radius, streams).cpu()
    wrong = misclassified(classifier.deployed(x), labels)
    verdict = judge(classifier, metric, x0, x, labels, line_search=0)
    broken = verdict.broken & (verdict.distance <= config.radius)
    return {
        "clean": len(rows) / len(samples),
        "generated": int((~wrong).sum()) / len(samples),
        "judged": int((~broken).sum()) / len(samples),
    }


# Files --------------------------------------------------------------------------------------------


def finished(lesson: Lesson, course: Course) -> bytes:
    """The generator's file: the best epoch's weights and all that is known of them."""
    return to_bytes(lesson.spec, course.best or course.state.attacker, record(lesson, course))


def record(lesson: Lesson, course: Course) -> Record:
    """What the generator was trained for, and how it went."""
    config, source = lesson.config, lesson.classifier.source
    return {
        "variant": config.variant,
        "radius": config.radius,
        "paper": config.paper,
        "model": source.path,
        "model_sha256": source.sha256,
        "data": lesson.dataset.path,
        "data_sha256": lesson.dataset.sha256,
        "options": asdict(config),
        "objective": _plain(asdict(config.objective)),
        "steps": course.state.number,
        "history": course.history,
    }


def write_checkpoint(lesson: Lesson, course: Course, path: Path) -> None:
    """Write everything that training goes on from."""
    best = {f"best/{name}": value for name, value in course.best.items()}
    tensors = {**course.state.tensors(), **best}
    said = {"training": record(lesson, course), "sums": course.sums}
    with replacing(path) as temporary:
        temporary.write_bytes(tensor_file(CHECKPOINT, VERSION, tensors, said))


def resumed(lesson: Lesson, path: Path) -> Course:
    """Where a run of the same options, model and data was stopped.

    Raises:
        ModelError: the file is none of ours or damaged.
        UsageError: it belongs to another run; says which option differs.
    """
    tensors, said = read_tensors(path, CHECKPOINT, VERSION)
    course = begin(lesson)
    try:
        kept = said["training"]
        course.history, course.sums = kept["history"], said["sums"]
        _same_run(lesson, kept, path)
        course.best = under("best", tensors)
        course.state = course.state.restored(tensors)
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(
            f"{path} is damaged ({error}): delete it and train from the start."
        ) from error
    return course


def _same_run(lesson: Lesson, kept: Record, path: Path) -> None:
    wanted = record(lesson, begin(lesson))
    for name in ("model_sha256", "data_sha256"):
        if kept[name] != wanted[name]:
            raise UsageError(
                f"{path} belongs to another {name.removesuffix('_sha256')}: delete it."
            )
    for name, value in json.loads(json.dumps(wanted["options"])).items():
        if kept["options"].get(name) != value:
            raise UsageError(
                f"{path} was begun with {name} {kept['options'].get(name)!r}, now it is {value!r}: "
                "use the same options, or delete it to start anew."
            )


def _plain(values: Record) -> Record:
    """Infinities, which JSON does not have, as words."""
    return {
        name: str(v) if isinstance(v, float) and math.isinf(v) else v for name, v in values.items()
    }
