"""Scan of a model: reads the samples, then attacks, certifies and checks under every metric."""

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from attackers.geometry import METRICS, Metric
from attackers.losses import outvoted
from audit import certify
from audit.certify import Certified, bounding, smoothing
from audit.certify.bounding import BoundSettings
from audit.certify.smoothing import law_of
from audit.data import Dataset
from audit.errors import InternalError, NothingToEvaluate, UsageError, contained
from audit.evidence import chance, readings
from audit.evidence.frontier import Frontier
from audit.evidence.samples import Samples, choose, evaluate, read_samples
from audit.generators.generator_files import Trained
from audit.generators.made import used
from audit.models.classifier import Classifier, Load
from audit.models.smoothed import Noise, smooth
from audit.options import ScanConfig
from audit.runtime.progress import Progress, silent
from audit.scanning.attacks import attack_all
from audit.scanning.checks import (
    NO_IMAGES,
    ModelChecks,
    check_completeness,
    check_metric,
    check_served_model,
    has_pixels,
    wasserstein_not_applicable,
)
from audit.scanning.config import effort_of, require_attacks
from audit.scanning.evidence import MetricEvidence, MetricRun
from audit.scanning.result import ScanResult
from audit.scanning.subject import Plan, Subject, plan_of
from audit.schema import GeneratorUsed, Status
from audit.statistics import summary

INTERRUPTED_SCAN = (
    "The scan was interrupted: attacks are incomplete, so attacked accuracies are only the upper "
    "bounds reached so far."
)


def prepare(dataset: Dataset, config: ScanConfig, load: Load) -> Subject:
    """Read the samples, load the model, and check that they fit together.

    Args:
        dataset: labelled data.
        config: the options.
        load: loads the model.

    Raises:
        AuditError: the data or the model is unsuitable; see `audit.errors`.
    """
    require_attacks(config)
    if not len(dataset):
        raise NothingToEvaluate(f"{dataset.path} holds no samples: there is nothing to evaluate.")
    index = choose(len(dataset), config.samples, config.seed)
    x = read_samples(dataset, index)
    classes = int(np.max(dataset.labels)) + 1
    classifier = load(x[: chance.TRIAL_SAMPLES], classes)
    labels = torch.from_numpy(np.asarray(dataset.labels)[index].astype(np.int64))
    readings.require_labels(dataset, classifier, x, labels)
    samples = evaluate(classifier, x, labels, index, config.seed)
    found = readings.findings(classifier, samples, dataset)
    doubts = [finding.text for finding in found if finding.doubtful]
    chance.require_better_than_chance(classifier, samples, doubts)
    _require_images(config, x)
    if config.smooth is not None:
        classifier = smooth(classifier, _noise(config), config.seed)
        samples = evaluate(classifier, x, labels, index, config.seed)
        chance.require_votes(classifier, samples, config.smooth)
    warnings = [*classifier.notes, *dataset.notes, *(entry.text for entry in found)]
    if config.smooth is not None:
        warnings.extend(undecided(classifier, samples))
    if len(samples) < len(dataset):
        warnings.append(
            f"A random subset of {len(samples)} of {len(dataset)} samples was audited "
            f"(seed {config.seed})."
        )
    return Subject(classifier, dataset, config, samples, found, tuple(warnings))


def _noise(config: ScanConfig) -> Noise:
    """Return the noise of ``--smooth``; all metrics of a scan share its law."""
    assert config.smooth is not None
    return Noise(config.smooth, law_of(config.metrics[0]), config.low)


def undecided(classifier: Classifier, samples: Samples) -> Iterator[str]:
    """Yield a warning if the votes leave the class of some samples open; these count as errors."""
    rows = (~samples.correct).nonzero()[:, 0]
    if not len(rows):
        return
    wrong = outvoted(classifier.deployed(samples.x[rows]), samples.labels[rows])
    if not bool(wrong.all()):
        yield (
            f"On {int((~wrong).sum())} of {len(samples)} samples the votes do not settle the class "
            "of the smoothed model: they count as errors, so its true accuracy may be higher."
        )


def _require_images(config: ScanConfig, x: Tensor) -> None:
    """Raise `UsageError` if image-Wasserstein is the only threat and the inputs are not images."""
    if set(config.metrics) == {"wasserstein"} and not has_pixels(x):
        raise UsageError(
            f"{NO_IMAGES} Found inputs of shape {tuple(x.shape[1:])}: choose linf, l2 or l1."
        )


def run(
    subject: Subject, progress: Progress = silent, generator: Trained | None = None
) -> ScanResult:
    """Attack, certify and check under every metric in turn; an interrupt keeps what was found.

    Args:
        subject: model, samples and options, as `prepare` returns them.
        progress: shows the progress of the scan.
        generator: the trained generator that attacks may use.
    """
    subject = replace(subject, generator=generator)
    checks = ModelChecks()
    evidence: list[MetricEvidence] = []
    skipped: list[str] = []
    generated: list[GeneratorUsed] = []
    failures: list[str] = []
    interrupted = False
    try:
        subject = check_served_model(subject, checks, progress)
        generated += _describe_generator(subject, failures, progress)
        plan = plan_of(subject)
        failures += plan.failures
        for name in subject.config.metrics:
            if name == "wasserstein" and not has_pixels(subject.samples.x):
                checks.health.append(wasserstein_not_applicable())
                skipped.append(NO_IMAGES)
                continue
            metric = METRICS[name](low=subject.config.low, high=subject.config.high)
            evidence.append(scan_metric(subject, metric, progress, plan, tuple(evidence)))
            if evidence[-1].interrupted:
                interrupted = True
                break
    except KeyboardInterrupt:
        interrupted = True
    errors = [*failures, *(error for found in evidence for error in found.errors)]
    findings = [*checks.health, *(entry for found in evidence for entry in found.health)]
    reached = {found.metric.name: found.attacks for found in evidence}
    missing = [name for name in subject.config.metrics if interrupted and name not in reached]
    status: Status = "interrupted" if interrupted else "partial" if errors else "complete"
    return ScanResult(
        subject=subject,
        evidence=tuple(evidence),
        clean=summary.clean(subject.samples.correct.numpy(), subject.config.confidence),
        health=(
            *findings,
            check_completeness(reached, errors, missing, interrupted=interrupted),
        ),
        warnings=(
            *subject.warnings,
            *checks.warnings,
            *skipped,
            *([INTERRUPTED_SCAN] if interrupted else []),
        ),
        status=status,
        failures=tuple(failures),
        parity=checks.parity,
        generated=generated[0] if generated else None,
    )


def _describe_generator(
    subject: Subject, failures: list[str], progress: Progress
) -> Iterator[GeneratorUsed]:
    """Measure the generator, if there is one; an error loses these measurements only."""
    if subject.generator is None:
        return

    def failed(reason: str) -> None:
        failures.append(f"The measurement of the generator: {reason}.")

    with contained("Measuring the generator", failed):
        samples, confidence = subject.samples, subject.config.confidence
        yield used(subject.generator, subject.classifier, samples, confidence, progress)


def scan_metric(
    subject: Subject,
    metric: Metric,
    progress: Progress,
    plan: Plan,
    earlier: tuple[MetricEvidence, ...] = (),
) -> MetricEvidence:
    """Attack, certify and check under one metric; an interrupt keeps what was found.

    Args:
        subject: model, samples and options.
        metric: the geometry.
        progress: shows the progress of the scan.
        plan: the attacks.
        earlier: evidence under other metrics, whose examples are tried under this metric too.
    """
    samples, asked = subject.samples, subject.config.certify != "none"
    run = MetricRun(
        metric, Frontier.of(samples), certify.trivial(samples, asked=asked), plan, earlier
    )
    interrupted = False
    try:
        attack_all(subject, run, progress)
        if asked:
            run.certified = _certified(subject, run, progress)
        _check_contradiction(run, samples)
        check_metric(subject, run, progress)
        # The checks may have attacked again.
        _check_contradiction(run, samples)
    except KeyboardInterrupt:
        interrupted = True
    return run.finished(subject, interrupted=interrupted)


def _certified(subject: Subject, run: MetricRun, progress: Progress) -> Certified:
    """Certify the samples; after an error all radii are 0, and the record states the error."""
    base = subject.classifier.base
    started, said = time.perf_counter(), list[str]()
    with contained("The certificate", said.append):
        if base is not None:
            return _certify_smoothed(subject, base, run.metric, progress)
        return _certify_by_bounds(subject, run, progress) or run.certified
    name = "smoothing" if base is not None else subject.config.certify
    found = certify.failed(subject.samples, name, said[0], time.perf_counter() - started)
    run.errors.append(f"{run.metric.name}, certificate {name}: {found.certifier.detail}")
    return found


def _certify_by_bounds(subject: Subject, run: MetricRun, progress: Progress) -> Certified | None:
    samples = subject.samples
    with progress(f"{run.metric.name}: certificates", int(samples.correct.sum())) as tick:
        return bounding.certify(
            subject.classifier,
            run.metric,
            samples,
            run.frontier.radius,
            BoundSettings(
                method=subject.config.certify,
                steps=effort_of(subject.config).radii,
                tuning=effort_of(subject.config).tuning,
                work=effort_of(subject.config).work,
                deltas=subject.config.deltas_of(run.metric.name),
            ),
            tick,
        )


def _certify_smoothed(
    subject: Subject, base: Classifier, metric: Metric, progress: Progress
) -> Certified:
    samples, config = subject.samples, subject.config
    with progress(f"{metric.name}: certificates", int(samples.correct.sum())) as tick:
        return smoothing.certify_smoothed(
            base,
            _noise(config),
            samples,
            metric,
            draws=effort_of(config).draws,
            confidence=config.confidence,
            tick=tick,
        )


def _check_contradiction(run: MetricRun, samples: Samples) -> None:
    """Raise `InternalError` if a sample is certified beyond a verified adversarial distance."""
    wrong = (run.certified.radius > run.frontier.radius).nonzero()[:, 0]
    if len(wrong):
        row = int(wrong[0])
        raise InternalError(
            f"Sample {int(samples.index[row])} is certified up to "
            f"{run.metric.name} {float(run.certified.radius[row])!r}, yet broken at "
            f"{float(run.frontier.radius[row])!r} by {run.frontier.attack[row]}: this is a bug, "
            "please report it with the model."
        )
