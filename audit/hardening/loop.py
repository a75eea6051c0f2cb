"""Training a served model: steps, epochs, the best checkpoint, and going on after a kill.

All that a step changes is in `Progressed`; its random numbers are keyed by its number. A checkpoint
is written under a temporary name and renamed, so that at any moment there is a whole one or none,
and a run that goes on from it ends with the same weights, to the bit on a CPU.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from attackers.adam import adam_step
from audit.errors import ModelError, UsageError
from audit.generators.generator_files import read_tensors, tensor_file
from audit.hardening.adversaries import TrainingLoss
from audit.hardening.weights import Trainable
from audit.runtime.atomic_files import replacing

KIND, VERSION = "wasserstein-audit hardening", 1
WARM = 0.05
"""Share of the steps over which the rate rises."""

EVERY = 30.0
"""Seconds between checkpoints within an epoch."""

Entry = dict[str, Any]


def cosine(done: float) -> float:
    """Share of the rate after that share of the steps: a short rise, then half a cosine."""
    return min(done / WARM, 1.0) * (1 + math.cos(math.pi * done)) / 2


def stepped(done: float) -> float:
    """The whole rate, a tenth from three fifths on, a hundredth from nine tenths on."""
    return min(done / WARM, 1.0) * (1.0 if done < 0.6 else 0.1 if done < 0.9 else 0.01)


def constant(done: float) -> float:
    """The whole rate, after a short rise."""
    return min(done / WARM, 1.0)


SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": cosine,
    "step": stepped,
    "constant": constant,
}
"""Shares of the rate, of the share of steps done in (0, 1]."""


@dataclass(frozen=True)
class Plan:
    """How long and how fast.

    Attributes:
        epochs: passes over the data.
        batch: images per step.
        rate: of Adam, at its highest.
        schedule: a name of `SCHEDULES`.
        average: decay of the running mean of the weights that is judged and kept.
        seed: of order and adversaries.
        seconds: time budget, or None.
    """

    epochs: int
    batch: int
    rate: float
    schedule: str
    average: float
    seed: int
    seconds: float | None = None


@dataclass
class Progressed:
    """Where training is.

    Attributes:
        weights, first, second, average: by name: weights, moments of Adam, running mean.
        number: steps taken.
        spent: seconds of training, over all runs.
        losses: sum over the steps of the epoch so far.
        history: an entry per finished epoch.
        best: weights of the best accepted epoch, empty while there is none.
        best_epoch: its number, or None.
    """

    weights: dict[str, Tensor]
    first: dict[str, Tensor]
    second: dict[str, Tensor]
    average: dict[str, Tensor]
    number: int = 0
    spent: float = 0.0
    losses: float = 0.0
    history: list[Entry] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int | None = None

    @classmethod
    def of(cls, model: Trainable) -> "Progressed":
        """The start: the file's own weights."""
        zeros = [{n: torch.zeros_like(v) for n, v in model.values().items()} for _ in range(2)]
        return cls(model.values(), zeros[0], zeros[1], model.values())


Validate = Callable[[], Entry]
"""Clean and attacked accuracy with the weights that the model has at the moment."""


class Opponent(Protocol):
    """An adversary that learns between epochs."""

    def refresh(self, epoch: int) -> None:
        """Learn what is due by that epoch, once: nothing where it has been learnt already."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything it has learnt, by name."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what was learnt."""


@dataclass(frozen=True)
class Training:
    """All that training needs.

    Attributes:
        model: whose weights are trained.
        x, labels: (N, ...) to train on, on the CPU.
        loss: what is minimised.
        plan: how long and how fast.
        validate: gives ``clean``, ``attacked`` and ``accepted`` of the present weights.
        identity: what a checkpoint must agree with to be gone on from.
        opponent: an adversary that learns beside, if there is one.
    """

    model: Trainable
    x: Tensor
    labels: Tensor
    loss: TrainingLoss
    plan: Plan
    validate: Validate
    identity: Entry
    opponent: "Opponent | None" = None

    @property
    def each(self) -> int:
        """Steps per epoch."""
        return max(1, len(self.x) // self.plan.batch)


def run(
    training: Training,
    at: Progressed,
    checkpoint: Path,
    tick: Callable[[int], None],
    say: Callable[[Entry], None],
) -> None:
    """Train to the end or the time budget; ``at`` and the checkpoint hold what was reached."""
    plan, model = training.plan, training.model
    device = next(iter(model.weights.values())).device
    total = plan.epochs * training.each
    model.load(at.weights)
    tick(at.number)
    begun = written = time.monotonic()
    already = at.spent
    try:
        while len(at.history) < plan.epochs and not (at.history and _late(plan, at)):
            epoch = len(at.history)
            if training.opponent is not None:
                training.opponent.refresh(epoch)
            for rows in _rows(training, epoch, at.number - epoch * training.each):
                random = torch.Generator().manual_seed(plan.seed * 1_000_003 + at.number)
                loss = training.loss(
                    model.logits,
                    training.x[rows].to(device),
                    training.labels[rows].to(device),
                    random,
                )
                _step(
                    training,
                    at,
                    loss,
                    plan.rate * SCHEDULES[plan.schedule]((at.number + 1) / total),
                )
                at.spent = already + time.monotonic() - begun
                tick(1)
                if _late(plan, at):
                    break
                if time.monotonic() - written > EVERY:
                    save(training, at, checkpoint)
                    written = time.monotonic()
            say(_judge(training, at, epoch))
            save(training, at, checkpoint)
            written = time.monotonic()
    except KeyboardInterrupt:
        save(training, at, checkpoint)
        raise


def _late(plan: Plan, at: Progressed) -> bool:
    return plan.seconds is not None and at.spent >= plan.seconds


def _rows(training: Training, epoch: int, done: int) -> Iterator[Tensor]:
    """Rows of the batches of an epoch that are left, in an order keyed by seed and epoch."""
    random = torch.Generator().manual_seed(training.plan.seed * 1_000_003 + epoch)
    order = torch.randperm(len(training.x), generator=random)
    size = min(training.plan.batch, len(order))
    for number in range(done, training.each):
        yield order[number * size : (number + 1) * size]


def _step(training: Training, at: Progressed, loss: Tensor, rate: float) -> None:
    """One step of Adam; everything it changes is in ``at`` and in the model."""
    model = training.model
    names = list(model.weights)
    if not bool(loss.isfinite()):
        raise ModelError(
            f"The loss is not finite after {at.number} steps: lower --rate, or freeze layers."
        )
    grads = torch.autograd.grad(loss, [model.weights[name] for name in names], allow_unused=True)
    kept = ([part[name] for name in names] for part in (at.weights, at.first, at.second))
    weights, first, second = kept
    filled = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, grads, strict=True)]
    weights, first, second = adam_step(weights, filled, first, second, number=at.number, rate=rate)
    with torch.no_grad():
        # Early on the mean follows quickly, or it would remember the weights of the file.
        decay = min(training.plan.average, (1 + at.number) / (10 + at.number))
        average = [
            at.average[name].lerp(w, 1 - decay) for name, w in zip(names, weights, strict=True)
        ]
    found = {"weights": weights, "first": first, "second": second, "average": average}
    changed = {part: dict(zip(names, values, strict=True)) for part, values in found.items()}
    # One call: an interrupt finds all of it done or nothing.
    vars(at).update(changed, number=at.number + 1, losses=at.losses + float(loss.detach()))
    model.load(at.weights)


def _judge(training: Training, at: Progressed, epoch: int) -> Entry:
    """Validate the averaged weights at the end of an epoch, and keep them where they are best."""
    training.model.load(at.average)
    found = training.validate()
    training.model.load(at.weights)
    steps = at.number - epoch * training.each
    entry = {"epoch": epoch + 1, "steps": at.number, "loss": at.losses / max(1, steps), **found}
    at.losses = 0.0
    best = max((e["attacked"] for e in at.history if e["accepted"]), default=-1.0)
    if found["accepted"] and found["attacked"] >= best:
        at.best, at.best_epoch = dict(at.average), epoch + 1
    at.history.append(entry)
    return entry


def save(training: Training, at: Progressed, path: Path) -> None:
    """Write a checkpoint; at any moment there is a whole one or none."""
    parts = ("weights", "first", "second", "average", "best")
    tensors = {
        f"{part}/{name}": value for part in parts for name, value in getattr(at, part).items()
    }
    if training.opponent is not None:
        learnt = training.opponent.tensors()
        tensors.update({f"opponent/{name}": value for name, value in learnt.items()})
    said = {
        "identity": training.identity,
        "number": at.number,
        "spent": at.spent,
        "losses": at.losses,
        "history": at.history,
        "best_epoch": at.best_epoch,
    }
    with replacing(path) as temporary:
        temporary.write_bytes(tensor_file(KIND, VERSION, tensors, said))


def load(training: Training, path: Path) -> Progressed:
    """Go on from a checkpoint.

    Raises:
        ModelError: it is damaged or none of ours.
        UsageError: it belongs to another model, data or options.
    """
    tensors, said = read_tensors(path, KIND, VERSION)
    at = Progressed.of(training.model)
    for name, value in training.identity.items():
        found = said["identity"].get(name)
        if found != value:
            raise UsageError(
                f"{path} was begun with {name} {found!r}, now it is {value!r}: use the same "
                "options, or delete it to start anew."
            )
    try:
        for part in ("weights", "first", "second", "average"):
            kept = getattr(at, part)
            for name in kept:
                kept[name] = tensors[f"{part}/{name}"].to(kept[name])
        at.best = {
            name: tensors[f"best/{name}"].to(value)
            for name, value in at.weights.items()
            if f"best/{name}" in tensors
        }
        if training.opponent is not None:
            start = "opponent/"
            training.opponent.restore(
                {n.removeprefix(start): v for n, v in tensors.items() if n.startswith(start)}
            )
        at.number, at.spent, at.losses = said["number"], said["spent"], said["losses"]
        at.history, at.best_epoch = said["history"], said["best_epoch"]
    except (KeyError, RuntimeError, TypeError) as error:
        raise ModelError(f"{path} is damaged ({error}): delete it to start anew.") from error
    return at
