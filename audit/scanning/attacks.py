"""The attacks of a scan on one metric: each proposes, the judge decides, the frontier keeps."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite

import torch
from torch import Tensor

from attackers import GRADIENT_FREE, ITERATIVE, METRICS_OF, defined
from attackers.geometry import Metric
from attackers.hopskipjump import hop_skip_jump
from attackers.losses import LOSSES
from attackers.minimal import minimal_radius
from attackers.threat import Threat
from attackers.wdro import W_PGD_STEPS, w_pgd
from audit.errors import contained
from audit.evidence.judge import LINE_SEARCH, judge
from audit.generators.made import transferred
from audit.models.classifier import Classifier
from audit.models.execution import Counted, Counter
from audit.runtime.progress import Progress
from audit.scanning.effort import Stage
from audit.scanning.sensitivity import SENSITIVITY_LOSSES, sensitivity
from audit.scanning.stages import Run, at_radius
from audit.scanning.state import INTERRUPTED, WHITE_BOX, MetricRun, Scan
from audit.schema import Attack, RunStatus

BLIND = 2.0
"""The same factor after a search by decisions alone, whose radii are up to twice too large."""

FORWARD_ONLY = GRADIENT_FREE | {"wagan"}
"""What a model without gradients can be attacked by."""

WITHIN = 3.0
"""Radii of at most this many largest budgets are hunted further: those of orders that share the
budget between samples reach about that far."""


def attack_all(scan: Scan, run: MetricRun, progress: Progress) -> None:
    """Run the chosen attacks, or all that apply, then the first-order distributional one."""
    for name in scan.attacks:
        if scan.config.attacks is None and name in WHITE_BOX and not defined(name, run.metric):
            continue
        reason = not_applicable(name, run.metric, scan.classifier)
        if reason:
            run.attacks.append(_not_applicable(name, reason))
            continue
        with _recorded(run, name, scan) as attacker:
            attacker.detail = _detail(scan, name)
            if name == "minimal":
                _attack_minimal(scan, run, attacker, progress)
            elif name == "hopskipjump":
                _attack_decisions(scan, run, attacker, progress)
            elif name == "w-pgd":
                _attack_law(scan, run, attacker, progress)
            else:
                _attack_fixed(scan, run, name, attacker, progress)
    if scan.classifier.attackable is not None:
        _measure_sensitivity(scan, run, progress)


def reinforce(scan: Scan, run: MetricRun, times: int, progress: Progress) -> None:
    """Run the attack by many gradients again with so many times the steps."""
    name = ITERATIVE[run.metric.name]
    with _recorded(run, name, scan, times) as attacker:
        attacker.detail = f"Again with {times} times the steps."
        _attack_fixed(scan, run, name, attacker, progress, times)


def _detail(scan: Scan, name: str) -> str:
    """What a reader has to know of an attack beside its name."""
    if name != "wagan" or scan.generator is None:
        return ""
    trained = scan.generator
    other = transferred(scan.classifier, trained)
    return (
        f"A {trained.variant} generator, head {trained.network.spec.head}, trained for "
        f"{'another model (a transfer attack)' if other else 'this model'} up to a "
        f"wasserstein radius of {trained.radius:g}."
    )


def not_applicable(name: str, metric: Metric, classifier: Classifier) -> str:
    """Why an attack cannot run, empty where it can."""
    if classifier.attackable is None and name not in FORWARD_ONLY:
        return "It needs gradients, and the model has none."
    if not defined(name, metric):
        return f"It is defined for {' and '.join(sorted(METRICS_OF[name]))} only."
    if name == "square" and classifier.output == "labels":
        return "It needs scores, and the model gives labels alone."
    return ""


@dataclass
class Attacker:
    """The model as one attack sees it, with what it spent and what it broke."""

    classifier: Classifier
    broken: set[int] = field(default_factory=set)
    detail: str = ""

    @property
    def logits(self) -> Callable[[Tensor], Tensor]:
        """What is attacked: the differentiable copy, or the served scores where there is none."""
        model = self.classifier
        return model.deployed if model.attackable is None else model.differentiable


@contextmanager
def _recorded(run: MetricRun, name: str, scan: Scan, times: int = 1) -> Iterator[Attacker]:
    """Count passes and time of one attack, and record it even when it is cut short.

    An error ends this attack alone: what it found was judged and stays, the record says what
    happened, and the scan goes on. A contradiction that only a bug of ours can cause is raised.
    """
    counter = Counter()
    classifier = scan.classifier
    logits = classifier.attackable
    attacker = Attacker(
        replace(
            classifier,
            serve=Counted(classifier.serve, counter),
            attackable=None if logits is None else Counted(logits, counter),
        )
    )
    started = time.perf_counter()
    status: RunStatus = "ran"

    def failed(reason: str) -> None:
        nonlocal status
        status, attacker.detail = "error", f"It stopped on an error: {reason}."
        run.errors.append(f"{run.metric.name}, {name}: {attacker.detail}")

    try:
        with contained(f"The attack {name}", failed):
            yield attacker
    except KeyboardInterrupt:
        status, attacker.detail = "error", INTERRUPTED
        raise
    finally:
        run.attacks.append(
            Attack(
                name=name,
                status=status,
                detail=attacker.detail,
                broken=len(attacker.broken),
                forwards=counter.forwards,
                gradients=counter.gradients,
                seconds=time.perf_counter() - started,
                budget=scan.config.effort_preset.budget(name, times),
            )
        )


def _attack_minimal(scan: Scan, run: MetricRun, attacker: Attacker, progress: Progress) -> None:
    """Minimal radii of all correct samples, and once more where they are of the budgets' order."""
    effort = scan.config.effort_preset
    attack = partial(minimal_radius, metric=run.metric, steps=effort.hunt_steps)
    correct = scan.samples.correct
    largest = max(scan.config.deltas_of(run.metric.name), default=0.0)
    with progress(f"{run.metric.name}: minimal radii", 2 * int(correct.sum())) as tick:
        every = correct.nonzero()[:, 0]
        first = partial(attack, hunts=effort.hunts)
        _attack(scan, run, attacker, "minimal", "minimal", every, lambda _: first, tick)
        if effort.more_hunts and any(isfinite(order) for order in scan.config.orders):
            more = partial(attack, hunts=effort.more_hunts, first=effort.hunts)
            near = (correct & (run.frontier.radius <= WITHIN * largest)).nonzero()[:, 0]
            tick(len(every) - len(near))
            _attack(scan, run, attacker, "minimal", "minimal", near, lambda _: more, tick)
    run.searched |= correct
    run.followed |= correct


def _attack_decisions(scan: Scan, run: MetricRun, attacker: Attacker, progress: Progress) -> None:
    """Search minimal radii by labels alone.

    By default, samples that have a gradient and were searched along it are left out.
    """
    attack = partial(hop_skip_jump, metric=run.metric, queries=scan.config.effort_preset.queries)
    chosen = scan.samples.correct
    if scan.config.attacks is None and scan.classifier.attackable is not None:
        chosen = chosen & (scan.flat | ~run.followed)
    rows = chosen.nonzero()[:, 0]
    with progress(f"{run.metric.name}: hopskipjump", len(rows)) as tick:
        _attack(scan, run, attacker, "hopskipjump", "hopskipjump", rows, lambda _: attack, tick)
    run.searched |= chosen


def _attack_law(scan: Scan, run: MetricRun, attacker: Attacker, progress: Progress) -> None:
    """W-PGD on the whole data as one law, for every order above one, budget and loss.

    The judge walks its successes back to the boundary and drops its failures, so that what it
    wasted is free for others when the budget is allocated.
    """
    samples, device = scan.samples, scan.classifier.device
    x0, labels = samples.x.to(device), samples.labels.to(device)
    orders = [order for order in scan.config.orders if order > 1]
    deltas = [d for d in scan.config.deltas_of(run.metric.name) if d > 0]
    laws = list(itertools.product(orders, deltas, SENSITIVITY_LOSSES))
    with progress(f"{run.metric.name}: w-pgd", len(laws) * W_PGD_STEPS * len(samples)) as tick:
        for order, delta, loss in laws:
            x = w_pgd(
                attacker.logits,
                x0,
                labels,
                Threat(run.metric, delta, order),
                loss=LOSSES[loss],
                steps=W_PGD_STEPS,
                rows=scan.batch,
                tick=lambda: tick(len(samples)),
            ).cpu()
            for rows in samples.correct.nonzero()[:, 0].split(scan.batch):
                _propose(scan, run, attacker, "w-pgd", rows, x[rows])


def _attack_fixed(
    scan: Scan,
    run: MetricRun,
    name: str,
    attacker: Attacker,
    progress: Progress,
    times: int = 1,
) -> None:
    """An attack at every budget, largest first, on the samples it could still change.

    A sample whose radius is known to be far above the budget after a search for minimal radii is
    not attacked again there, unless it has no gradient and the search was blind.
    """
    effort = scan.config.effort_preset
    deltas = [d for d in scan.config.deltas_of(run.metric.name) if d > 0]
    factor = effort.near_grid if scan.config.deltas is None else effort.near
    # A search by decisions alone ends farther from the nearest example.
    factors = torch.full(run.followed.shape, max(factor, BLIND), dtype=torch.float64)
    factors[run.followed] = factor
    stages = effort.stages_of(name, times)
    if scan.classifier.attackable is None and name == "wagan":
        stages = tuple(stage for stage in stages if not stage.steps)
    correct = int(scan.samples.correct.sum())
    with progress(f"{run.metric.name}: {name}", len(deltas) * len(stages) * correct) as tick:
        for delta in reversed(deltas):
            for number, stage in enumerate(stages):
                radius = run.frontier.radius
                near = (radius <= factors * delta) | ~radius.isfinite() | ~run.searched
                near |= scan.flat
                if stage.warm:
                    near &= radius.isfinite()
                rows = (scan.samples.correct & (radius > delta) & near).nonzero()[:, 0]
                tick(correct - len(rows))
                threat = Threat(run.metric, delta)

                def attack(chosen: Tensor, stage: Stage = stage, threat: Threat = threat) -> Run:
                    known = run.frontier.x[chosen].to(scan.classifier.device)
                    network = None if scan.generator is None else scan.generator.network
                    return at_radius(name, stage, threat, known, network)

                purpose = f"{name} {number} {delta!r} {times}"
                _attack(scan, run, attacker, name, purpose, rows, attack, tick)


def _attack(
    scan: Scan,
    run: MetricRun,
    attacker: Attacker,
    name: str,
    purpose: str,
    rows: Tensor,
    attack_of: Callable[[Tensor], Run],
    tick: Callable[[int], None],
) -> None:
    """Attack some rows, in batches that fit into memory, and propose the results."""
    samples, device = scan.samples, scan.classifier.device

    def one_batch(chosen: Tensor) -> None:
        candidates = attack_of(chosen)(
            attacker.logits,
            samples.x[chosen].to(device),
            samples.labels[chosen].to(device),
            generator=samples.generator.take(chosen).fold(f"{run.metric.name} {purpose}"),
        )
        _propose(scan, run, attacker, name, chosen, candidates.cpu())
        tick(len(chosen))

    scan.batches.each(rows, one_batch)


def _propose(
    scan: Scan,
    run: MetricRun,
    attacker: Attacker,
    name: str,
    rows: Tensor,
    candidates: Tensor,
    *,
    line_search: int = LINE_SEARCH,
) -> None:
    """Let the judge decide on candidates, and keep what is nearer than before."""
    samples = scan.samples
    verdict = judge(
        attacker.classifier,
        run.metric,
        samples.x[rows],
        candidates,
        samples.labels[rows],
        line_search=line_search,
    )
    run.frontier.offer(rows, verdict, name)
    attacker.broken.update(rows[verdict.broken].tolist())


def _measure_sensitivity(scan: Scan, run: MetricRun, progress: Progress) -> None:
    samples, config = scan.samples, scan.config
    deltas = config.deltas_of(run.metric.name)

    with _recorded(run, "w-fgsm", scan) as attacker:

        def offer(rows: Tensor, x: Tensor, wrong: Tensor) -> None:
            fooled = wrong & samples.correct[rows]
            if bool(fooled.any()):
                _propose(scan, run, attacker, "w-fgsm", rows[fooled], x[fooled], line_search=0)

        with progress(f"{run.metric.name}: sensitivity", 6 * len(samples)) as tick:
            measured = sensitivity(
                attacker.classifier,
                run.metric,
                samples,
                orders=config.orders,
                deltas=deltas,
                confidence=config.confidence,
                seed=config.seed,
                rows=scan.batch,
                offer=offer,
                tick=tick,
            )
            run.sensitivity, run.losses = measured.entries, measured.losses


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
