"""The scan: samples, attacks, judge, certificates, health; the state it leaves is the outcome."""

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from attackers.geometry import METRICS, Metric
from attackers.losses import outvoted
from audit import certify
from audit.certify import Certified, bounding, smoothing
from audit.certify.smoothing import law_of
from audit.data import Dataset
from audit.errors import InternalError, NothingToEvaluate, UsageError, contained
from audit.evidence import chance, readings
from audit.evidence.frontier import Frontier
from audit.evidence.samples import Samples, choose, evaluate, read_samples
from audit.generators.made import used
from audit.models.classifier import Classifier, Load
from audit.models.smoothed import Noise, smooth
from audit.runtime.progress import Progress, silent
from audit.scanning.attacks import attack_all
from audit.scanning.checks import (
    NO_IMAGES,
    check_completeness,
    check_metric,
    check_model,
    has_pixels,
    skip_wasserstein,
)
from audit.scanning.config import ScanConfig
from audit.scanning.state import MetricRun, Scan


def prepare(dataset: Dataset, config: ScanConfig, load: Load) -> Scan:
    """Read the samples, load the model for them, and check that the two belong together.

    Args:
        dataset: labelled data.
        config: the options.
        load: loads the model.

    Raises:
        AuditError: data or model are wrong; see `audit.errors`.
    """
    if not len(dataset):
        raise NothingToEvaluate(f"{dataset.path} holds no samples: there is nothing to evaluate.")
    index = choose(len(dataset), config.samples, config.seed)
    x = read_samples(dataset, index)
    classes = int(np.max(dataset.labels)) + 1
    classifier = load(x[: chance.TRIED], classes)
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
    scan = Scan(classifier, dataset, config, samples, readings=found)
    scan.warnings.extend((*classifier.notes, *dataset.notes, *(entry.text for entry in found)))
    if config.smooth is not None:
        scan.warnings.extend(undecided(scan))
    if len(samples) < len(dataset):
        scan.warnings.append(
            f"A random subset of {len(samples)} of {len(dataset)} samples was audited "
            f"(seed {config.seed})."
        )
    return scan


def _noise(config: ScanConfig) -> Noise:
    """The noise of ``--smooth``; all metrics of a scan share its law."""
    assert config.smooth is not None
    return Noise(config.smooth, law_of(config.metrics[0]), config.low)


def undecided(scan: Scan) -> Iterator[str]:
    """Say how many samples a poll leaves open; they count as errors from the start."""
    samples = scan.samples
    rows = (~samples.correct).nonzero()[:, 0]
    if not len(rows):
        return
    wrong = outvoted(scan.classifier.deployed(samples.x[rows]), samples.labels[rows])
    if not bool(wrong.all()):
        yield (
            f"On {int((~wrong).sum())} of {len(samples)} samples the votes do not settle the class "
            "of the smoothed model: they count as errors, and its accuracy may be higher by them."
        )


def _require_images(config: ScanConfig, x: Tensor) -> None:
    """Stop when the image-Wasserstein threat is all that is asked for, and the inputs are none."""
    if set(config.metrics) == {"wasserstein"} and not has_pixels(x):
        raise UsageError(
            f"{NO_IMAGES} Found inputs of shape {tuple(x.shape[1:])}: choose linf, l2 or l1."
        )


def run(scan: Scan, progress: Progress = silent) -> Scan:
    """Attack, certify and check, metric by metric; an interrupt keeps what was found."""
    try:
        check_model(scan, progress)
        _describe_generator(scan, progress)
        for name in scan.config.metrics:
            if name == "wasserstein" and not has_pixels(scan.samples.x):
                skip_wasserstein(scan)
                continue
            metric = METRICS[name](low=scan.config.low, high=scan.config.high)
            _scan_metric(scan, metric, progress)
    except KeyboardInterrupt:
        scan.interrupted = True
        scan.warnings.append(
            "The scan was interrupted: attacks are incomplete, so attacked accuracies are only "
            "the upper bounds reached so far."
        )
    check_completeness(scan)
    return scan


def _describe_generator(scan: Scan, progress: Progress) -> None:
    """Measure what the generator makes, if there is one; an error costs these numbers alone."""
    if scan.generator is None:
        return

    def failed(reason: str) -> None:
        scan.failures.append(f"What the generator makes: {reason}.")

    with contained("Measuring the generator", failed):
        scan.generated = used(
            scan.generator, scan.classifier, scan.samples, scan.config.confidence, progress
        )


def _scan_metric(scan: Scan, metric: Metric, progress: Progress) -> None:
    samples, config = scan.samples, scan.config
    run = MetricRun(
        metric,
        Frontier.of(samples),
        certify.trivial(samples, asked=config.certify != "none"),
    )
    scan.runs.append(run)
    attack_all(scan, run, progress)
    if config.certify != "none":
        run.certified = _certified(scan, run, progress)
    _check_contradiction(run, samples)
    check_metric(scan, run, progress)
    # The checks may have attacked again.
    _check_contradiction(run, samples)


def _certified(scan: Scan, run: MetricRun, progress: Progress) -> Certified:
    """Certify the samples; an error leaves radii of 0, and the record says what happened."""
    base = scan.classifier.base
    started, said = time.perf_counter(), list[str]()
    with contained("The certificate", said.append):
        if base is not None:
            return _certify_smoothed(scan, base, run.metric, progress)
        return _certify_by_bounds(scan, run, progress) or run.certified
    name = "smoothing" if base is not None else scan.config.certify
    return certify.failed(scan.samples, name, said[0], time.perf_counter() - started)


def _certify_by_bounds(scan: Scan, run: MetricRun, progress: Progress) -> Certified | None:
    samples = scan.samples
    with progress(f"{run.metric.name}: certificates", int(samples.correct.sum())) as tick:
        return bounding.certify(
            scan.classifier,
            run.metric,
            samples,
            run.frontier.radius,
            how=scan.config.certify,
            steps=scan.config.effort_preset.radii,
            tuning=scan.config.effort_preset.tuning,
            work=scan.config.effort_preset.work,
            deltas=scan.config.deltas_of(run.metric.name),
            tick=tick,
        )


def _certify_smoothed(
    scan: Scan, base: Classifier, metric: Metric, progress: Progress
) -> Certified:
    samples, config = scan.samples, scan.config
    with progress(f"{metric.name}: certificates", int(samples.correct.sum())) as tick:
        return smoothing.certify(
            base,
            _noise(config),
            samples,
            metric,
            draws=config.effort_preset.draws,
            confidence=config.confidence,
            tick=tick,
        )


def _check_contradiction(run: MetricRun, samples: Samples) -> None:
    """Raise when a sample is certified beyond a verified adversarial distance."""
    wrong = (run.certified.radius > run.frontier.radius).nonzero()[:, 0]
    if len(wrong):
        row = int(wrong[0])
        raise InternalError(
            f"Sample {int(samples.index[row])} is certified up to "
            f"{run.metric.name} {float(run.certified.radius[row])!r}, yet broken at "
            f"{float(run.frontier.radius[row])!r} by {run.frontier.attack[row]}: this is a bug, "
            "please report it with the model."
        )
