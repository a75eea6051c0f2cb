"""Training of a generator from files to a file, with a checkpoint to resume from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from audit.data import Dataset
from audit.errors import Interrupted, UsageError
from audit.generators.loop import train_generator
from audit.generators.plan import plan_training
from audit.generators.resuming import require_checkpoint
from audit.generators.training_state import (
    TrainingState,
    generator_file,
    initial_state,
    read_checkpoint,
)
from audit.models import LoadOptions, load_classifier, pick_device
from audit.models.files import identify
from audit.options import TrainConfig
from audit.runtime.atomic_files import check_writable, written
from audit.runtime.progress import Progress, silent


@dataclass(frozen=True)
class TrainAttackerRequest:
    """Inputs of a training run and the file that it writes.

    Attributes:
        model: file of the model under attack.
        data: opens the labelled training data, in the range of ``config``.
        config: options of training.
        loading: options of the model.
        out: file of the generator.
        resume: whether to resume from the checkpoint next to ``out``.
    """

    model: Path
    data: Callable[[], Dataset]
    config: TrainConfig
    loading: LoadOptions
    out: Path
    resume: bool = False

    @property
    def checkpoint(self) -> Path:
        """File of the training state, next to the generator's file."""
        return self.out.with_name(f"{self.out.name}.checkpoint")


@dataclass(frozen=True)
class TrainedAttacker:
    """A trained generator and its accuracies on the held-out set, in the best judged epoch.

    Attributes:
        file: file of the generator.
        radius: largest radius that it was trained for.
        held_out: number of held-out samples.
        epoch: number of that epoch, from 1.
        clean: clean accuracy.
        generated: accuracy on the images as generated.
        judged: accuracy on the images that the judge accepts within the radius.
    """

    file: Path
    radius: float
    held_out: int
    epoch: int
    clean: float
    generated: float
    judged: float


def run_training(request: TrainAttackerRequest, progress: Progress = silent) -> TrainedAttacker:
    """Train a generator that attacks a model in one pass, and write its file.

    Raises:
        Interrupted: training was stopped; the checkpoint contains its state.
        AuditError: an option, the model or the data is unsuitable.
    """
    out, config = request.out, request.config
    pick_device(request.loading.device)
    check_writable(out.parent)
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder: name a file such as generator.safetensors.")
    identify(request.model)
    if request.resume:
        require_checkpoint(request.checkpoint)
    plan = plan_training(
        request.data(),
        config,
        lambda x, classes: load_classifier(
            request.model, x, request.loading, label_classes=classes
        ),
    )
    state = read_checkpoint(plan, request.checkpoint) if request.resume else initial_state(plan)
    try:
        train_generator(plan, state, request.checkpoint, progress)
    except KeyboardInterrupt:
        raise Interrupted(
            f"Interrupted after {state.networks.number} steps, which are saved in "
            f"{request.checkpoint}: continue with --resume."
        ) from None
    with written(out) as path:
        path.write_bytes(generator_file(plan, state))
    request.checkpoint.unlink(missing_ok=True)
    return _best(state, request, len(plan.held_out))


def _best(state: TrainingState, request: TrainAttackerRequest, held_out: int) -> TrainedAttacker:
    best = min(state.history, key=lambda entry: float(entry["judged"]))
    return TrainedAttacker(
        request.out,
        request.config.radius,
        held_out,
        best["epoch"],
        best["clean"],
        best["generated"],
        best["judged"],
    )
