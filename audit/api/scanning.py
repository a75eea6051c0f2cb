"""`audit.scan`: attack and certify a model, and report the remaining accuracy."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy

from attackers import needs_generator
from audit.api.arguments import ScanArguments, documented
from audit.api.inputs import (
    DataLike,
    ModelLike,
    are_files,
    check_model,
    loader_of,
    open_samples,
)
from audit.api.report import Report
from audit.api.verdicts import Gates
from audit.errors import UsageError, interruptible
from audit.generators import generator_files
from audit.models import pick_device
from audit.options import (
    SCAN,
    GeneratorOptions,
    ReadOptions,
    ScanConfig,
    VerdictOptions,
    options_from,
)
from audit.runtime.atomic_files import check_writable, write_text, written
from audit.runtime.progress import Progress, shown
from audit.scanning import artifacts, assemble
from audit.scanning.generator import train_within_scan
from audit.scanning.result import ScanResult
from audit.scanning.scan import prepare, run
from audit.schema.files import ADVERSARIAL_FILE, SAMPLES_FILE


@documented(*SCAN)
def scan(
    model: ModelLike,
    data: DataLike,
    *,
    out: str | Path | None = None,
    progress: bool | Progress = True,
    **options: Unpack[ScanArguments],
) -> Report:
    """Attack and certify a classifier, and return the report.

    Ctrl-C ends the scan; the report then contains what was found and has the status
    ``interrupted``.

    Args:
        model: a file as it is served (ONNX, TorchScript, torch.export), a ``torch.nn.Module``, or a
            function from a batch ``(B, ...)`` to scores ``(B, K)``.
        data: a file or folder, a pair of samples ``(N, ...)`` and labels ``(N,)``, or a torch data
            set.
        out: folder to write the report to, or None.
        progress: whether to draw progress in a terminal or notebook, or what to draw it with.
        options: the options of ``audit scan``, with ``_`` for ``-``; numbers may be given as text
            such as ``"8/255"``.

    Raises:
        AuditError: an option, the model or the data cannot be used; the message states what was
            found, what was expected and what to do.
    """
    config, source, loading, reading, wanted = options_from(SCAN, options, "audit.scan")
    config = replace(config, low=loading.low, high=loading.high)
    folder = None if out is None else Path(out)
    _refuse_contradictions(config, source, wanted, folder)
    gates = Gates.read(wanted)
    display = shown(progress)
    # Cheap checks come first, so that a typing error costs no reading or computing.
    check_model(model, loading)
    if folder is not None:
        check_writable(folder)
    device = pick_device(loading.device)
    trained = None if source.file is None else generator_files.read(source.file, device)
    dataset = open_samples(data, reading, config.low, config.high)
    if trained is not None:
        generator_files.check_fits(trained, dataset.shape, config.low, config.high)
    load = loader_of(model, loading)
    subject = prepare(dataset, config, load)
    if source.data is not None and folder is not None:
        train = open_samples(source.data, reading, config.low, config.high)
        trained = train_within_scan(train, config, load, folder, display)
    result = run(subject, display, trained)
    others = options_for_record(source, reading, wanted, folder)
    record = assemble.record(result, loading, others, from_files=are_files(model, data))
    return finished_report(result, record, gates, folder)


def finished_report(
    result: ScanResult, record: dict[str, Any], gates: Gates, folder: Path | None
) -> Report:
    """Return the report of a scan, and write it if a folder is given."""
    report = Report(
        assemble.report_of(result, config=record, gates=gates.evaluate),
        partial(artifacts.samples_csv, result),
        partial(write_samples, result),
        folder,
    )
    if folder is not None:
        with interruptible(f"while the report was written: {folder} is incomplete"):
            report.save(folder)
    return report


def write_samples(result: ScanResult, folder: Path) -> None:
    """Write `samples.csv` and `adversarial.npz`."""
    write_text(folder / SAMPLES_FILE, artifacts.samples_csv(result))
    with written(folder / ADVERSARIAL_FILE) as path, path.open("wb") as file:
        arrays = artifacts.adversarial_arrays(result)
        numpy.savez_compressed(file, allow_pickle=False, **arrays)


def _refuse_contradictions(
    config: ScanConfig, source: GeneratorOptions, wanted: VerdictOptions, folder: Path | None
) -> None:
    """Raise `UsageError` if options contradict each other."""
    if wanted.fail_under is not None and config.deltas is None:
        raise UsageError("--fail-under needs --delta: state at which budgets it applies.")
    asked = config.attacks is not None and any(map(needs_generator, config.attacks))
    if asked and not source.given:
        raise UsageError(
            "--attack wagan needs a trained generator: give one with --generator FILE, or data to "
            "train it on with --train-data TRAIN."
        )
    if source.given and config.attacks is not None and not asked:
        raise UsageError(
            "A generator was given, but --attack does not name wagan: add it, or leave --attack "
            "out."
        )
    if source.data is not None and folder is None:
        raise UsageError("train_data needs out: the trained generator is kept in that folder.")


def options_for_record(
    source: GeneratorOptions, reading: ReadOptions, wanted: VerdictOptions, folder: Path | None
) -> dict[str, Any]:
    """Return the options for the record that belong to neither the scan nor the model."""

    def text(value: object) -> str | None:
        return None if value is None else str(value)

    return {
        "generator": text(source.file),
        "train_data": text(source.data),
        "resize": None if reading.resize is None else "x".join(map(str, reading.resize)),
        "class_map": text(reading.class_map),
        "fail_under": wanted.fail_under,
        "policy": text(wanted.policy),
        "strict": wanted.strict,
        "out": text(folder),
    }
