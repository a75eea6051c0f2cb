"""The scan: samples, attacks, judge, certificates, statistics, health; one report at the end."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from attackers import ATTACKS, GRADIENT_FREE
from attackers.geometry import METRICS, Metric
from attackers.losses import LOSSES
from attackers.minimal import minimal_radius
from attackers.threat import Threat
from audit import certify, health, sanity, statistics
from audit.config import ScanConfig
from audit.data import Dataset, check_labels
from audit.errors import InternalError, NothingToEvaluate
from audit.frontier import Frontier
from audit.judge import judge
from audit.models.classifier import Classifier
from audit.models.execution import Counted, Counter
from audit.report import Attack, Clean, Health, Parity, Sensitivity, ThreatResult
from audit.samples import Samples, choose, evaluate, read_samples
from audit.sensitivity import sensitivity

NEAR = 1.3
"""After a search for minimal radii, only samples within this factor of a budget are worth a rerun."""


class Progress(Protocol):
    """Shows long work; the CLI's draws a bar, the default nothing."""

    def __call__(self, stage: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Open a stage of ``total`` samples; the result is called with how many were done."""


@contextmanager
def silent(stage: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show nothing."""
    del stage, total
    yield lambda _: None


@dataclass
class MetricRun:
    """Everything found under one metric so far; kept when the scan is interrupted."""

    metric: Metric
    frontier: Frontier
    certified: certify.Certified
    attacks: list[Attack] = field(default_factory=list)
    sensitivity: list[Sensitivity] = field(default_factory=list)


@dataclass
class Scan:
    """State and outcome of a scan; ``interrupted`` says whether it was stopped on the way."""

    classifier: Classifier
    dataset: Dataset
    config: ScanConfig
    samples: Samples
    parity: Parity | None = None
    runs: list[MetricRun] = field(default_factory=list)
    health: list[Health] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def clean(self) -> Clean:
        """Clean accuracy over all samples."""
        return statistics.clean(self.samples, self.config.confidence)

    @property
    def threats(self) -> list[ThreatResult]:
        """The results of every metric that was begun."""
        return [
            statistics.summarise(
                self.samples,
                metric=run.metric,
                attacked=run.frontier.radius.numpy(),
                certified=run.certified,
                attacks=run.attacks,
                sensitivity=run.sensitivity,
                orders=self.config.orders,
                deltas=self.config.deltas_of(run.metric.name),
                confidence=self.config.confidence,
            )
            for run in self.runs
        ]


def prepare(dataset: Dataset, config: ScanConfig, load: Callable[[Tensor], Classifier]) -> Scan:
    """Read the samples, load the model for them, and check that the two belong together.

    Args:
        dataset: labelled data.
        config: the options.
        load: loads the model, given a few samples.

    Raises:
        AuditError: data or model are wrong; see `audit.errors`.
    """
    if not len(dataset):
        raise NothingToEvaluate(f"{dataset.path} holds no samples: there is nothing to evaluate.")
    index = choose(len(dataset), config.samples, config.seed)
    x = read_samples(dataset, index)
    classifier = load(x[:8])
    check_labels(dataset, classifier.classes)
    labels = torch.from_numpy(np.asarray(dataset.labels)[index].astype(np.int64))
    samples = evaluate(classifier, x, labels, index, config.seed)
    sanity.require_better_than_chance(classifier, samples)
    scan = Scan(classifier, dataset, config, samples)
    scan.warnings.extend((*classifier.notes, *dataset.notes))
    if len(samples) < len(dataset):
        scan.warnings.append(
            f"A random subset of {len(samples)} of {len(dataset)} samples was audited "
            f"(seed {config.seed})."
        )
    return scan


def run(scan: Scan, progress: Progress = silent) -> Scan:
    """Attack, certify and check, metric by metric; an interrupt keeps what was found."""
    try:
        _check_model(scan, progress)
        for name in scan.config.metrics:
            metric = METRICS[name](low=scan.config.low, high=scan.config.high)
            _scan_metric(scan, metric, progress)
    except KeyboardInterrupt:
        scan.interrupted = True
        scan.warnings.append(
            "The scan was interrupted: attacks are incomplete, so attacked accuracies are only "
            "the upper bounds reached so far."
        )
    return scan


def automatic_batch(samples: Samples) -> int:
    """Samples attacked together: bounds the memory of a differentiated batch."""
    return max(32, min(512, 2**21 // max(1, samples.x[0].numel())) // 32 * 32)


def _check_model(scan: Scan, progress: Progress) -> None:
    samples = scan.samples
    with progress("health checks", 6) as tick:
        entry, difference, count = health.parity(scan.classifier, samples)
        if difference is not None:
            scan.parity = Parity(max_abs_difference=difference, samples=count)
        if entry.status != "pass" and scan.classifier.copy is not None:
            scan.classifier = scan.classifier.score_only(entry.detail)
            scan.warnings.append(entry.detail)
        checks: list[Callable[[], Health]] = [
            lambda: health.clean_accuracy(samples, scan.classifier.classes),
            lambda: health.sample_size(samples, scan.config.confidence),
            lambda: health.output_kind(scan.classifier, samples),
            lambda: health.determinism(scan.classifier, samples),
            lambda: health.batch_invariance(scan.classifier, samples),
            lambda: health.finite_differences(scan.classifier, samples),
        ]
        for check in checks:
            scan.health.append(check())
            tick(1)
        scan.health.append(entry)


def _scan_metric(scan: Scan, metric: Metric, progress: Progress) -> None:
    samples, config = scan.samples, scan.config
    run = MetricRun(
        metric,
        Frontier.of(samples),
        certify.trivial(samples, asked=config.certify != "none"),
    )
    scan.runs.append(run)
    white_box = scan.classifier.attackable is not None
    names = config.attacks or (("fgsm", "minimal", "pgd") if white_box else ("random",))
    for name in names:
        if not white_box and name not in GRADIENT_FREE:
            run.attacks.append(_not_applicable(name, "It needs gradients, and the model has none."))
            continue
        with _recorded(run, name, scan) as attacker:
            if name == "minimal":
                _attack_minimal(scan, run, attacker, progress)
            else:
                _attack_fixed(scan, run, name, attacker, progress)
    if white_box:
        _measure_sensitivity(scan, run, progress)
    _check_contradiction(run, samples)
    _check_metric(scan, run, progress)


def _check_metric(scan: Scan, run: MetricRun, progress: Progress) -> None:
    """The health checks that need a metric, at its middle budget."""
    classifier, samples, metric = scan.classifier, scan.samples, run.metric
    deltas = [d for d in scan.config.deltas_of(metric.name) if d > 0] or [
        float(metric.diameter(samples.x).median()) / 10
    ]
    delta = deltas[len(deltas) // 2]
    found = run.frontier.broken.nonzero()[: 4 * health.PROBE, 0]
    checks: list[Callable[[], Health]] = [
        lambda: health.budget_monotone(classifier, metric, samples, delta),
        lambda: health.unbounded_attack(classifier, metric, samples),
        lambda: health.random_not_better(classifier, metric, samples, delta),
        lambda: health.parity_on_adversarial(classifier, metric, run.frontier.x[found]),
        lambda: health.certified_below_attacked(
            metric.name, run.certified.radius, run.frontier.radius
        ),
    ]
    if len(scan.runs) == 1:
        checks.insert(0, lambda: health.gradients(classifier, metric, samples, delta))
    with progress(f"{metric.name}: health checks", len(checks)) as tick:
        for check in checks:
            scan.health.append(check())
            tick(1)


@dataclass
class Attacker:
    """The model as one attack sees it, with what it spent and what it broke."""

    classifier: Classifier
    counter: Counter
    logits: Callable[[Tensor], Tensor]
    broken: set[int] = field(default_factory=set)


@contextmanager
def _recorded(run: MetricRun, name: str, scan: Scan) -> Iterator[Attacker]:
    """Count passes and time of one attack, and record it even when it is interrupted."""
    counter = Counter()
    classifier = scan.classifier
    source = classifier.differentiable if classifier.attackable else classifier.deployed
    attacker = Attacker(
        replace(classifier, serve=Counted(classifier.serve, counter)),
        counter,
        Counted(source, counter),
    )
    started = time.perf_counter()
    status, detail = "ran", ""
    try:
        yield attacker
    except KeyboardInterrupt:
        status, detail = "error", "Interrupted before all samples were attacked."
        raise
    finally:
        run.attacks.append(
            Attack(
                name=name,
                status="ran" if status == "ran" else "error",
                detail=detail,
                broken=len(attacker.broken),
                forwards=counter.forwards,
                gradients=counter.gradients,
                seconds=time.perf_counter() - started,
            )
        )


def _attack_minimal(scan: Scan, run: MetricRun, attacker: Attacker, progress: Progress) -> None:
    """Minimal radii of all correct samples."""
    rows = scan.samples.correct.nonzero()[:, 0]
    with progress(f"{run.metric.name}: minimal radii", len(rows)) as tick:
        for chosen in rows.split(_batch(scan)):
            attack = partial(minimal_radius, metric=run.metric)
            _attack(scan, run, attacker, "minimal", "minimal", chosen, attack)
            tick(len(chosen))


def _attack_fixed(
    scan: Scan, run: MetricRun, name: str, attacker: Attacker, progress: Progress
) -> None:
    """An attack at every budget, largest first, on the samples it could still change.

    PGD runs with two losses: neither dominates the other. A sample whose radius is known to be far
    above the budget after a search for minimal radii is not attacked again there.
    """
    deltas = [d for d in scan.config.deltas_of(run.metric.name) if d > 0]
    searched = any(entry.name == "minimal" for entry in run.attacks)
    losses = ("ce", "margin") if name == "pgd" else (None,)
    total = len(deltas) * len(losses) * int(scan.samples.correct.sum())
    with progress(f"{run.metric.name}: {name}", total) as tick:
        for delta in reversed(deltas):
            for loss in losses:
                radius = run.frontier.radius
                near = radius <= (NEAR * delta if searched else math.inf)
                rows = (scan.samples.correct & (radius > delta) & near).nonzero()[:, 0]
                tick(int(scan.samples.correct.sum()) - len(rows))
                options = {} if loss is None else {"loss": LOSSES[loss]}
                attack = partial(ATTACKS[name], threat=Threat(run.metric, delta), **options)
                for chosen in rows.split(_batch(scan)):
                    purpose = f"{name} {loss} {delta!r}" if loss else f"{name} {delta!r}"
                    _attack(scan, run, attacker, name, purpose, chosen, attack)
                    tick(len(chosen))


def _attack(
    scan: Scan,
    run: MetricRun,
    attacker: Attacker,
    name: str,
    purpose: str,
    rows: Tensor,
    attack: Callable[..., Tensor],
) -> None:
    """Attack some rows, let the judge decide, and keep what is nearer than before."""
    samples, device = scan.samples, scan.classifier.device
    if not len(rows):
        return
    candidates = attack(
        attacker.logits,
        samples.x[rows].to(device),
        samples.labels[rows].to(device),
        generator=samples.generator.take(rows).fold(f"{run.metric.name} {purpose}"),
    )
    verdict = judge(
        attacker.classifier, run.metric, samples.x[rows], candidates.cpu(), samples.labels[rows]
    )
    run.frontier.offer(rows, verdict, name)
    attacker.broken.update(rows[verdict.broken].tolist())


def _measure_sensitivity(scan: Scan, run: MetricRun, progress: Progress) -> None:
    samples, config = scan.samples, scan.config
    deltas = config.deltas_of(run.metric.name)

    with _recorded(run, "w-fgsm", scan) as attacker:

        def offer(rows: Tensor, x: Tensor, wrong: Tensor) -> None:
            chosen = rows[wrong & samples.correct[rows]]
            if not len(chosen):
                return
            verdict = judge(
                attacker.classifier,
                run.metric,
                samples.x[chosen],
                x[wrong & samples.correct[rows]],
                samples.labels[chosen],
                line_search=0,
            )
            run.frontier.offer(chosen, verdict, "w-fgsm")
            attacker.broken.update(chosen[verdict.broken].tolist())

        counted = replace(
            attacker.classifier, attackable=Counted(_attackable(scan), attacker.counter)
        )
        with progress(f"{run.metric.name}: sensitivity", 6 * len(samples)) as tick:
            run.sensitivity = sensitivity(
                counted,
                run.metric,
                samples,
                orders=config.orders,
                deltas=deltas,
                confidence=config.confidence,
                seed=config.seed,
                rows=_batch(scan),
                offer=offer,
                tick=tick,
            )


def _attackable(scan: Scan) -> Callable[[Tensor], Tensor]:
    assert scan.classifier.attackable is not None
    return scan.classifier.attackable


def _check_contradiction(run: MetricRun, samples: Samples) -> None:
    """Raise when a sample is certified beyond a verified adversarial distance."""
    wrong = (run.certified.radius > run.frontier.radius).nonzero()[:, 0]
    if len(wrong):
        row = int(wrong[0])
        raise InternalError(
            f"Sample {int(samples.index[row])} is certified by {run.certified.certifier.name} up to "
            f"{run.metric.name} {float(run.certified.radius[row])!r}, yet broken at "
            f"{float(run.frontier.radius[row])!r} by {run.frontier.attack[row]}: this is a bug, "
            "please report it with the model."
        )


def _batch(scan: Scan) -> int:
    return scan.config.batch_size or automatic_batch(scan.samples)


def _not_applicable(name: str, detail: str) -> Attack:
    return Attack(
        name=name,
        status="not_applicable",
        detail=detail,
        broken=None,
        forwards=None,
        gradients=None,
        seconds=None,
    )
