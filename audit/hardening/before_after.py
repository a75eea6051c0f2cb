"""Scans of a model before and after hardening, and the report that compares them.

Both models are scanned with the same attacks, which run separately against each model: the examples
of training do not show what another adversary finds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from audit.errors import Interrupted
from audit.evidence.samples import Samples
from audit.generators.generator_files import Trained
from audit.hardening.hardening_state import HardeningState
from audit.hardening.parity import served_difference
from audit.hardening.prepare import HardeningSession
from audit.hardening.request import HardenRequest
from audit.health.samples import named
from audit.options import ScanConfig
from audit.runtime.progress import Progress
from audit.scanning.generator import train_within_scan
from audit.scanning.result import ScanResult
from audit.scanning.scan import prepare, run
from audit.schema import (
    Epoch,
    HardenedThreat,
    HardenReport,
    Reliability,
    Tool,
    certificate_tried,
    now,
    reliability,
)
from audit.statistics.pairs import paired, paired_points
from audit.values import order_name
from audit.version import __version__

LOST_SHARE = 0.1
"""Largest share of a class's correct samples that remain correct for the class to count as lost.

A model that always answers the most frequent class keeps nearly all of its clean accuracy on
unbalanced data, so clean accuracy alone does not show such a loss.
"""


@dataclass(frozen=True)
class ScannedModel:
    """Scan of one model, and the reliability of its report."""

    scan: ScanResult
    reliability: Reliability


@dataclass(frozen=True)
class ScannedThreat:
    """Both models under one threat."""

    config: ScanConfig
    before: ScannedModel
    after: ScannedModel


def compare_models(
    request: HardenRequest,
    session: HardeningSession,
    state: HardeningState,
    progress: Progress,
) -> HardenReport:
    """Scan both models under every threat and compare them.

    Raises:
        Interrupted: a scan was stopped.
        InternalError: the hardened file does not serve the scores of the trained module.
    """
    threats = [
        ScannedThreat(
            config,
            _scanned(request, session, config, ("before", request.model), progress),
            _scanned(request, session, config, ("after", request.hardened), progress),
        )
        for config in request.scans
    ]
    return _report(request, session, state, threats)


def _scanned(
    request: HardenRequest,
    session: HardeningSession,
    config: ScanConfig,
    side: tuple[str, Path],
    progress: Progress,
) -> ScannedModel:
    """Scan one model and write its report; ``side`` is ``before`` or ``after`` with the file."""
    when, file = side
    name = when if len(request.scans) == 1 else f"{when}-{config.metrics[0]}"
    load = request.load(file)
    subject = prepare(session.evaluation, config, load)
    generator: Trained | None = None
    if request.config.method == "wagan":
        # The model was trained on a generator's images, so a new generator has to attack it.
        folder = request.out / name
        generator = train_within_scan(session.train, config, load, folder, progress)
    scan = run(subject, progress, generator)
    if scan.status == "interrupted":
        raise Interrupted(
            f"Interrupted while the {when} model was scanned: {request.hardened} is complete, but "
            "its report is not. Continue with --resume."
        )
    return ScannedModel(scan, reliability(request.write_scan(scan, name)))


def _report(
    request: HardenRequest,
    session: HardeningSession,
    state: HardeningState,
    threats: Sequence[ScannedThreat],
) -> HardenReport:
    config, model = request.config, session.plan.model
    first, last = threats[0], threats[-1]
    before, after = last.before.scan.samples, last.after.scan.samples
    served = last.after.scan.classifier
    assert state.best_epoch is not None
    return HardenReport(
        tool=Tool(name="wasserstein-audit", version=__version__),
        created=now(),
        model=str(request.model),
        sha256=session.classifier.source.sha256,
        hardened=str(request.hardened),
        hardened_sha256=served.source.sha256,
        format=served.source.format,
        method=config.method,
        config={
            **asdict(config),
            "order": order_name(config.order),
            "scan": {
                **asdict(first.config),
                "orders": [order_name(order) for order in first.config.orders],
            },
        },
        confidence=first.config.confidence,
        samples=len(before),
        clean=paired(before.correct.numpy(), after.correct.numpy(), first.config.confidence),
        threats=[_hardened_threat(request, threat) for threat in threats],
        epochs=[Epoch(**entry) for entry in state.history],
        best_epoch=state.best_epoch,
        seconds=state.spent,
        parity=served_difference(model, served, after),
        trained=list(model.weights),
        frozen=list(model.frozen),
        reliability=(
            _worst([threat.before.reliability for threat in threats]),
            _worst([threat.after.reliability for threat in threats]),
        ),
        notes=list(model.notes),
        warnings=[
            *session.warnings,
            *lost_classes(before, after, session.evaluation.class_names),
        ],
    )


def _hardened_threat(request: HardenRequest, threat: ScannedThreat) -> HardenedThreat:
    (metric,) = threat.config.metrics
    before, after = threat.before.scan, threat.after.scan
    first, second = before.evidence[0], after.evidence[0]
    sides = before.threats[0], after.threats[0]
    points = paired_points(
        (first.frontier.radius.numpy(), first.certified.radius.numpy()),
        (second.frontier.radius.numpy(), second.certified.radius.numpy()),
        threat.config.deltas_of(metric),
        threat.config.confidence,
    )
    if not all(certificate_tried(side) for side in sides):
        # The trivial bound of 0 is not a measurement.
        points = [point.model_copy(update={"certified": None}) for point in points]
    return HardenedThreat(
        radius=request.config.radii[request.config.metrics.index(metric)],
        before=sides[0],
        after=sides[1],
        paired=points,
    )


def lost_classes(before: Samples, after: Samples, names: tuple[str, ...] | None) -> Iterator[str]:
    """Yield a warning for every class whose samples are hardly classified correctly any more.

    Args:
        before: samples as the original model classifies them.
        after: the same samples as the hardened model classifies them.
        names: names of the classes, if the data has them.
    """
    for label in before.labels.unique().tolist():
        rows = before.labels == label
        had, left = int(before.correct[rows].sum()), int(after.correct[rows].sum())
        if had and left <= LOST_SHARE * had:
            yield (
                f"Hardening lost {named(label, names)}: of its {int(rows.sum())} evaluation "
                f"samples {had} were classified correctly before and {left} are now. Balance the "
                "classes of the training data or choose a smaller --radius; --min-clean bounds "
                "the accuracy over all classes and does not protect a single one."
            )


def _worst(found: Sequence[Reliability]) -> Reliability:
    order: tuple[Reliability, ...] = ("RED", "AMBER", "GREEN")
    return next(colour for colour in order if colour in found)
