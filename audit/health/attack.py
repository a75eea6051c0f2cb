"""Checks of properties that a working attack has on any classifier."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from attackers import ATTACKS, PLAIN_STEPS
from attackers.geometry import NORMS, Metric
from attackers.losses import misclassified
from attackers.noise import random_search
from attackers.threat import Threat
from audit.health.needs import CORRECT_SAMPLES, GRADIENTS
from audit.health.registry import CheckResult, check
from audit.health.subjects import PROBE_SIZE, MetricSubject
from audit.schema import HealthStatus

ATTACK_IN_WORDS = {**dict.fromkeys(NORMS, "PGD"), "wasserstein": "Moving mass along gradients"}
"""Name of the attack by gradient steps under each metric, as the subject of a sentence."""

GRADIENT_STEPS = 20
"""Steps of the attacks in this module.

They suffice for a working gradient to cross the ball several times. The attacks of the scan take
more steps; `convergence` examines those.
"""

MOST_LEFT = 0.01
"""Largest share of the probe that an attack with an unlimited budget may leave unbroken."""

BUDGET_FACTORS = (0.5, 1.0, 2.0, 4.0)
"""Budgets that `budget_monotone` compares, as multiples of the budget of the checks."""


@check(
    "budget_monotone",
    MetricSubject,
    title="Larger budgets break more samples",
    advice="Rely on the minimal radii rather than on this attack, whose step sizes do not suit the "
    "model, and look at the gradient checks.",
    needs=(GRADIENTS, CORRECT_SAMPLES),
)
def budget_monotone(subject: MetricSubject) -> CheckResult:
    """Check that a larger budget never breaks fewer samples."""
    rows, metric = subject.samples.probe(PROBE_SIZE), subject.metric
    radii = [subject.delta * factor for factor in BUDGET_FACTORS]
    counts = [
        _count_broken(subject, rows, torch.full((len(rows),), r), "monotone", plain_attack(metric))
        for r in radii
    ]
    largest_drop = max(before - after for before, after in itertools.pairwise(counts))
    shown = ", ".join(f"{n} at {r:.3g}" for n, r in zip(counts, radii, strict=True))
    numbers: dict[str, int | float] = {
        f"broken_at_{factor:g}_delta": n for factor, n in zip(BUDGET_FACTORS, counts, strict=True)
    }
    numbers |= {"samples": len(rows), "delta": subject.delta}
    seen = f"{ATTACK_IN_WORDS[metric.name]} breaks {shown} of {len(rows)} samples"
    if largest_drop <= 0:
        return CheckResult("pass", f"{seen}.", numbers)
    # Two standard deviations of such a count are at most the square root of the sample count.
    status: HealthStatus = "warn" if largest_drop <= len(rows) ** 0.5 else "fail"
    return CheckResult(status, f"{seen}: fewer with a larger budget.", numbers)


@check(
    "unbounded_attack",
    MetricSubject,
    title="Unlimited budget breaks every sample",
    advice="Do not rely on any attacked accuracy: the gradients are useless, since an attack with "
    "an unlimited budget breaks every real classifier. Attack a smooth version of the model.",
    needs=(GRADIENTS, CORRECT_SAMPLES),
)
def unbounded_attack(subject: MetricSubject) -> CheckResult:
    """Check that an attack limited only by the box breaks nearly every sample.

    A sample that the scan broke at any radius counts as broken.
    """
    samples = subject.samples
    rows = samples.probe(PROBE_SIZE)
    unbroken = rows[~subject.radius[rows].isfinite()]
    left = len(unbroken)
    if left:
        radius = subject.metric.diameter(samples.x[unbroken]).double()
        attack = plain_attack(subject.metric)
        left -= _count_broken(subject, unbroken, radius, "unbounded", attack)
    numbers = {"unbroken": left, "samples": len(rows)}
    if left <= MOST_LEFT * len(rows):
        finding = f"An unlimited budget breaks {len(rows) - left} of {len(rows)} samples."
        return CheckResult("pass", finding, numbers)
    finding = f"An unlimited budget does not break {left} of {len(rows)} samples."
    return CheckResult("fail", finding, numbers)


@check(
    "random_noise",
    MetricSubject,
    title="Gradient steps beat random points",
    advice="Attack a smooth version of the model: its gradients are misleading (gradient masking), "
    "and the attacked accuracy is too optimistic.",
    needs=(GRADIENTS, CORRECT_SAMPLES),
)
def random_not_better(subject: MetricSubject) -> CheckResult:
    """Check that random points break no more samples than steps along gradients."""
    metric = subject.metric
    rows = subject.samples.probe(PROBE_SIZE)
    radius = torch.full((len(rows),), subject.delta)
    by_noise = _count_broken(subject, rows, radius, "noise", random_search)
    by_gradient = _count_broken(subject, rows, radius, "noise", plain_attack(metric))
    in_words = ATTACK_IN_WORDS[metric.name]
    finding = (
        f"At {subject.delta:.3g}, {in_words if metric.name in NORMS else in_words.lower()} breaks "
        f"{by_gradient} and random points {by_noise} of {len(rows)} samples."
    )
    numbers = {
        "broken_by_gradients": by_gradient,
        "broken_by_random_points": by_noise,
        "samples": len(rows),
        "delta": subject.delta,
    }
    return CheckResult("fail" if by_noise > by_gradient else "pass", finding, numbers)


def plain_attack(metric: Metric) -> Callable[..., Tensor]:
    """Return the plain attack by gradient steps, which works whenever gradients are useful."""
    return ATTACKS[PLAIN_STEPS[metric.name]]


def _count_broken(
    subject: MetricSubject,
    rows: Tensor,
    radius: Tensor,
    purpose: str,
    attack: Callable[..., Tensor],
) -> int:
    """Return how many rows an attack breaks at the given radii, on the served model."""
    classifier, samples = subject.classifier, subject.samples
    x = attack(
        classifier.differentiable,
        samples.x[rows].to(classifier.device),
        samples.labels[rows].to(classifier.device),
        Threat(subject.metric, radius.to(classifier.device)),
        generator=samples.generator.take(rows).fold(purpose),
        steps=GRADIENT_STEPS,
    )
    return int(misclassified(classifier.deployed(x.cpu()), samples.labels[rows]).sum())
