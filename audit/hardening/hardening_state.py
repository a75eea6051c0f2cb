"""Training state of a hardening: everything that changes during training, and its checkpoint.

A checkpoint is written atomically: a process that is killed leaves the previous one intact.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from attackers.wagan.training import under
from audit.errors import ModelError
from audit.generators.resuming import RunIdentity
from audit.generators.tensor_files import FileKind, JsonObject, read_tensors, tensor_file
from audit.hardening.plan import EpochRecord, HardeningPlan
from audit.hardening.trainable import Trainable
from audit.runtime.atomic_files import replacing

HARDENING_CHECKPOINT_KIND = FileKind(
    "wasserstein-audit hardening", 1, "a checkpoint written by `audit harden`"
)

BY_WEIGHT = ("weights", "first", "second", "average")
"""Fields of `HardeningState` that contain one tensor per trained weight."""


@dataclass
class HardeningState:
    """State of a hardening; the training loop changes it in place.

    Attributes:
        weights: current weights, by name.
        first, second: moments of the gradients that Adam keeps, by name.
        average: running mean of the weights, by name.
        number: number of steps done.
        spent: seconds of training, over all runs.
        losses: sum of the losses of the current epoch.
        history: one entry per finished epoch.
        best: averaged weights of the best accepted epoch, empty while there is none.
        best_epoch: number of that epoch, or None.
    """

    weights: dict[str, Tensor]
    first: dict[str, Tensor]
    second: dict[str, Tensor]
    average: dict[str, Tensor]
    number: int = 0
    spent: float = 0.0
    losses: float = 0.0
    history: list[EpochRecord] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int | None = None

    @classmethod
    def of(cls, model: Trainable) -> "HardeningState":
        """Return the state before the first step: the weights of the file."""
        first, second = (
            {name: torch.zeros_like(value) for name, value in model.values().items()}
            for _ in range(2)
        )
        return cls(model.values(), first, second, model.values())


def save_state(plan: HardeningPlan, state: HardeningState, path: Path) -> None:
    """Write a checkpoint atomically."""
    tensors = {
        f"{part}/{name}": value
        for part in (*BY_WEIGHT, "best")
        for name, value in getattr(state, part).items()
    }
    if plan.adversary is not None:
        trained = plan.adversary.tensors()
        tensors.update({f"adversary/{name}": value for name, value in trained.items()})
    description = {
        "identity": {**plan.identity.hashes, "options": plan.identity.options},
        "number": state.number,
        "spent": state.spent,
        "losses": state.losses,
        "history": state.history,
        "best_epoch": state.best_epoch,
    }
    with replacing(path) as temporary:
        temporary.write_bytes(tensor_file(HARDENING_CHECKPOINT_KIND, tensors, description))


def restore_state(plan: HardeningPlan, path: Path) -> HardeningState:
    """Return the state of a checkpoint, and restore the trained adversary of the plan, if any.

    Raises:
        ModelError: the file is damaged or not such a checkpoint.
        UsageError: the checkpoint belongs to a run with another model, other data or options.
    """
    tensors, description = read_tensors(path, HARDENING_CHECKPOINT_KIND)
    try:
        plan.identity.require_same(_stored_identity(description["identity"]), path)
        start = HardeningState.of(plan.model)
        weights, first, second, average = (
            _like(getattr(start, part), under(part, tensors)) for part in BY_WEIGHT
        )
        best = under("best", tensors)
        state = HardeningState(
            weights,
            first,
            second,
            average,
            number=description["number"],
            spent=description["spent"],
            losses=description["losses"],
            history=description["history"],
            best=_like(start.weights, best) if best else {},
            best_epoch=description["best_epoch"],
        )
        if plan.adversary is not None:
            plan.adversary.restore(under("adversary", tensors))
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({error}): delete it to start again.") from error
    return state


def _like(expected: dict[str, Tensor], found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: found[name].to(value) for name, value in expected.items()}


def _stored_identity(stored: JsonObject) -> RunIdentity:
    hashes = {role: value for role, value in stored.items() if role != "options"}
    return RunIdentity(hashes, stored["options"])
