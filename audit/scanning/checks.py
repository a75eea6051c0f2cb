"""The health checks of a scan: the values that they look at, and what follows from their findings.

Checks of one metric look at its middle budget, on a probe of the samples. Where a longer run would
have found more, the attacks are run again with twice the steps, as often as the effort allows.
"""

from dataclasses import replace

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
from audit.scanning.state import MetricRun, Scan
from audit.schema import Health, Parity

CHECK_STEPS = 50
"""Gradient steps of the runs that the checks make, before any doubling.

More steps make every check slower in proportion; 50 are W-PGD's number (Bai et al. 2023).
"""

NO_IMAGES = (
    "The wasserstein threat moves mass between the pixels of images (channels, height, width), and "
    "is not applicable to other inputs."
)


def has_pixels(x: Tensor) -> bool:
    """Return whether samples (N, ...) are images of more than one pixel."""
    return x.dim() == 4 and x.shape[2] * x.shape[3] > 1


def check_model(scan: Scan, progress: Progress) -> None:
    """Run the checks of the model; drop a differentiable copy that cannot be trusted.

    Raises:
        ModelError: the scores of a sample depend on the other samples of its batch.
    """
    subject = model_subject(scan)
    checks = checks_of(ModelSubject)
    found: dict[str, Health] = {}
    with progress("health checks", len(checks)) as tick:
        agreement = found[parity.id] = parity(subject)
        difference = agreement.numbers.get("max_abs_difference")
        if difference is not None:
            count = int(agreement.numbers["samples"] or 0)
            scan.parity = Parity(max_abs_difference=difference, samples=count)
        if agreement.status != "pass" and subject.served.copy is not None:
            reason = sentences(agreement)
            scan.classifier = scan.classifier.score_only(reason)
            scan.warnings.append(reason)
            subject = replace(subject, classifier=scan.classifier)
        tick(1)
        for check in checks:
            if check is not parity:
                found[check.id] = check(subject)
                tick(1)
    scan.health.extend(found.values())
    # A model that is random differs in every call, which is another finding.
    dependent = found[batch_invariance.id]
    if found[determinism.id].status != "fail" and dependent.status == "fail":
        raise ModelError(sentences(dependent))


def check_metric(scan: Scan, run: MetricRun, progress: Progress) -> None:
    """Run the checks of one metric; `convergence` may have its attacks run again."""
    checks = checks_of(MetricSubject)
    with progress(f"{run.metric.name}: health checks", len(checks)) as tick:
        for check in checks:
            # Built anew for each check: attacks that were run again have moved the radii.
            found = check(metric_subject(scan, run))
            if check is convergence:
                found = _until_converged(scan, run, found, progress)
            scan.health.append(found)
            tick(1)


def check_completeness(scan: Scan) -> None:
    """Check whether everything that was asked for ran to its end."""
    reached = {run.metric.name: run.attacks for run in scan.runs}
    subject = ScanSubject(
        attacks=reached,
        failures=[*scan.failures, *(failure for run in scan.runs for failure in run.failed)],
        missing=[name for name in scan.config.metrics if scan.interrupted and name not in reached],
        interrupted=scan.interrupted,
    )
    scan.health.append(completeness(subject))


def skip_wasserstein(scan: Scan) -> None:
    """Record that the image-Wasserstein threat does not apply to the inputs."""
    scan.health.append(
        Health(
            id="wasserstein",
            metric=None,
            status="not_applicable",
            title="Inputs are images",
            finding=NO_IMAGES,
            numbers={},
            advice=None,
        )
    )
    scan.warnings.append(NO_IMAGES)


def _until_converged(scan: Scan, run: MetricRun, found: Health, progress: Progress) -> Health:
    """While longer runs find more, double the steps of the attacks and check again.

    Args:
        scan: the scan.
        run: its metric; its attacks are run again.
        found: what `convergence` found before any doubling.
        progress: of the attacks.
    """
    if found.status not in ("warn", "fail") or ITERATIVE[run.metric.name] not in scan.attacks:
        return found
    for doubling in range(1, scan.config.effort_preset.doublings + 1):
        times = 2**doubling
        reinforce(scan, run, times, progress)
        found = convergence(replace(metric_subject(scan, run), steps=CHECK_STEPS * times))
        if found.status not in ("warn", "fail"):
            break
    return found


def model_subject(scan: Scan) -> ModelSubject:
    """Build the value that the checks of the model look at."""
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


def metric_subject(scan: Scan, run: MetricRun) -> MetricSubject:
    """Build the value that the checks of one metric look at."""
    return MetricSubject(
        classifier=scan.classifier,
        samples=scan.samples,
        metric=run.metric,
        delta=_middle_budget(scan, run.metric),
        radius=run.frontier.radius,
        x=run.frontier.x,
        found_by=run.frontier.attack,
        certified=run.certified.radius,
        other_examples=tuple(other.frontier.x for other in scan.runs if other is not run),
        attack=ATTACKS[ITERATIVE[run.metric.name]],
        steps=CHECK_STEPS,
    )


def _middle_budget(scan: Scan, metric: Metric) -> float:
    """Return the middle positive budget, or a tenth of the median diameter where there is none."""
    deltas = [delta for delta in scan.config.deltas_of(metric.name) if delta > 0]
    if not deltas:
        return float(metric.diameter(scan.samples.x).median()) / 10
    return deltas[len(deltas) // 2]


def sentences(entry: Health) -> str:
    """Return the finding and the advice of a check as one text."""
    return " ".join(part for part in (entry.finding, entry.advice) if part)
