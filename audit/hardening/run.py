"""Hardening of a model file: training, the hardened file, and scans before and after."""

from collections.abc import Callable

from audit.errors import AuditError, Interrupted, NothingKept, UsageError
from audit.generators import generator_files
from audit.generators.resuming import require_checkpoint
from audit.generators.tensor_files import FileKind, tensor_file
from audit.hardening.before_after import compare_models
from audit.hardening.hardening_state import HardeningState, restore_state
from audit.hardening.loop import train_model
from audit.hardening.plan import EpochRecord, HardeningPlan
from audit.hardening.prepare import HardeningSession, prepare_hardening
from audit.hardening.request import HardenRequest
from audit.models import pick_device
from audit.models.files import identify
from audit.runtime.atomic_files import check_writable, written
from audit.runtime.progress import Progress, silent
from audit.schema import HardenReport

WEIGHTS_KIND = FileKind("wasserstein-audit weights", 1, "weights written by `audit harden`")


def ignore_epoch(entry: EpochRecord) -> None:
    """Do nothing with the measurements of an epoch."""
    del entry


def run_hardening(
    request: HardenRequest,
    progress: Progress = silent,
    on_epoch: Callable[[EpochRecord], None] = ignore_epoch,
) -> HardenReport:
    """Train a model against an adversary, write the hardened file, and scan before and after.

    Args:
        request: inputs and outputs.
        progress: shows long work.
        on_epoch: receives the measurements of every finished epoch.

    Raises:
        Interrupted: training or a scan was stopped; the checkpoint contains the state.
        NothingKept: no epoch had the clean accuracy ``min_clean``.
        AuditError: an option, the model or the data is unsuitable.
    """
    session = _prepared(request)
    plan = session.plan
    state = (
        restore_state(plan, request.checkpoint) if request.resume else HardeningState.of(plan.model)
    )
    interrupted = False
    try:
        with progress("hardening", plan.steps) as tick:
            train_model(plan, state, request.checkpoint, tick, on_epoch)
    except KeyboardInterrupt:
        interrupted = True
    if not state.best:
        raise _nothing_kept(request, state, interrupted)
    _write_model(request, plan, state)
    if interrupted:
        raise Interrupted(
            f"Interrupted after {state.number} steps: {request.hardened} has the weights of epoch "
            f"{state.best_epoch}, the best so far, and was not scanned. Continue with --resume."
        )
    report = compare_models(request, session, state, progress)
    request.write_report(report)
    request.checkpoint.unlink(missing_ok=True)
    return report


def _prepared(request: HardenRequest) -> HardeningSession:
    """Check the options, cheapest first, then open the data and the model."""
    device = pick_device(request.loading.device)
    check_writable(request.out)
    identify(request.model)
    if request.hardened.exists() and request.hardened.samefile(request.model):
        raise UsageError(
            f"--out {request.out} is the folder of {request.model.name}: name another folder."
        )
    if request.resume:
        require_checkpoint(request.checkpoint)
    generator = (
        None if request.generator is None else generator_files.read(request.generator, device)
    )
    train, evaluation = request.train(), request.evaluation()
    if generator is not None:
        config = request.config
        generator_files.check_fits(generator, train.shape, config.low, config.high)
    return prepare_hardening(request, train, evaluation, generator)


def _write_model(request: HardenRequest, plan: HardeningPlan, state: HardeningState) -> None:
    """Write the hardened model, and its trained weights by name."""
    plan.model.load(state.best)
    for path, content in (
        (request.hardened, plan.model.file()),
        (request.weights, tensor_file(WEIGHTS_KIND, plan.model.values(), {})),
    ):
        with written(path) as temporary:
            temporary.write_bytes(content)


def _nothing_kept(request: HardenRequest, state: HardeningState, interrupted: bool) -> AuditError:
    """Return the reason why there is no hardened model."""
    if interrupted:
        return Interrupted(
            f"Interrupted after {state.number} steps, before any epoch was accepted; they are "
            f"saved in {request.checkpoint}: continue with --resume."
        )
    best = max(entry["evaluation"] for entry in state.history)
    return NothingKept(
        f"No epoch kept a clean accuracy of {request.config.min_clean:g} (--min-clean) on the "
        f"evaluation data, the best was {best:g}: nothing was written. Lower the radius, train for "
        "more epochs, or mix in unperturbed images with --clean 0.5."
    )
