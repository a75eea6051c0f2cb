"""`audit.harden`: fine-tune a model against an adversary, and write it in its own format."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from audit.api.arguments import HardenArguments, documented
from audit.api.inputs import DataLike, are_files, open_samples
from audit.api.scanning import finished_report, options_for_record
from audit.api.verdicts import Gates
from audit.errors import UsageError
from audit.hardening.request import HardenRequest
from audit.hardening.run import run_hardening
from audit.options import (
    HARDEN,
    GeneratorOptions,
    LoadOptions,
    ReadOptions,
    VerdictOptions,
    options_from,
)
from audit.runtime.atomic_files import write_text
from audit.runtime.progress import Progress, shown
from audit.scanning import assemble
from audit.scanning.result import ScanResult
from audit.schema import HardenReport, ScanReport


@documented(*HARDEN)
def harden(
    model: str | Path,
    data: DataLike,
    evaluation: DataLike,
    *,
    out: str | Path,
    resume: bool = False,
    progress: bool | Progress = True,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    **options: Unpack[HardenArguments],
) -> HardenReport:
    """Train a model against an adversary, write it in its own format, and scan both models.

    Args:
        model: file of the model.
        data: training data.
        evaluation: other data, on which both models are scanned.
        out: folder of the hardened model, its reports and the checkpoint.
        resume: whether to resume an interrupted run with the same options.
        progress: whether to draw progress in a terminal or notebook, or what to draw it with.
        on_epoch: receives the measurements of every finished epoch.
        options: the options of ``audit harden``, with ``_`` for ``-``; ``method`` is ``--with``.

    Returns:
        The report that compares both models under every threat; it is also written to ``out``.

    Raises:
        Interrupted: training was stopped; resume it with ``resume=True``.
        NothingKept: no epoch reached the required clean accuracy.
        AuditError: an option, the model or the data cannot be used.
    """
    config, evaluated, generator, loading, reading = options_from(HARDEN, options, "audit.harden")
    config = replace(config, low=loading.low, high=loading.high)
    if not isinstance(model, str | Path):
        raise UsageError(
            "audit.harden returns a model in the format of its file, so it takes a path: export "
            f"the {type(model).__name__} to ONNX, TorchScript or torch.export first."
        )
    folder = Path(out)
    request = HardenRequest(
        model=Path(model),
        train=partial(open_samples, data, reading, config.low, config.high),
        evaluation=partial(open_samples, evaluation, reading, config.low, config.high),
        config=config,
        scans=evaluated.scans(config),
        loading=loading,
        out=folder,
        write_scan=partial(write_scan, folder, loading, reading, from_files=are_files(evaluation)),
        write_report=partial(write_report, folder),
        generator=generator.file,
        resume=resume,
    )
    notify = on_epoch or (lambda entry: None)
    return run_hardening(request, shown(progress), lambda entry: notify(dict(entry)))


def write_scan(
    folder: Path,
    loading: LoadOptions,
    reading: ReadOptions,
    result: ScanResult,
    name: str,
    *,
    from_files: bool,
) -> ScanReport:
    """Write the report of one of the scans before and after hardening."""
    out = folder / name
    others = options_for_record(GeneratorOptions(), reading, VerdictOptions(), out)
    record = assemble.record(result, loading, others, from_files=from_files)
    return finished_report(result, record, Gates(VerdictOptions()), out).record


def write_report(folder: Path, report: HardenReport) -> None:
    """Write the report of the hardening as a page and as JSON."""
    from reports.hardening import hardening_html

    write_text(folder / "harden.html", hardening_html(report))
    write_text(folder / "harden.json", report.model_dump_json(indent=1) + "\n")
