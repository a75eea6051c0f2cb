"""From a finished (or interrupted) scan to the report object."""

import platform
from typing import Any

import numpy
import onnx
import torch

from audit import __version__
from audit.artifacts import gallery
from audit.gate import fail_under, verdict
from audit.report import Artifacts, Data, Model, ModelInput, Report, Tool, now, reliability
from audit.scan import Scan

SAMPLES_FILE, ADVERSARIAL_FILE, HTML_FILE = "samples.csv", "adversarial.npz", "report.html"


def report_of(scan: Scan, *, config: dict[str, Any], minimum: float | None, strict: bool) -> Report:
    """Put everything a scan found into one report.

    Args:
        scan: the scan.
        config: every option as the user gave it or as it was defaulted, for the record.
        minimum: gate of ``--fail-under``, if any.
        strict: of ``--strict``.
    """
    threats = scan.threats
    gates = [] if minimum is None else fail_under(threats, minimum, strict=strict)
    report = Report(
        tool=Tool(name="wasserstein-audit", version=__version__),
        status="interrupted" if scan.interrupted else "complete",
        verdict="none",
        created=now(),
        model=_model(scan),
        data=Data(
            path=scan.dataset.path,
            sha256=scan.dataset.sha256,
            available=len(scan.dataset),
            evaluated=len(scan.samples),
            correct=int(scan.samples.correct.sum()),
        ),
        config=config,
        environment=_environment(scan),
        clean=scan.clean,
        threats=threats,
        health=scan.health,
        gates=gates,
        warnings=scan.warnings,
        artifacts=Artifacts(
            samples=SAMPLES_FILE,
            adversarial=ADVERSARIAL_FILE,
            html=HTML_FILE,
            gallery=gallery(scan),
        ),
    )
    return report.model_copy(update={"verdict": verdict(gates, reliability(report))})


def _model(scan: Scan) -> Model:
    classifier, spec = scan.classifier, scan.classifier.spec
    return Model(
        path=classifier.source.path,
        sha256=classifier.source.sha256,
        format=classifier.source.format,
        classes=classifier.classes,
        input=ModelInput(
            shape=list(spec.shape) or [None, *spec.sample],
            dtype=str(spec.dtype).removeprefix("torch."),
            layout=spec.layout,
            low=spec.low,
            high=spec.high,
            mean=None if spec.mean is None else list(spec.mean),
            std=None if spec.std is None else list(spec.std),
        ),
        output=classifier.output,
        gradient=classifier.gradient,
        parity=scan.parity,
    )


def _environment(scan: Scan) -> dict[str, Any]:
    device = scan.classifier.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "onnx": onnx.__version__,
        "platform": platform.platform(),
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "seed": scan.config.seed,
    }
