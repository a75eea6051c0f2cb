"""Health checks: is the evidence itself to be believed?

Each check is a function that returns one `Health` entry: an id, a status and a sentence of finding
and advice. ``fail`` means that the numbers must not be relied on, ``warn`` that they deserve a look.
Sources: Carlini et al. 2019, Tramer et al. 2020, Croce & Hein 2020 (AutoAttack's flags), Pintor et
al. 2022 (indicators of attack failure).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from attackers.geometry import Metric
from attackers.gradient import value_and_grad
from attackers.losses import margin, misclassified
from attackers.noise import random_search
from attackers.pgd import pgd
from attackers.rows import expand, row_sum
from attackers.threat import Threat
from audit.confidence import clopper_pearson
from audit.models.classifier import Classifier, looks_like_probabilities
from audit.report import Health, HealthStatus
from audit.samples import Samples

PROBE = 64
"""Samples that the checks look at."""

PARITY_TOLERANCE = 1e-3
"""Largest score difference between runtime and copy, relative to the largest score."""


def clean_accuracy(samples: Samples, classes: int) -> Health:
    """Accuracy is far above chance (a lower one stops the scan before this check)."""
    return _entry(
        "clean_accuracy",
        "pass",
        f"{int(samples.correct.sum())} of {len(samples)} samples are classified correctly "
        f"({samples.accuracy:.1%}; chance is {1 / classes:.1%}).",
    )


def sample_size(samples: Samples, confidence: float) -> Health:
    """Enough samples for an interval that says something."""
    low, high = clopper_pearson(int(samples.correct.sum()), len(samples), confidence)
    width = high - low
    if len(samples) < 100 or width > 0.1:
        return _entry(
            "sample_size",
            "warn",
            f"{len(samples)} samples leave an interval {width:.0%} wide on the clean accuracy: "
            "raise --samples, to 1,000 or more if the data allows it.",
        )
    return _entry(
        "sample_size", "pass", f"{len(samples)} samples: the clean interval is {width:.1%} wide."
    )


def output_kind(classifier: Classifier, samples: Samples) -> Health:
    """Losses need logits; probabilities saturate."""
    scores = classifier.deployed(samples.x[samples.probe(PROBE)])
    if classifier.output == "labels":
        return _entry(
            "output",
            "warn",
            "The model returns labels only: gradients come from the scores before the decision, "
            "where there are any; serve the scores to be audited more sharply.",
        )
    if classifier.output == "probabilities" or looks_like_probabilities(scores):
        if classifier.gradient == "lifted":
            return _entry(
                "output",
                "pass",
                "The model returns probabilities; attacks use the logits before them.",
            )
        return _entry(
            "output",
            "warn",
            "The model returns probabilities and its logits are out of reach, so the loss uses "
            "log-probabilities, which vanish in float32 for very sure predictions: export logits.",
        )
    return _entry("output", "pass", "The model returns logits.")


def determinism(classifier: Classifier, samples: Samples) -> Health:
    """The same input gives the same scores every time."""
    x = samples.x[samples.probe(PROBE)]
    first, second, third = (classifier.deployed(x) for _ in range(3))
    difference = float(torch.maximum((first - second).abs(), (first - third).abs()).max())
    if difference == 0:
        return _entry("determinism", "pass", "Repeated calls return identical scores.")
    if difference <= 1e-4 * _scale(first):
        return _entry(
            "determinism", "warn", f"Repeated calls differ by {difference:.1e}, in the last digits."
        )
    return _entry(
        "determinism",
        "fail",
        f"Repeated calls differ by {difference:.3g}: the model is random (dropout left on?), and a "
        "single attack says little about it. Export it in evaluation mode.",
    )


def batch_invariance(classifier: Classifier, samples: Samples) -> Health:
    """A sample's scores do not depend on the samples beside it."""
    x = samples.x[samples.probe(PROBE)]
    together = classifier.deployed(x)
    reversed_ = classifier.deployed(x.flip(0)).flip(0)
    alone = torch.cat([classifier.deployed(row[None]) for row in x[:8]])
    difference = float(
        torch.maximum(
            (together - reversed_).abs().max(), (together[: len(alone)] - alone).abs().max()
        )
    )
    if difference == 0:
        return _entry("batch_invariance", "pass", "Scores do not depend on the batch, to the bit.")
    if difference <= 1e-3 * _scale(together):
        return _entry(
            "batch_invariance",
            "warn",
            f"Scores move by {difference:.1e} with the batch: harmless for accuracy, but results "
            "may differ in the last digits between batch sizes.",
        )
    return _entry(
        "batch_invariance",
        "fail",
        f"Scores move by {difference:.3g} with the other samples of the batch: batch normalisation "
        "in training mode, or samples that see each other. Export the model in evaluation mode.",
    )


def parity(classifier: Classifier, samples: Samples) -> tuple[Health, float | None, int]:
    """The differentiable copy computes what the runtime serves.

    Returns:
        The entry, the largest absolute difference (None without a copy), and the sample count.
    """
    if classifier.copy is None:
        return (
            _entry("parity", "not_applicable", "There is no differentiable copy to compare."),
            None,
            0,
        )
    x = samples.x[samples.probe(4 * PROBE)]
    served, copied = classifier.deployed(x), classifier.copied(x)
    difference = float((served - copied).abs().max())
    agree = int((served.argmax(1) == copied.argmax(1)).sum())
    if difference <= PARITY_TOLERANCE * _scale(served) and agree == len(x):
        detail = f"Runtime and differentiable copy differ by at most {difference:.1e} on {len(x)} samples."
        return _entry("parity", "pass", detail), difference, len(x)
    return (
        _entry(
            "parity",
            "warn",
            f"The differentiable copy differs from the served model by {difference:.3g} and agrees "
            f"on {agree} of {len(x)} predictions, so its gradients are not used: attacks see scores "
            "only, which is weaker evidence. Please report the model's operators.",
        ),
        difference,
        len(x),
    )


def parity_on_adversarial(classifier: Classifier, metric: Metric, x: Tensor) -> Health:
    """The copy still agrees with the runtime on the adversarial examples found."""
    check = f"parity_adversarial.{metric.name}"
    if classifier.copy is None or not len(x):
        return _entry(check, "not_applicable", "There is no copy, or no adversarial example.")
    served, copied = classifier.deployed(x), classifier.copied(x)
    difference = float((served - copied).abs().max())
    if difference <= PARITY_TOLERANCE * _scale(served):
        return _entry(
            check,
            "pass",
            f"They differ by at most {difference:.1e} on {len(x)} adversarial inputs.",
        )
    return _entry(
        check,
        "warn",
        f"Runtime and copy differ by {difference:.3g} on adversarial inputs: attacks may miss "
        "examples that the served model has. Every example counted was confirmed by the runtime.",
    )


def gradients(classifier: Classifier, metric: Metric, samples: Samples, delta: float) -> Health:
    """Gradients of the margin exist, are finite and not zero, at random points near the samples."""
    if classifier.attackable is None:
        return _entry(
            "gradients",
            "warn",
            "There are no gradients, so only black-box attacks ran: weaker evidence, and the true "
            "robustness may be far lower.",
        )
    rows = samples.probe(PROBE)
    x0 = samples.x[rows]
    x = metric.sample(x0, delta, samples.generator.take(rows).fold("gradients"))
    _, _, grad = _margin_gradient(classifier, x, samples.labels[rows])
    broken = int((~grad.flatten(1).isfinite().all(1)).sum())
    zero = int((grad.flatten(1) == 0).all(1).sum())
    if broken:
        return _entry(
            "gradients",
            "fail",
            f"{broken} of {len(x)} gradients are not finite: look for a division by zero or a "
            "logarithm in the model; gradient attacks are blind there.",
        )
    if zero:
        return _entry(
            "gradients",
            "fail" if zero > 0.05 * len(x) else "warn",
            f"{zero} of {len(x)} gradients are exactly zero, so gradient attacks do not see where "
            "to go (gradient masking: a step function, rounding or saturation in the model). The "
            "attacked accuracy is far too optimistic: attack a smooth version of the model.",
        )
    return _entry("gradients", "pass", f"All {len(x)} gradients are finite and not zero.")


def finite_differences(classifier: Classifier, samples: Samples) -> Health:
    """The gradient predicts how the *served* model's margin moves along it."""
    if classifier.attackable is None or classifier.output != "logits":
        return _entry(
            "finite_differences", "not_applicable", "It needs gradients and served logits."
        )
    rows = samples.probe(PROBE)
    x, labels = samples.x[rows], samples.labels[rows]
    _, value, grad = _margin_gradient(classifier, x, labels)
    norm = row_sum(grad.double().square()).sqrt()
    kept = norm > 0
    if not bool(kept.any()):
        return _entry("finite_differences", "not_applicable", "All gradients are zero.")
    x, labels, grad, norm, value = x[kept], labels[kept], grad[kept], norm[kept], value[kept]
    # A move that changes the margin by about a hundredth: above rounding, mostly below a kink.
    length = 1e-2 * value.double().abs().clamp_min(1e-3) / norm
    move = (grad.double() / expand(norm, grad.double())) * expand(length, grad.double())
    up, down = ((x.double() + sign * move).float() for sign in (1, -1))
    measured = margin(classifier.deployed(up), labels) - margin(classifier.deployed(down), labels)
    error = (measured.double() / (2 * length * norm) - 1).abs()
    off = int((error > 0.1).sum())
    if off <= 0.1 * len(x):
        return _entry(
            "finite_differences",
            "pass",
            f"Gradients agree with finite differences of the served model on {len(x) - off} of "
            f"{len(x)} samples (10 %).",
        )
    return _entry(
        "finite_differences",
        "warn",
        f"Gradients disagree with finite differences of the served model on {off} of {len(x)} "
        "samples: rounding, quantisation or many kinks on the way. Gradient attacks may be weak.",
    )


def unbounded_attack(classifier: Classifier, metric: Metric, samples: Samples) -> Health:
    """With the whole box to move in, an attack must break nearly every sample."""
    check = f"unbounded_attack.{metric.name}"
    if classifier.attackable is None:
        return _entry(check, "not_applicable", "It needs gradients.")
    rows = samples.probe(PROBE)
    radius = metric.diameter(samples.x[rows]).double()
    left = len(rows) - _broken(classifier, metric, samples, rows, radius, "unbounded", pgd)
    if left <= 0.01 * len(rows):
        return _entry(check, "pass", f"With an unlimited budget all {len(rows)} samples break.")
    return _entry(
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
        return _entry(check, "not_applicable", "It needs gradients.")
    rows = samples.probe(PROBE)
    radii = [delta * factor for factor in (0.5, 1.0, 2.0, 4.0)]
    counts = [
        _broken(classifier, metric, samples, rows, torch.full((len(rows),), r), "monotone", pgd)
        for r in radii
    ]
    drops = [before - after for before, after in zip(counts, counts[1:], strict=False)]
    shown = ", ".join(f"{n} at {r:.3g}" for n, r in zip(counts, radii, strict=True))
    # Two standard deviations of a count of this size, the same samples attacked twice.
    if max(drops) <= 0:
        return _entry(check, "pass", f"PGD breaks {shown} of {len(rows)} samples.")
    status: HealthStatus = "warn" if max(drops) <= 2 * len(rows) ** 0.5 / 2 else "fail"
    return _entry(
        check,
        status,
        f"PGD breaks {shown} of {len(rows)} samples: fewer with more budget, so its steps do not "
        "suit this model. Trust the minimal radii, and look at the gradient checks.",
    )


def random_not_better(
    classifier: Classifier, metric: Metric, samples: Samples, delta: float
) -> Health:
    """Random points must not break what PGD does not."""
    check = f"random_noise.{metric.name}"
    if classifier.attackable is None:
        return _entry(check, "not_applicable", "It needs gradients to compare with.")
    rows = samples.probe(PROBE)
    radius = torch.full((len(rows),), delta)
    by_noise = _broken(classifier, metric, samples, rows, radius, "noise", random_search)
    by_pgd = _broken(classifier, metric, samples, rows, radius, "noise", pgd)
    detail = (
        f"At {delta:.3g}, PGD breaks {by_pgd} and random points {by_noise} of {len(rows)} samples"
    )
    if by_noise > by_pgd:
        return _entry(
            check,
            "fail",
            f"{detail}: gradients mislead (masking), and the attacked accuracy is too optimistic.",
        )
    return _entry(check, "pass", f"{detail}.")


def certified_below_attacked(metric: str, certified: Tensor, attacked: Tensor) -> Health:
    """No certified radius exceeds a verified adversarial distance (the scan stops if one does)."""
    return _entry(
        f"certified_below_attacked.{metric}",
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


def _margin_gradient(
    classifier: Classifier, x: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    scores, value, grad = value_and_grad(
        classifier.differentiable,
        margin,
        x.to(classifier.device),
        labels.to(classifier.device),
    )
    return scores.cpu(), value.cpu(), grad.cpu()


def _scale(scores: Tensor) -> float:
    return max(1.0, float(scores.abs().max()))


def _entry(check: str, status: HealthStatus, detail: str) -> Health:
    return Health(check=check, status=status, detail=detail)
