"""Attacks of a scan under one metric: candidates are judged, and the frontier keeps the nearest."""

import itertools
from collections.abc import Callable
from functools import partial
from math import isfinite

import torch
from torch import Tensor

from attackers import ATTACKS, ITERATIVE
from attackers.entry import AttackEntry, Configured, Given
from attackers.geometry import Metric
from attackers.losses import LOSSES
from attackers.stage import Stage
from attackers.threat import Threat
from attackers.wdro import W_PGD_STEPS
from audit.evidence.judge import LINE_SEARCH, judge_candidates
from audit.generators.made import transferred
from audit.runtime.progress import Progress
from audit.scanning.config import effort_of
from audit.scanning.evidence import MetricRun
from audit.scanning.recording import Attacker, not_run, recorded
from audit.scanning.sensitivity import SENSITIVITY_LOSSES, Question, sensitivity
from audit.scanning.subject import Subject

BLIND = 2.0
"""Factor that replaces `Effort.near` after a search that used decisions only, whose radii are up
to twice too large."""

WITHIN = 3.0
"""Largest radius, in units of the largest budget, at which a search for shared budgets continues.

Orders that share the budget between samples use examples up to about this distance.
"""


def attack_all(subject: Subject, run: MetricRun, progress: Progress) -> None:
    """Run the chosen attacks, or all that apply, then the first-order distributional attack."""
    for name in run.plan.attacks:
        entry = ATTACKS[name]
        skipped = subject.config.attacks is None and "gradients" in entry.default
        if skipped and not entry.defined(run.metric):
            continue
        reason = not_applicable(entry, subject, run.metric)
        if reason:
            run.attacks.append(not_run(name, reason))
            continue
        with recorded(run, name, subject) as attacker:
            attacker.detail = generator_detail(subject, entry)
            RUNNERS[entry.kind](subject, run, entry, attacker, progress)
    if subject.classifier.white_box is not None:
        _measure_sensitivity(subject, run, progress)


def reinforce(subject: Subject, run: MetricRun, times: int, progress: Progress) -> None:
    """Rerun the iterative attack with ``times`` as many steps."""
    name = ITERATIVE[run.metric.name]
    with recorded(run, name, subject, times) as attacker:
        attacker.detail = f"Rerun with {times} times the steps."
        _attack_at_radii(subject, run, ATTACKS[name], attacker, progress, times)


def generator_detail(subject: Subject, entry: AttackEntry) -> str:
    """Describe the trained generator that an attack uses."""
    if "generator" not in entry.needs or subject.generator is None:
        return ""
    trained = subject.generator
    other = transferred(subject.classifier, trained)
    return (
        f"A {trained.variant} generator, head {trained.network.spec.head}, trained for "
        f"{'another model (a transfer attack)' if other else 'this model'} up to a "
        f"wasserstein radius of {trained.radius:g}."
    )


def not_applicable(entry: AttackEntry, subject: Subject, metric: Metric) -> str:
    """Return why an attack cannot run, or an empty string if it can."""
    if "gradients" in entry.needs and subject.classifier.white_box is None:
        return "It needs gradients, and the model has none."
    if not entry.defined(metric):
        return f"It is defined for {' and '.join(sorted(entry.metrics))} only."
    if "scores" in entry.needs and subject.classifier.output == "labels":
        return "It needs scores, and the model returns labels only."
    if "generator" in entry.needs and subject.generator is None:
        return "It needs a trained generator, and none was given."
    return ""


def _search(
    subject: Subject, run: MetricRun, entry: AttackEntry, attacker: Attacker, progress: Progress
) -> None:
    """Search for minimal radii; stages for shared budgets run only on samples of comparable radius.

    By default, an attack without gradients skips samples that were searched with gradients.
    """
    config, correct = subject.config, subject.samples.correct
    largest = max(config.deltas_of(run.metric.name), default=0.0)
    along = "gradients" in entry.needs
    chosen = correct
    if config.attacks is None and not along and subject.classifier.white_box is not None:
        chosen = correct & (run.plan.flat | ~run.followed)
    finite = any(isfinite(order) for order in config.orders)
    stages = [s for s in effort_of(config).stages_of(entry.name) if finite or not s.shared]
    every = int(chosen.sum())
    with progress(f"{run.metric.name}: {entry.name}", len(stages) * every) as tick:
        for stage in stages:
            near = run.frontier.radius <= WITHIN * largest if stage.shared else chosen
            rows = (chosen & near).nonzero()[:, 0]
            tick(every - len(rows))
            attack: Configured = partial(entry.run, metric=run.metric, **entry.keywords(stage))

            def same(chosen: Tensor, attack: Configured = attack) -> Configured:
                del chosen
                return attack

            _attack(subject, run, attacker, entry.name, entry.name, rows, same, tick)
    run.searched |= chosen
    if along:
        run.followed |= chosen


def _attack_law(
    subject: Subject, run: MetricRun, entry: AttackEntry, attacker: Attacker, progress: Progress
) -> None:
    """Attack the whole data as one law, for every order above one, budget and loss.

    The judge moves successes back to the boundary and drops failures, so the budget that the attack
    spent on failures is available again when the report allocates the budget.
    """
    samples, device = subject.samples, subject.classifier.device
    x0, labels = samples.x.to(device), samples.labels.to(device)
    orders = [order for order in subject.config.orders if order > 1]
    deltas = [d for d in subject.config.deltas_of(run.metric.name) if d > 0]
    laws = list(itertools.product(orders, deltas, SENSITIVITY_LOSSES))
    total = len(laws) * W_PGD_STEPS * len(samples)
    with progress(f"{run.metric.name}: {entry.name}", total) as tick:
        for order, delta, loss in laws:
            x = entry.run(
                attacker.logits,
                x0,
                labels,
                Threat(run.metric, delta, order),
                loss=LOSSES[loss],
                rows=subject.batch,
                tick=lambda: tick(len(samples)),
            ).cpu()
            for rows in samples.correct.nonzero()[:, 0].split(subject.batch):
                _propose(subject, run, attacker, entry.name, rows, x[rows])


def _attack_at_radii(
    subject: Subject,
    run: MetricRun,
    entry: AttackEntry,
    attacker: Attacker,
    progress: Progress,
    times: int = 1,
) -> None:
    """Attack, at every budget from the largest down, the samples whose result could still change.

    A sample whose radius is far above the budget after a search for minimal radii is not attacked
    again at that budget, unless its gradient is zero.
    """
    name, effort = entry.name, effort_of(subject.config)
    deltas = [d for d in subject.config.deltas_of(run.metric.name) if d > 0]
    factor = effort.near_grid if subject.config.deltas is None else effort.near
    # A search that uses decisions only ends farther from the nearest example.
    factors = torch.full(run.followed.shape, max(factor, BLIND), dtype=torch.float64)
    factors[run.followed] = factor
    stages = effort.stages_of(name, times)
    if subject.classifier.white_box is None:
        stages = tuple(stage for stage in stages if not entry.spends(stage).gradients)
    network = None if subject.generator is None else subject.generator.network
    correct = int(subject.samples.correct.sum())
    with progress(f"{run.metric.name}: {name}", len(deltas) * len(stages) * correct) as tick:
        for delta in reversed(deltas):
            threat = Threat(run.metric, delta)
            for number, stage in enumerate(stages):
                radius = run.frontier.radius
                near = (radius <= factors * delta) | ~radius.isfinite() | ~run.searched
                near |= run.plan.flat
                if stage.warm:
                    near &= radius.isfinite()
                rows = (subject.samples.correct & (radius > delta) & near).nonzero()[:, 0]
                tick(correct - len(rows))

                def attack(
                    chosen: Tensor, stage: Stage = stage, threat: Threat = threat
                ) -> Configured:
                    start = run.frontier.x[chosen].to(subject.classifier.device)
                    return entry.set_up(entry, stage, Given(threat, start, network))

                purpose = f"{name} {number} {delta!r} {times}"
                _attack(subject, run, attacker, name, purpose, rows, attack, tick)


RUNNERS: dict[str, Callable[[Subject, MetricRun, AttackEntry, Attacker, Progress], None]] = {
    "minimal": _search,
    "law": _attack_law,
    "radius": _attack_at_radii,
}
"""Functions that run an attack, by its kind."""


def _attack(
    subject: Subject,
    run: MetricRun,
    attacker: Attacker,
    name: str,
    purpose: str,
    rows: Tensor,
    attack_of: Callable[[Tensor], Configured],
    tick: Callable[[int], None],
) -> None:
    """Attack some rows, in batches that fit into memory, and submit the results to the judge."""
    samples, device = subject.samples, subject.classifier.device

    def one_batch(chosen: Tensor) -> None:
        candidates = attack_of(chosen)(
            attacker.logits,
            samples.x[chosen].to(device),
            samples.labels[chosen].to(device),
            generator=samples.generator.take(chosen).fold(f"{run.metric.name} {purpose}"),
        )
        _propose(subject, run, attacker, name, chosen, candidates.cpu())
        tick(len(chosen))

    subject.batches.each(rows, one_batch)


def _propose(
    subject: Subject,
    run: MetricRun,
    attacker: Attacker,
    name: str,
    rows: Tensor,
    candidates: Tensor,
    *,
    line_search: int = LINE_SEARCH,
) -> None:
    """Judge candidates, and keep confirmed examples that are nearer than those found before."""
    samples = subject.samples
    verdict = judge_candidates(
        attacker.classifier,
        run.metric,
        samples.x[rows],
        candidates,
        samples.labels[rows],
        line_search=line_search,
    )
    run.frontier.offer(rows, verdict, name)
    attacker.broken.update(rows[verdict.broken].tolist())


def _measure_sensitivity(subject: Subject, run: MetricRun, progress: Progress) -> None:
    samples, config = subject.samples, subject.config
    deltas = config.deltas_of(run.metric.name)
    question = Question(run.metric, config.orders, deltas, config.confidence, config.seed)

    with recorded(run, "w-fgsm", subject) as attacker:

        def offer(rows: Tensor, x: Tensor, wrong: Tensor) -> None:
            fooled = wrong & samples.correct[rows]
            if bool(fooled.any()):
                _propose(subject, run, attacker, "w-fgsm", rows[fooled], x[fooled], line_search=0)

        with progress(f"{run.metric.name}: sensitivity", 6 * len(samples)) as tick:
            measured = sensitivity(
                attacker.classifier,
                samples,
                question,
                rows=subject.batch,
                offer=offer,
                tick=tick,
            )
            run.sensitivity, run.losses = measured.entries, measured.losses
