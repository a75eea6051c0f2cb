"""What came of a hardening: the file, checked against what was trained, and honest scans of both.

Before and after are scanned alike, by the whole suite of attacks, each run anew against its model:
an example that the training saw says nothing of what an adversary finds next.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from audit import __version__
from audit.data import Dataset
from audit.errors import AuditError, InternalError, Interrupted, NothingKept
from audit.evidence.samples import Samples
from audit.generators.generator_files import Trained, tensor_file
from audit.hardening.loop import Progressed
from audit.hardening.session import HardenConfig, Session
from audit.hardening.weights import Trainable
from audit.health.samples import named
from audit.models.classifier import Classifier, Load
from audit.runtime.progress import Progress
from audit.scanning.config import ScanConfig
from audit.scanning.result import ScanResult
from audit.scanning.scan import prepare, run
from audit.schema import (
    Epoch,
    HardenedThreat,
    HardenReport,
    Reliability,
    Report,
    Tool,
    now,
    reliability,
)
from audit.statistics.pairs import paired, paired_points
from audit.values import order_name

PARITY = 1e-4
"""Largest difference, relative to the largest score, between the file and what was trained."""

GIVEN_UP = 0.1
"""A class is given up when at most this share of its correct samples is left: a model that always
names the commonest class keeps nearly all of its clean accuracy on unbalanced data."""

Write = Callable[[ScanResult, str], Report]
"""Writes the report of a scan into a folder of that name."""

Teach = Callable[[Path, ScanConfig, str], Trained | None]
"""Trains a new generator against a model, for a scan whose folder has that name; None for none."""


def weights_file(model: Trainable) -> bytes:
    """The trained weights by name, as safetensors."""
    return tensor_file("wasserstein-audit weights", 1, model.values(), {})


def nothing_kept(
    at: Progressed, config: HardenConfig, interrupted: bool, checkpoint: Path
) -> AuditError:
    """Why there is no hardened model."""
    if interrupted:
        return Interrupted(
            f"Interrupted after {at.number} steps, before any epoch was accepted; {checkpoint} "
            "keeps them: go on with --resume."
        )
    best = max(entry["evaluation"] for entry in at.history)
    return NothingKept(
        f"No epoch kept a clean accuracy of {config.min_clean:g} (--min-clean) on the evaluation "
        f"data, the best was {best:g}: nothing was written. Lower the radius, give more epochs, or "
        "mix in originals with --clean 0.5."
    )


def judge(
    session: Session,
    at: Progressed,
    path: Path,
    hardened: Path,
    evaluation: Dataset,
    config: HardenConfig,
    scans: Sequence[ScanConfig],
    load: Callable[[Path], Load],
    progress: Progress,
    write: Write,
    teach: Teach,
) -> HardenReport:
    """Scan both models under every threat and put the comparison together.

    Raises:
        InternalError: the hardened file does not serve what was trained.
    """
    threats, samples, reliable = [], [], []
    served: Classifier | None = None
    for scan_config in scans:
        found = []
        for when, file in (("before", path), ("after", hardened)):
            name = when if len(scans) == 1 else f"{when}-{scan_config.metrics[0]}"
            prepared = prepare(evaluation, scan_config, load(file))
            scan = run(prepared, progress, teach(file, scan_config, name))
            if scan.status == "interrupted":
                raise Interrupted(
                    f"Interrupted while the {when} model was scanned: {hardened} is whole, its "
                    "report is not. Go on with --resume."
                )
            reliable.append(reliability(write(scan, name)))
            found.append(scan)
        before, after = found
        served, samples = after.classifier, [before.samples, after.samples]
        (metric,), (first, second) = scan_config.metrics, (before.evidence[0], after.evidence[0])
        threats.append(
            HardenedThreat(
                radius=config.radii[config.metrics.index(metric)],
                before=before.threats[0],
                after=after.threats[0],
                paired=paired_points(
                    (first.frontier.radius.numpy(), first.certified.radius.numpy()),
                    (second.frontier.radius.numpy(), second.certified.radius.numpy()),
                    scan_config.deltas_of(metric),
                    scan_config.confidence,
                ),
            )
        )
    assert served is not None
    difference = check_parity(session.training.model, served, samples[1])
    first_config = scans[0]
    assert at.best_epoch is not None
    return HardenReport(
        tool=Tool(name="wasserstein-audit", version=__version__),
        created=now(),
        model=str(path),
        sha256=session.classifier.source.sha256,
        hardened=str(hardened),
        hardened_sha256=served.source.sha256,
        format=served.source.format,
        method=config.method,
        config={
            **asdict(config),
            "order": order_name(config.order),
            "scan": {
                **asdict(first_config),
                "orders": [order_name(order) for order in first_config.orders],
            },
        },
        confidence=first_config.confidence,
        samples=len(samples[0]),
        clean=paired(
            samples[0].correct.numpy(), samples[1].correct.numpy(), first_config.confidence
        ),
        threats=threats,
        epochs=[Epoch(**entry) for entry in at.history],
        best_epoch=at.best_epoch,
        seconds=at.spent,
        parity=difference,
        trained=list(session.model.weights),
        frozen=list(session.model.frozen),
        reliability=(_worst(reliable[0::2]), _worst(reliable[1::2])),
        notes=session.notes,
        warnings=[*session.warnings, *given_up(samples[0], samples[1], evaluation.class_names)],
    )


def given_up(before: Samples, after: Samples, names: tuple[str, ...] | None) -> Iterator[str]:
    """Say of every class that hardening gave up what it lost and what to do.

    Args:
        before: the samples as the original judged them.
        after: the same as the hardened model judged them.
        names: of the classes, where the data has them.
    """
    for label in before.labels.unique().tolist():
        rows = before.labels == label
        had, left = int(before.correct[rows].sum()), int(after.correct[rows].sum())
        if had and left <= GIVEN_UP * had:
            yield (
                f"Hardening gave up {named(label, names)}: of its {int(rows.sum())} evaluation "
                f"samples {had} were classified correctly before and {left} are now. Balance the "
                "classes of the training data or choose a smaller --radius; --min-clean bounds "
                "the accuracy over all classes and does not protect a single one."
            )


def check_parity(model: Trainable, served: Classifier, samples: Samples) -> float:
    """Largest difference between the hardened file as served and the module that was trained.

    Raises:
        InternalError: it is more than rounding.
    """
    x = samples.x[:64]
    assert served.attackable is not None
    with torch.no_grad():
        trained = model.logits(x.to(served.device)).cpu()
    again = served.differentiable(x.to(served.device)).detach().cpu()
    scores = served.deployed(x)
    difference = float((trained - again).abs().max())
    if served.output == "logits":
        difference = max(difference, float((trained - scores).abs().max()))
    if difference > PARITY * max(1.0, float(trained.abs().max())):
        raise InternalError(
            f"The hardened file serves scores that differ by {difference:g} from the module that "
            "was trained: this is a bug, please report it with the model."
        )
    return difference


def _worst(found: Sequence[Reliability]) -> Reliability:
    order: tuple[Reliability, ...] = ("RED", "AMBER", "GREEN")
    return next(colour for colour in order if colour in found)
