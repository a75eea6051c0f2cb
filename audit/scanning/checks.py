"""The health checks of one metric: does the evidence of its attacks hold?

They look at the middle budget, on a probe of the samples. Where a longer run would have found more,
the attacks are run again with twice the steps, as often as the effort allows.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from attackers import ATTACKS, ITERATIVE, defined
from attackers.entry import AttackEntry
from attackers.fgsm import fgsm
from attackers.geometry import Metric
from attackers.losses import cross_entropy, margin
from attackers.square import square
from audit import health
from audit.runtime.progress import Progress
from audit.scanning.attacks import reinforce
from audit.scanning.config import effort_of
from audit.scanning.evidence import MetricRun
from audit.scanning.subject import Subject
from audit.schema import Health

STEPS = 50
"""Gradients of the run that a longer one is compared with."""

QUERIES = 300
"""Queries of the random search that attacks with gradients are compared with."""

SMOOTHED = "It searches at random, which is left out for a smoothed model: run it without --smooth."
"""Why a check is not made."""

OVERSHOT = (
    "Many steps stop where their stand-in for the smoothed model changes its decision, where votes "
    "settle nothing, and one long step goes beyond: the two cannot be compared."
)
"""The same."""


def check_metric(scan: Subject, run: MetricRun, progress: Progress) -> None:
    """Append the checks that need a metric."""
    classifier, samples, metric = scan.classifier, scan.samples, run.metric
    deltas = [d for d in scan.config.deltas_of(metric.name) if d > 0] or [
        float(metric.diameter(samples.x).median()) / 10
    ]
    delta = deltas[len(deltas) // 2]
    checks: dict[str, Callable[[], Health]] = {
        "budget_monotone": lambda: health.budget_monotone(classifier, metric, samples, delta),
        "unbounded_attack": lambda: health.unbounded_attack(
            classifier, metric, samples, run.frontier.radius
        ),
        "random_noise": lambda: health.random_not_better(classifier, metric, samples, delta),
        "iterative": lambda: _iterative(scan, run, delta),
        "convergence": lambda: _converged(scan, run, delta, progress),
        "square": lambda: _square(scan, run, delta),
        "active_test": lambda: _active(scan, run, delta),
        "transfer": lambda: health.transfer(
            classifier, metric, samples, _other_examples(run), _standing(run, delta), delta
        ),
        "representable": lambda: health.representable(
            classifier, metric, samples, run.frontier.radius, run.frontier.x, delta
        ),
        "parity_adversarial": lambda: health.parity_on_adversarial(
            classifier, metric, _some_examples(run)
        ),
        "certified_below_attacked": lambda: health.certified_below_attacked(
            metric.name, run.certified.radius, run.frontier.radius
        ),
    }
    with progress(f"{metric.name}: health checks", len(checks) + 1) as tick:
        if not run.earlier:
            run.health.append(
                health.guarded(
                    "gradients", lambda: health.gradients(classifier, metric, samples, delta)
                )
            )
        tick(1)
        for name, check in checks.items():
            run.health.append(health.guarded(f"{name}.{metric.name}", check))
            tick(1)


def iterative(metric: Metric) -> AttackEntry:
    """The attack by many gradients that answers for a metric."""
    return ATTACKS[ITERATIVE[metric.name]]


def _standing(run: MetricRun, delta: float) -> Tensor:
    """(N,) bool, what the attacks left at a budget."""
    return run.frontier.radius > delta


def _some_examples(run: MetricRun) -> Tensor:
    """A few confirmed examples, ``(K, ...)``."""
    return run.frontier.x[run.frontier.broken.nonzero()[: 4 * health.PROBE, 0]]


def _other_examples(run: MetricRun) -> list[Tensor]:
    """What was found under the metrics before this one."""
    return [other.frontier.x for other in run.earlier]


def _converged(scan: Subject, run: MetricRun, delta: float, progress: Progress) -> Health:
    """Compare with a longer run; where that finds more, double the steps and look again."""
    classifier, samples, metric = scan.classifier, scan.samples, run.metric
    if classifier.attackable is None:
        return health.without_gradients(f"convergence.{metric.name}")
    doublings = (
        effort_of(scan.config).doublings if ITERATIVE[metric.name] in run.plan.attacks else 0
    )
    for times in range(doublings + 1):
        steps = STEPS * 2**times
        found, drop = health.convergence(
            classifier,
            metric,
            samples,
            _standing(run, delta),
            delta,
            iterative(metric),
            steps=steps,
        )
        if drop < health.SETTLED or times == doublings:
            break
        reinforce(scan, run, 2 ** (times + 1), progress)
    return found


def _active(scan: Subject, run: MetricRun, delta: float) -> Health:
    """Hide an example and let the attack look for it."""
    classifier, samples, metric = scan.classifier, scan.samples, run.metric
    if classifier.attackable is None:
        return health.without_gradients(f"active_test.{metric.name}")
    if classifier.base is not None:
        return health.entry(f"active_test.{metric.name}", "not_applicable", SMOOTHED)
    attack = iterative(metric)
    both = health.in_turn(
        partial(attack, loss=cross_entropy, steps=STEPS), partial(attack, loss=margin, steps=STEPS)
    )
    # A random point of the image-Wasserstein ball costs as much as a step of an attack.
    sizes = {"points": 32, "draws": 50} if metric.name == "wasserstein" else {}
    return health.active_test(classifier, metric, samples, delta, both, **sizes)


def _square(scan: Subject, run: MetricRun, delta: float) -> Health:
    """Let a random search try what the attacks with gradients left standing."""
    classifier, samples, metric = scan.classifier, scan.samples, run.metric
    check = f"square.{metric.name}"
    if classifier.base is not None:
        return health.entry(check, "not_applicable", SMOOTHED)
    if classifier.attackable is None:
        return health.without_gradients(check)
    if not defined("square", metric):
        return health.entry(check, "not_applicable", "Square is defined for linf and l2.")
    rows = samples.probe(health.PROBE)
    left = rows[_standing(run, delta)[rows]]
    found = health.broken(classifier, metric, samples, left, delta, square, queries=QUERIES)
    return health.square_not_better(metric.name, len(left), int(found.sum()), len(rows))


def _iterative(scan: Subject, run: MetricRun, delta: float) -> Health:
    """Compare one gradient step with many: what the scan found by them, or two runs find now."""
    classifier, samples, metric = scan.classifier, scan.samples, run.metric
    if classifier.attackable is None:
        return health.without_gradients(f"iterative.{metric.name}")
    if classifier.base is not None:
        return health.entry(f"iterative.{metric.name}", "not_applicable", OVERSHOT)
    rows = samples.probe(health.PROBE)
    by_single = health.broken(classifier, metric, samples, rows, delta, fgsm)
    by_many = ~_standing(run, delta)[rows]
    by_many &= torch.tensor([run.frontier.attack[row] != "fgsm" for row in rows.tolist()])
    for loss in (cross_entropy, margin):
        attack = partial(iterative(metric), loss=loss)
        by_many |= health.broken(classifier, metric, samples, rows, delta, attack, steps=STEPS)
    return health.iterative_not_worse(metric.name, delta, by_single, by_many)
