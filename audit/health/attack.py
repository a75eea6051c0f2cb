"""Checks of the attacks: what a working attack must do on any classifier."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from attackers import ATTACKS, PLAIN_STEPS
from attackers.geometry import NORMS, Metric
from attackers.losses import misclassified
from attackers.noise import random_search
from attackers.threat import Threat
from audit.evidence.samples import Samples
from audit.health.common import PROBE, entry, without_gradients
from audit.models.classifier import Classifier
from audit.schema import Health, HealthStatus

NAMED = {**dict.fromkeys(NORMS, "PGD"), "wasserstein": "Moving mass along gradients"}
"""What a metric's attack by steps is called in a sentence."""


def by_steps(metric: Metric) -> Callable[..., Tensor]:
    """The plain attack by gradient steps that any working gradient must carry."""
    return ATTACKS[PLAIN_STEPS[metric.name]]


def unbounded_attack(
    classifier: Classifier, metric: Metric, samples: Samples, attacked: Tensor
) -> Health:
    """With the whole box to move in, an attack must break nearly every sample.

    ``attacked``: (N,) float64, the scan's own radii; a sample it broke at any radius counts.
    """
    check = f"unbounded_attack.{metric.name}"
    if classifier.attackable is None:
        return without_gradients(check)
    rows = samples.probe(PROBE)
    rows_left = rows[~attacked[rows].isfinite()]
    left = len(rows_left)
    if left:
        radius = metric.diameter(samples.x[rows_left]).double()
        left -= _broken(
            classifier, metric, samples, rows_left, radius, "unbounded", by_steps(metric)
        )
    if left <= 0.01 * len(rows):
        return entry(check, "pass", f"With an unlimited budget all {len(rows)} samples break.")
    return entry(
        check,
        "fail",
        f"With an unlimited budget {left} of {len(rows)} samples still stand, which no real "
        "classifier does: the gradients lead nowhere, and every attacked accuracy is unreliable.",
    )


def budget_monotone(
    classifier: Classifier, metric: Metric, samples: Samples, delta: float
) -> Health:
    """More budget never means fewer broken samples."""
    check = f"budget_monotone.{metric.name}"
    if classifier.attackable is None:
        return without_gradients(check)
    rows = samples.probe(PROBE)
    radii = [delta * factor for factor in (0.5, 1.0, 2.0, 4.0)]
    counts = [
        _broken(
            classifier,
            metric,
            samples,
            rows,
            torch.full((len(rows),), r),
            "monotone",
            by_steps(metric),
        )
        for r in radii
    ]
    drops = [before - after for before, after in itertools.pairwise(counts)]
    shown = ", ".join(f"{n} at {r:.3g}" for n, r in zip(counts, radii, strict=True))
    if max(drops) <= 0:
        return entry(check, "pass", f"{NAMED[metric.name]} breaks {shown} of {len(rows)} samples.")
    # Two standard deviations of a count of this size are at most the root of the sample count.
    status: HealthStatus = "warn" if max(drops) <= len(rows) ** 0.5 else "fail"
    return entry(
        check,
        status,
        f"{NAMED[metric.name]} breaks {shown} of {len(rows)} samples: fewer with more budget, so "
        "its steps do not suit this model. Trust the minimal radii, and look at the gradient "
        "checks.",
    )


def random_not_better(
    classifier: Classifier, metric: Metric, samples: Samples, delta: float
) -> Health:
    """Random points must not break what steps along gradients do not."""
    check = f"random_noise.{metric.name}"
    if classifier.attackable is None:
        return without_gradients(check)
    rows = samples.probe(PROBE)
    radius = torch.full((len(rows),), delta)
    by_noise = _broken(classifier, metric, samples, rows, radius, "noise", random_search)
    by_gradient = _broken(classifier, metric, samples, rows, radius, "noise", by_steps(metric))
    name = NAMED[metric.name] if metric.name in NORMS else NAMED[metric.name].lower()
    detail = (
        f"At {delta:.3g}, {name} breaks {by_gradient} and random points {by_noise} of "
        f"{len(rows)} samples"
    )
    if by_noise > by_gradient:
        return entry(
            check,
            "fail",
            f"{detail}: gradients mislead (masking), and the attacked accuracy is too optimistic.",
        )
    return entry(check, "pass", f"{detail}.")


def certified_below_attacked(metric: str, certified: Tensor, attacked: Tensor) -> Health:
    """No certified radius exceeds a verified adversarial distance (the scan stops if one does)."""
    check = f"certified_below_attacked.{metric}"
    above = int((certified > attacked).sum())
    if above:
        return entry(
            check,
            "fail",
            f"{above} of {len(attacked)} samples are certified beyond an adversarial example that "
            "was found: this is a bug, please report it with the model.",
        )
    return entry(
        check,
        "pass",
        f"No certified radius exceeds the attacked one on any of {len(attacked)} samples.",
    )


def _broken(
    classifier: Classifier,
    metric: Metric,
    samples: Samples,
    rows: Tensor,
    radius: Tensor,
    purpose: str,
    attack: Callable[..., Tensor],
) -> int:
    """How many of the rows an attack breaks at the given radii, judged by the served model."""
    x = attack(
        classifier.differentiable,
        samples.x[rows].to(classifier.device),
        samples.labels[rows].to(classifier.device),
        Threat(metric, radius.to(classifier.device)),
        generator=samples.generator.take(rows).fold(purpose),
        steps=20,
    )
    return int(misclassified(classifier.deployed(x.cpu()), samples.labels[rows]).sum())
