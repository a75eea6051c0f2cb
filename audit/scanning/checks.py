"""Health checks of a scan: the values that they examine, and the consequences of their findings.

Checks of one metric use its middle budget and a probe of the samples. If a longer run finds more
examples, the attacks are rerun with twice the steps, as often as the effort allows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from attackers import ATTACKS, ITERATIVE
from attackers.geometry import METRICS, Metric
from audit.errors import ModelError
from audit.health import MetricSubject, ModelSubject, ScanSubject, checks_of
from audit.health.completeness import completeness
from audit.health.model import batch_invariance, determinism, parity
from audit.health.strength import convergence
from audit.runtime.progress import Progress
from audit.scanning.attacks import reinforce
from audit.scanning.config import effort_of
from audit.scanning.evidence import MetricRun
from audit.scanning.subject import Subject
from audit.schema import Attack, Health, Parity

CHECK_STEPS = 50
"""Gradient steps of the attacks that the checks run, before any doubling.

More steps make every check slower in proportion; 50 is the number of W-PGD (Bai et al. 2023).
"""

NO_IMAGES = (
    "The wasserstein threat moves mass between the pixels of images (channels, height, width), and "
    "is not applicable to other inputs."
)


def has_pixels(x: Tensor) -> bool:
    """Return whether samples (N, ...) are images of more than one pixel."""
    return x.dim() == 4 and x.shape[2] * x.shape[3] > 1


@dataclass
class ModelChecks:
    """Accumulator of the model checks; after an interrupt it contains the finished ones."""

    health: list[Health] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    parity: Parity | None = None


def check_served_model(scan: Subject, checks: ModelChecks, progress: Progress) -> Subject:
    """Run the checks of the model; drop a differentiable copy that cannot be trusted.

    Args:
        scan: model, samples and options.
        checks: receives the findings, one by one.
        progress: shows the progress of the checks.

    Returns:
        The subject of the scan, without a differentiable copy if it cannot be trusted.

    Raises:
        ModelError: the scores of a sample depend on the other samples of its batch.
    """
    subject = model_subject(scan)
    registered = checks_of(ModelSubject)
    with progress("health checks", len(registered)) as tick:
        agreement = parity(subject)
        checks.health.append(agreement)
        checks.parity = _parity_record(agreement)
        if agreement.status != "pass" and subject.served.has_copy:
            reason = agreement.text
            checks.warnings.append(reason)
            subject = replace(subject, classifier=subject.classifier.score_only(reason))
        tick(1)
        for check in registered:
            if check is not parity:
                checks.health.append(check(subject))
                tick(1)
    found = {entry.id: entry for entry in checks.health}
    # A random model differs in every call; `determinism` reports that.
    dependent = found[batch_invariance.id]
    if found[determinism.id].status != "fail" and dependent.status == "fail":
        raise ModelError(dependent.text)
    return replace(scan, classifier=subject.classifier)


def _parity_record(agreement: Health) -> Parity | None:
    """Return the measured difference between copy and runtime, or None if it was not measured."""
    difference, count = (agreement.numbers.get(k) for k in ("max_abs_difference", "samples"))
    if difference is None or count is None:
        return None
    return Parity(max_abs_difference=difference, samples=int(count))


def check_metric(scan: Subject, run: MetricRun, progress: Progress) -> None:
    """Run the checks of one metric; `convergence` may cause its attacks to be rerun."""
    checks = checks_of(MetricSubject)
    # Rerun attacks update the tensors of the frontier in place, so the subject shows their results.
    subject = metric_subject(scan, run)
    with progress(f"{run.metric.name}: health checks", len(checks)) as tick:
        for check in checks:
            found = check(subject)
            if check is convergence:
                found = _until_converged(scan, run, subject, found, progress)
            run.health.append(found)
            tick(1)


def check_completeness(
    attacks: Mapping[str, Sequence[Attack]],
    failures: Sequence[str],
    missing: Sequence[str],
    *,
    interrupted: bool,
) -> Health:
    """Run the check that every requested part of the scan completed.

    Args:
        attacks: records of the attacks, by metric, for the metrics that were reached.
        failures: sentences on what stopped on an error.
        missing: metrics that were not reached.
        interrupted: whether the user interrupted the scan.
    """
    return completeness(ScanSubject(attacks, failures, missing, interrupted))


def wasserstein_not_applicable() -> Health:
    """Return the entry for a scan whose inputs are not images."""
    return Health(
        id="wasserstein",
        metric=None,
        status="not_applicable",
        title="Inputs are images",
        finding=NO_IMAGES,
        numbers={},
        advice=None,
    )


def _until_converged(
    scan: Subject, run: MetricRun, subject: MetricSubject, found: Health, progress: Progress
) -> Health:
    """Double the steps of the attacks and check again, while longer runs find more examples.

    Args:
        scan: model, samples and options.
        run: evidence under the metric, whose attacks are rerun.
        subject: what the checks of this metric examine.
        found: finding of `convergence` before any doubling.
        progress: shows the progress of the attacks.
    """
    if found.status not in ("warn", "fail") or ITERATIVE[run.metric.name] not in run.plan.attacks:
        return found
    for doubling in range(1, effort_of(scan.config).doublings + 1):
        times = 2**doubling
        reinforce(scan, run, times, progress)
        found = convergence(replace(subject, steps=CHECK_STEPS * times))
        if found.status not in ("warn", "fail"):
            break
    return found


def model_subject(scan: Subject) -> ModelSubject:
    """Return the value that the checks of the model examine."""
    config = scan.config
    images = has_pixels(scan.samples.x)
    name = next(name for name in config.metrics if images or name != "wasserstein")
    metric = METRICS[name](low=config.low, high=config.high)
    return ModelSubject(
        classifier=scan.classifier,
        served=scan.classifier.base or scan.classifier,
        samples=scan.samples,
        confidence=config.confidence,
        class_names=scan.dataset.class_names,
        readings=scan.readings,
        metric=metric,
        delta=_middle_budget(scan, metric),
    )


def metric_subject(scan: Subject, run: MetricRun) -> MetricSubject:
    """Return the value that the checks of one metric examine."""
    return MetricSubject(
        classifier=scan.classifier,
        samples=scan.samples,
        metric=run.metric,
        delta=_middle_budget(scan, run.metric),
        radius=run.frontier.radius,
        x=run.frontier.x,
        found_by=run.frontier.attack,
        certified=run.certified.radius,
        other_examples=tuple(other.frontier.x for other in run.earlier),
        attack=ATTACKS[ITERATIVE[run.metric.name]],
        steps=CHECK_STEPS,
    )


def _middle_budget(scan: Subject, metric: Metric) -> float:
    """Return the middle positive budget, or a tenth of the median diameter if there is none."""
    deltas = [delta for delta in scan.config.deltas_of(metric.name) if delta > 0]
    if not deltas:
        return float(metric.diameter(scan.samples.x).median()) / 10
    return deltas[len(deltas) // 2]
