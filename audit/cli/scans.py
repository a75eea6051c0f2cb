"""A scan from its options to the files of its report, as several commands run it."""

from pathlib import Path
from typing import TYPE_CHECKING

from audit.cli.arguments import (
    Gates,
    Reading,
    Taught,
)
from audit.cli.output import interruptible, print_text, write_text, written
from audit.runtime.atomic_files import check_writable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from audit.generators.generator_files import Trained
    from audit.models import Classifier, LoadOptions
    from audit.models.classifier import Load
    from audit.scanning.config import ScanConfig
    from audit.scanning.result import ScanResult
    from audit.schema import Report

EXIT_INTERRUPTED = 130
"""Exit status of a scan that was stopped: its report covers what ran before."""


GENERATOR_FILE = "generator.safetensors"
"""Where a generator that was trained within a scan is kept, beside the report."""


def run_scan(
    model: Path,
    data: Path,
    config: "ScanConfig",
    loading: "LoadOptions",
    out: Path,
    reading: Reading,
    taught: Taught,
    *,
    quiet: bool,
) -> "ScanResult":
    """Read the data, load the model, and scan; the cheap checks come first."""
    from audit.cli.progress import bar
    from audit.generators import generator_files
    from audit.models import load_classifier, pick_device
    from audit.models.files import identify
    from audit.scanning.scan import prepare, run

    # The cheap checks first: nothing is read or computed for a typing mistake.
    device = pick_device(loading.device)
    check_writable(out)
    identify(model)
    trained = None if taught.file is None else generator_files.read(taught.file, device)
    dataset = reading.open(data, config.low, config.high)
    if trained is not None:
        generator_files.check_fits(trained, dataset.shape, config.low, config.high)

    def load(x: "Tensor", classes: int) -> "Classifier":
        return load_classifier(model, x, loading, label_classes=classes)

    prepared = prepare(dataset, config, load)
    if taught.data is not None:
        trained = teach(taught.data, config, load, out / GENERATOR_FILE, reading, device, quiet)
    return run(prepared, bar(quiet), trained)


def teach(
    data: Path,
    config: "ScanConfig",
    load: "Load",
    file: Path,
    reading: Reading,
    device: "torch.device",
    quiet: bool,
) -> "Trained":
    """Train a generator within the scan's effort; it stays beside the report."""
    from audit.cli.progress import bar
    from audit.generators import generator_files, training
    from audit.scanning.generator import within

    lesson = training.prepare(reading.open(data, config.low, config.high), within(config), load)
    course = training.train(lesson, training.begin(lesson), None, bar(quiet))
    with written(file) as path:
        path.write_bytes(training.finished(lesson, course))
    return generator_files.read(file, device)


def write_report(
    outcome: "ScanResult",
    out: Path,
    loading: "LoadOptions",
    reading: Reading,
    taught: Taught,
    gates: Gates,
) -> "Report":
    """Write all files of a report, each under a temporary name first, the JSON last."""
    import numpy

    from audit.scanning import artifacts, assemble
    from reports import RENDERERS

    record = assemble.record(
        outcome,
        loading,
        {
            "generator": None if taught.file is None else str(taught.file),
            "train_data": None if taught.data is None else str(taught.data),
            "resize": reading.resize,
            "class_map": None if reading.class_map is None else str(reading.class_map),
            "fail_under": gates.minimum,
            "policy": None if gates.file is None else str(gates.file),
            "strict": gates.strict,
            "out": str(out),
        },
    )
    report = assemble.report_of(outcome, config=record, gates=gates.judged)
    with interruptible(f"while the report was written: {out} is incomplete"):
        write_text(out / assemble.SAMPLES_FILE, artifacts.samples_csv(outcome))
        with written(out / assemble.ADVERSARIAL_FILE) as path, path.open("wb") as file:
            arrays = artifacts.adversarial_arrays(outcome)
            numpy.savez_compressed(file, allow_pickle=False, **arrays)
        write_text(out / assemble.HTML_FILE, RENDERERS["html"](report))
        write_text(out / "report.json", RENDERERS["json"](report))
    return report


def show(report: "Report", out: Path, *, quiet: bool, verbose: bool) -> None:
    """Print the report, or only its verdict under ``--quiet``."""
    from audit.schema import reliability

    if quiet:
        gates = f"verdict {report.verdict}" if report.gates else "no gates were set"
        print_text(f"{gates}, reliability {reliability(report)}, report in {out}\n")
        return
    from rich.console import Console

    from reports import terminal

    screen = Console()
    text = terminal.render(
        report,
        width=min(screen.width, 120) if screen.is_terminal else 100,
        # Without colour there is no bold or dim either: NO_COLOR is set for plain text.
        color=screen.is_terminal and screen.color_system is not None and not screen.no_color,
        full=verbose,
    )
    print_text(f"{text}Report: {out / 'report.html'}, {out / 'report.json'}\n")


def exit_code_of(report: "Report", *, strict: bool) -> int:
    """Exit status of a scan: that it was stopped, or what its gates and its evidence say."""
    from audit.gates.verdict import exit_code

    if report.status == "interrupted":
        return EXIT_INTERRUPTED
    return exit_code(report, strict=strict)
