"""Tiny classifiers and data sets, built from functions."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attackers.geometry import Linf, Metric
from attackers.pgd import pgd
from audit.data import Dataset
from audit.data.dataset import Manifest, Options, StoredSamples, assemble
from audit.evidence.samples import Samples, evaluate
from audit.health import MetricSubject, ModelSubject
from audit.models.classifier import Classifier, Differentiable, Made, Output, Provenance
from audit.models.execution import in_calls_of
from audit.models.preprocess import InputSpec
from audit.options import ScanConfig
from audit.scanning.subject import Subject
from audit.schema import Curve, Health, Interval, Point, Robustness, ThreatResult

Run = Callable[[Tensor], Tensor]
WEIGHT = torch.tensor([2.0, -1.0, 0.5, 1.0])


def two_sided(z: Tensor) -> Tensor:
    """Return the scores (0, z) of a binary model from one value per sample."""
    return torch.stack([torch.zeros_like(z), z], dim=1)


def linear(x: Tensor) -> Tensor:
    """Return scores of two classes; the class is 1 where w·(x - 1/2) > 0."""
    return two_sided(((x.flatten(1) - 0.5) * WEIGHT).sum(1))


def classifier(
    run: Run,
    *,
    serve: Run | None = None,
    copy: Run | None = None,
    attackable: Run | None = None,
    gradients: bool = True,
    sample: tuple[int, ...] = (4,),
    classes: int = 2,
    output: Output = "logits",
    gradient: Made = "native",
    spec: InputSpec | None = None,
    fixed_calls: bool = True,
) -> Classifier:
    """Return a classifier that serves ``run``; copy and logits are ``run`` too unless given."""
    call = functools.partial(in_calls_of, 32) if fixed_calls else lambda f: f
    return Classifier(
        spec=spec or InputSpec(sample, (), torch.float32, None),
        classes=classes,
        output=output,
        source=Provenance("model.onnx", "0" * 64, "onnx"),
        serve=call(serve or run),
        device=torch.device("cpu"),
        white_box=(
            Differentiable(call(attackable or run), call(copy or run), gradient)
            if gradients
            else None
        ),
    )


def inputs(n: int = 120, sample: tuple[int, ...] = (4,), seed: int = 0) -> Tensor:
    """Return samples well inside the unit box."""
    random = torch.Generator().manual_seed(seed)
    return 0.3 + 0.4 * torch.rand((n, *sample), generator=random)


def samples_of(
    model: Classifier, x: Tensor, labels: Tensor | None = None, seed: int = 0
) -> Samples:
    """Evaluate the served model on ``x``; labels are its own predictions unless given."""
    known = model.predict(x) if labels is None else labels
    return evaluate(model, x, known, np.arange(len(x)), seed)


def dataset_of(x: Tensor, labels: Tensor) -> Dataset:
    """Return a data set in memory."""
    manifest = Manifest(Path("data.npz"), "1" * 64, labels.numpy(), Options(0.0, 1.0))
    stored = StoredSamples(
        len(x), tuple(x.shape[1:]), lambda rows: x[torch.from_numpy(rows)].numpy()
    )
    return assemble(manifest, stored)


def noisy_labels(x: Tensor, share: float = 0.1) -> Tensor:
    """Return the decisions of `linear` with the first ``share`` of them flipped."""
    labels = linear(x).argmax(1)
    labels[: round(share * len(x))] = 1 - labels[: round(share * len(x))]
    return labels


def scan_of(model: Classifier, x: Tensor, labels: Tensor, **options: Any) -> Subject:
    """Return a scan that is ready to run."""
    config = ScanConfig(**options)
    return Subject(model, dataset_of(x, labels), config, samples_of(model, x, labels, config.seed))


def stop_at(stage: str) -> Callable[..., Any]:
    """Return a progress function that interrupts the scan where a stage begins."""

    @contextmanager
    def progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
        if name == stage:
            raise KeyboardInterrupt
        yield lambda _: None

    return progress


def threat_result(
    *points: tuple[float, float, float], order: str = "inf", metric: str = "linf"
) -> ThreatResult:
    """Return a result with the given points (delta, attacked low end, attacked value)."""
    nothing = Interval(value=0.0, low=0.0, high=1.0)
    curve = Curve(
        order=order,
        points=[
            Point(
                delta=delta,
                attacked=Interval(value=value, low=low, high=1.0),
                certified=nothing,
                robustness=Robustness(attacked=nothing, certified=nothing),
                first_order=None,
            )
            for delta, low, value in points
        ],
    )
    return ThreatResult.model_construct(metric=metric, curves=[curve])


def key(entry: Health) -> str:
    """Return the id of a finding, with its metric if it has one: 'square.linf'."""
    return entry.id if entry.metric is None else f"{entry.id}.{entry.metric}"


def finding(status: str, **changes: Any) -> Health:
    """Return a finding of a check with the given status."""
    parts = {"id": "c", "metric": None, "title": "C", "finding": "D.", "numbers": {}}
    return Health(**{**parts, "status": status, "advice": None, **changes})


def model_subject(model: Classifier, samples: Samples, **changes: Any) -> ModelSubject:
    """Return the subject of checks of the model."""
    parts = {
        "served": model, "confidence": 0.95, "class_names": None, "readings": (),
        "metric": Linf(), "delta": 0.1,
    }  # fmt: skip
    return ModelSubject(model, samples=samples, **{**parts, **changes})


def metric_subject(
    model: Classifier, samples: Samples, metric: Metric | None = None, **changes: Any
) -> MetricSubject:
    """Return the subject of checks of a metric; nothing is attacked or certified by default."""
    n = len(samples)
    parts = {
        "delta": 0.1, "radius": torch.full((n,), torch.inf).double(), "x": samples.x,
        "found_by": [""] * n, "certified": torch.zeros(n).double(), "other_examples": (),
        "attack": pgd, "steps": 20,
    }  # fmt: skip
    return MetricSubject(model, samples, metric or Linf(), **{**parts, **changes})


def radius_of(remaining: Tensor) -> Tensor:
    """Return attacked radii under which exactly these samples remain at every budget."""
    return torch.where(remaining, torch.inf, 0.0).double()
