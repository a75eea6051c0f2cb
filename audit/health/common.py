"""Measurements that several health checks share."""

from collections.abc import Callable

import torch
from torch import Tensor

from attackers.threat import Threat
from audit.evidence.judge import judge_candidates
from audit.health.subjects import PROBE_SIZE, MetricSubject


def scale_of(scores: Tensor) -> float:
    """Return the largest absolute score, at least 1: the unit for differences of scores."""
    return max(1.0, float(scores.abs().max()))


def broken(
    subject: MetricSubject, rows: Tensor, attack: Callable[..., Tensor], **options: object
) -> Tensor:
    """Return which of the rows an attack breaks within the budget, confirmed by the judge.

    Args:
        subject: model, samples, metric and budget.
        rows: (B,) int64 rows of the samples to attack.
        attack: ``attack(logits, x0, labels, threat, generator=…, **options)``.
        options: options of the attack.

    Returns:
        (B,) bool.
    """
    classifier, samples, metric, delta = (
        subject.classifier,
        subject.samples,
        subject.metric,
        subject.delta,
    )
    found = [torch.zeros(0, dtype=torch.bool)]
    for chosen in filter(len, rows.split(PROBE_SIZE)):
        x = attack(
            subject.logits,
            samples.x[chosen].to(classifier.device),
            samples.labels[chosen].to(classifier.device),
            Threat(metric, delta),
            generator=samples.generator.take(chosen).fold(f"strength {metric.name} {delta!r}"),
            **options,
        )
        found.append(confirmed_by_judge(subject, chosen, x.detach().cpu()))
    return torch.cat(found)


def confirmed_by_judge(subject: MetricSubject, rows: Tensor, x: Tensor) -> Tensor:
    """Return which candidates ``x`` of the rows the judge confirms within the budget, (B,) bool."""
    samples = subject.samples
    verdict = judge_candidates(
        subject.classifier,
        subject.metric,
        samples.x[rows],
        x,
        samples.labels[rows],
        line_search=0,
    )
    return verdict.distance <= subject.delta
