"""Training state of a generator: everything that changes during training, and its checkpoint."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor

from attackers.wagan.training import Networks, State, under
from audit.errors import ModelError
from audit.generators.config import objective_of
from audit.generators.generator_files import to_bytes
from audit.generators.plan import TrainingPlan
from audit.generators.resuming import RunIdentity, json_values
from audit.generators.tensor_files import FileKind, JsonObject, read_tensors, tensor_file
from audit.runtime.atomic_files import replacing

TRAINING_CHECKPOINT_KIND = FileKind(
    "wasserstein-audit training", 1, "a checkpoint written by `audit train-attacker`"
)


@dataclass
class TrainingState:
    """State of the training of a generator; the training loop changes it in place.

    Attributes:
        networks: weights and optimiser states of generator and discriminator.
        history: one entry per finished epoch.
        best: weights of the epoch with the lowest accuracy, empty before the first one.
        sums: sum of each loss term over the finished steps of the current epoch.
    """

    networks: State
    history: list[JsonObject] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)


def initial_state(plan: TrainingPlan) -> TrainingState:
    """Return the state before the first step."""
    networks = Networks.of(plan.spec, plan.config.seed)
    return TrainingState(State.of(networks, averaged=plan.config.average is not None))


def generator_file(plan: TrainingPlan, state: TrainingState) -> bytes:
    """Return the generator's file: the weights of the best epoch and the record of training."""
    return to_bytes(plan.spec, state.best or state.networks.attacker, training_record(plan, state))


def training_record(plan: TrainingPlan, state: TrainingState) -> JsonObject:
    """Return what the generator was trained for, and the history of its training."""
    config, source = plan.config, plan.classifier.source
    return {
        "variant": config.variant,
        "radius": config.radius,
        "paper": config.paper,
        "model": source.path,
        "model_sha256": source.sha256,
        "data": plan.dataset.path,
        "data_sha256": plan.dataset.sha256,
        "options": asdict(config),
        "objective": json_values(asdict(objective_of(config))),
        "steps": state.networks.number,
        "history": state.history,
    }


def write_checkpoint(plan: TrainingPlan, state: TrainingState, path: Path) -> None:
    """Write everything that is needed to resume training, atomically."""
    best = {f"best/{name}": value for name, value in state.best.items()}
    tensors = {**state.networks.tensors(), **best}
    description = {"training": training_record(plan, state), "sums": state.sums}
    with replacing(path) as temporary:
        temporary.write_bytes(tensor_file(TRAINING_CHECKPOINT_KIND, tensors, description))


def read_checkpoint(plan: TrainingPlan, path: Path) -> TrainingState:
    """Read the state of an interrupted run of the same plan.

    Raises:
        ModelError: the file is damaged or not such a checkpoint.
        UsageError: it belongs to a run with another model, other data or other options.
    """
    tensors, description = read_tensors(path, TRAINING_CHECKPOINT_KIND)
    start = initial_state(plan)
    try:
        found = description["training"]
        _recorded_identity(training_record(plan, start)).require_same(
            _recorded_identity(found), path
        )
        return TrainingState(
            start.networks.restored(tensors),
            found["history"],
            under("best", tensors),
            description["sums"],
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(
            f"{path} is damaged ({error}): delete it and train from the start."
        ) from error


def _recorded_identity(record: JsonObject) -> RunIdentity:
    hashes = {"model": record["model_sha256"], "data": record["data_sha256"]}
    return RunIdentity(hashes, json_values(record["options"]))
