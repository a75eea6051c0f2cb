"""`audit.train_attacker`: train a generator that attacks a model in one pass."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Unpack

from audit.api.arguments import TrainArguments, documented
from audit.api.inputs import DataLike, open_samples
from audit.errors import UsageError
from audit.generators.train import TrainAttackerRequest, TrainedAttacker, run_training
from audit.options import TRAIN, options_from
from audit.runtime.progress import Progress, shown


@documented(*TRAIN)
def train_attacker(
    model: str | Path,
    data: DataLike,
    *,
    out: str | Path,
    resume: bool = False,
    progress: bool | Progress = True,
    **options: Unpack[TrainArguments],
) -> TrainedAttacker:
    """Train a generator (WAGAN and its variants) against a model, and write it to a file.

    Args:
        model: file of the model under attack.
        data: training data.
        out: file of the generator, such as ``generator.safetensors``.
        resume: whether to resume an interrupted run with the same options.
        progress: whether to draw progress in a terminal or notebook, or what to draw it with.
        options: the options of ``audit train-attacker``, with ``_`` for ``-``.

    Returns:
        The file, and accuracies on the held-out samples.

    Raises:
        Interrupted: training was stopped; resume it with ``resume=True``.
        AuditError: an option, the model or the data cannot be used.
    """
    config, loading, reading = options_from(TRAIN, options, "audit.train_attacker")
    config = replace(config, low=loading.low, high=loading.high)
    if not isinstance(model, str | Path):
        raise UsageError(
            "audit.train_attacker takes the path of a model file: export the "
            f"{type(model).__name__} to ONNX, TorchScript or torch.export first."
        )
    request = TrainAttackerRequest(
        model=Path(model),
        data=partial(open_samples, data, reading, config.low, config.high),
        config=config,
        loading=loading,
        out=Path(out),
        resume=resume,
    )
    return run_training(request, shown(progress))
