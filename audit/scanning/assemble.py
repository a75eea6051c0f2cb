"""Conversion of a finished or interrupted scan into the report object."""

import platform
import shlex
from collections.abc import Callable
from typing import Any

import numpy
import onnx
import torch

from audit.gates.verdict import verdict
from audit.models import LoadOptions
from audit.scanning.artifacts import gallery
from audit.scanning.result import ScanResult
from audit.schema import (
    Artifacts,
    Data,
    Gate,
    Model,
    ModelInput,
    ScanReport,
    Tool,
    now,
    reliability,
)
from audit.schema.files import ADVERSARIAL_FILE, HTML_FILE, SAMPLES_FILE
from audit.values import order_name
from audit.version import __version__


def report_of(
    result: ScanResult, *, config: dict[str, Any], gates: Callable[[ScanReport], list[Gate]]
) -> ScanReport:
    """Return the report of a scan.

    Args:
        result: the scan.
        config: every option as it took effect, for the record.
        gates: evaluates the gates on the report.
    """
    report = ScanReport(
        tool=Tool(name="wasserstein-audit", version=__version__),
        status=result.status,
        verdict="none",
        created=now(),
        model=_model(result),
        data=Data(
            path=result.subject.dataset.path,
            sha256=result.subject.dataset.sha256,
            available=len(result.subject.dataset),
            evaluated=len(result.samples),
            correct=int(result.samples.correct.sum()),
        ),
        config=config,
        environment=_environment(result),
        clean=result.clean,
        threats=result.threats,
        health=list(result.health),
        gates=[],
        warnings=list(result.warnings),
        artifacts=Artifacts(
            samples=SAMPLES_FILE,
            adversarial=ADVERSARIAL_FILE,
            html=HTML_FILE,
            gallery=gallery(result),
        ),
        generator=result.generated,
    )
    found = gates(report)
    return report.model_copy(
        update={"gates": found, "verdict": verdict(found, reliability(report))}
    )


def _model(result: ScanResult) -> Model:
    classifier = result.classifier
    served = classifier.base or classifier
    spec = served.spec
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
        output=served.output,
        gradient=classifier.gradient,
        parity=result.parity,
        smoothed=result.subject.config.smooth,
    )


def _environment(result: ScanResult) -> dict[str, Any]:
    device = result.classifier.device
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
        "seed": result.subject.config.seed,
    }


def record(
    result: ScanResult, loading: LoadOptions, others: dict[str, Any], *, from_files: bool
) -> dict[str, Any]:
    """Return every option as it took effect, and the one-line command that repeats the scan.

    Args:
        result: the scan, for its configuration and for the paths of model and data.
        loading: the options for loading the model.
        others: options that belong to neither the scan nor the loading.
        from_files: whether model and data are files; no command repeats a scan of other objects.
    """
    config = result.subject.config
    model, data = result.classifier.source.path, result.subject.dataset.path
    options: dict[str, Any] = {
        "threat": list(config.metrics),
        "order": [order_name(order) for order in config.orders],
        "delta": None if config.deltas is None else list(config.deltas),
        "attack": None if config.attacks is None else list(config.attacks),
        "effort": config.effort,
        "certify": config.certify,
        "smooth": config.smooth,
        "samples": config.samples,
        "seed": config.seed,
        "confidence": config.confidence,
        "trust_model": loading.trust_model,
        "device": loading.device,
        "batch_size": config.batch_size,
        "layout": loading.layout,
        "mean": None if loading.mean is None else list(loading.mean),
        "std": None if loading.std is None else list(loading.std),
        "low": config.low,
        "high": config.high,
        "allow_domain": sorted(loading.allow_domains) or None,
        **others,
    }
    words = ["audit", "scan", model, "--data", data]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            words.append(flag)
        elif isinstance(value, list):
            words += [flag, ",".join(str(item) for item in value)]
        elif value is not None and value is not False:
            words += [flag, str(value)]
    return {
        "model": model,
        "data": data,
        **options,
        "command": shlex.join(words) if from_files else None,
    }
