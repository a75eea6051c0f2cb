"""Checks of the served model itself: accuracy, outputs, determinism, batches, its copy."""

from dataclasses import replace

import torch
from torch import Tensor

from attackers.geometry import Metric
from audit.evidence.samples import Samples
from audit.health.common import PROBE, entry, scale
from audit.models.classifier import Classifier, looks_like_probabilities
from audit.schema import Health
from audit.statistics.confidence import clopper_pearson

PARITY_TOLERANCE = 1e-3
"""Largest score difference between runtime and copy, relative to the largest score."""


def clean_accuracy(samples: Samples, classes: int) -> Health:
    """Accuracy is far above chance (a lower one stops the scan before this check)."""
    numbers = (
        f"{int(samples.correct.sum())} of {len(samples)} samples are classified correctly "
        f"({samples.accuracy:.1%}; chance is {1 / classes:.1%})"
    )
    if samples.constant is not None:
        return entry(
            "clean_accuracy",
            "warn",
            f"{numbers}, but the model names class {samples.constant} for every sample.",
        )
    return entry("clean_accuracy", "pass", f"{numbers}.")


def sample_size(samples: Samples, confidence: float) -> Health:
    """Enough samples for an interval that says something."""
    low, high = clopper_pearson(int(samples.correct.sum()), len(samples), confidence)
    width = high - low
    if len(samples) < 100 or width > 0.1:
        return entry(
            "sample_size",
            "warn",
            f"{len(samples)} samples leave an interval {width:.0%} wide on the clean accuracy: "
            "raise --samples, to 1,000 or more if the data allows it.",
        )
    return entry(
        "sample_size", "pass", f"{len(samples)} samples: the clean interval is {width:.1%} wide."
    )


def output_kind(classifier: Classifier, samples: Samples) -> Health:
    """Losses need logits; probabilities saturate."""
    scores = classifier.deployed(samples.x[samples.probe(PROBE)])
    if classifier.output == "labels":
        return entry(
            "output",
            "warn",
            "The model returns labels only: gradients come from the scores before the decision, "
            "where there are any; serve the scores to be audited more sharply.",
        )
    if classifier.output == "probabilities" or looks_like_probabilities(scores):
        if classifier.gradient == "lifted" and not classifier.threshold:
            return entry(
                "output",
                "pass",
                "The model returns probabilities; attacks use the logits before them.",
            )
        return entry(
            "output",
            "warn",
            "The model returns probabilities and its logits are out of reach, so the loss uses "
            "log-probabilities, which vanish in float32 for very sure predictions: export logits.",
        )
    return entry("output", "pass", "The model returns logits.")


def determinism(classifier: Classifier, samples: Samples) -> Health:
    """The same input gives the same scores every time."""
    x = samples.x[samples.probe(PROBE)]
    first, second, third = (classifier.deployed(x) for _ in range(3))
    difference = float(torch.maximum((first - second).abs(), (first - third).abs()).max())
    if difference == 0:
        return entry("determinism", "pass", "Repeated calls return identical scores.")
    if difference <= 1e-4 * scale(first):
        return entry(
            "determinism", "warn", f"Repeated calls differ by {difference:.1e}, in the last digits."
        )
    return entry(
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
        return entry("batch_invariance", "pass", "Scores do not depend on the batch, to the bit.")
    if difference <= 1e-3 * scale(together):
        return entry(
            "batch_invariance",
            "warn",
            f"Scores move by {difference:.1e} with the batch: harmless for accuracy, but results "
            "may differ in the last digits between batch sizes.",
        )
    return entry(
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
    if not classifier.has_copy:
        return (
            entry("parity", "not_applicable", "There is no differentiable copy to compare."),
            None,
            0,
        )
    x = samples.x[samples.probe(4 * PROBE)]
    served, copied = classifier.deployed(x), classifier.copied(x)
    difference = float((served - copied).abs().max())
    agree = int((served.argmax(1) == copied.argmax(1)).sum())
    if difference <= PARITY_TOLERANCE * scale(served) and agree == len(x):
        detail = f"Runtime and copy differ by at most {difference:.1e} on {len(x)} samples."
        return entry("parity", "pass", detail), difference, len(x)
    if classifier.unfused is not None:
        plain = without_fusion(classifier, x)
        apart = float((plain - copied).abs().max())
        if apart <= PARITY_TOLERANCE * scale(plain):
            detail = (
                f"The copy differs from the served model by {difference:.3g} on {len(x)} samples, "
                f"and from the same file without fused 8-bit kernels by at most {apart:.1e}: the "
                "difference is the runtime's own. Gradients are used, and served values judge."
            )
            return entry("parity", "pass", detail), difference, len(x)
    return (
        entry(
            "parity",
            "warn",
            f"The differentiable copy differs from the served model by {difference:.3g} and agrees "
            f"on {agree} of {len(x)} predictions, so its gradients are not used: attacks see "
            "scores only, which is weaker evidence. Please report the model's operators.",
        ),
        difference,
        len(x),
    )


def without_fusion(classifier: Classifier, x: Tensor) -> Tensor:
    """Scores of the served file, (B, K), where the runtime does not fuse 8-bit kernels."""
    assert classifier.unfused is not None
    return replace(classifier, serve=classifier.unfused).deployed(x)


def quantised_kernels(classifier: Classifier, samples: Samples) -> Health:
    """The runtime's fused 8-bit kernels compute what the file says, on this machine."""
    check = "quantised_kernels"
    if classifier.unfused is None:
        return entry(check, "not_applicable", "The file holds no quantised operators.")
    x = samples.x[samples.probe(4 * PROBE)]
    served, plain = classifier.deployed(x), without_fusion(classifier, x)
    difference = float((served - plain).abs().max())
    if difference <= PARITY_TOLERANCE * scale(plain):
        detail = f"With and without fused 8-bit kernels scores differ by at most {difference:.1e}."
        return entry(check, "pass", detail)
    agree = int((served.argmax(1) == plain.argmax(1)).sum())
    return entry(
        check,
        "warn",
        f"On this machine the runtime's fused 8-bit kernels move scores by {difference:.3g} and "
        f"agree with the file's own arithmetic on {agree} of {len(x)} predictions: they saturate "
        "on processors without 8-bit dot products. The numbers are those of this machine, and the "
        "serving machine may answer otherwise: audit on a machine of its kind.",
    )


def parity_on_adversarial(classifier: Classifier, metric: Metric, x: Tensor) -> Health:
    """The copy still agrees with the runtime on the adversarial examples found."""
    check = f"parity_adversarial.{metric.name}"
    if not classifier.has_copy or not len(x):
        return entry(check, "not_applicable", "There is no copy, or no adversarial example.")
    served, copied = classifier.deployed(x), classifier.copied(x)
    difference = float((served - copied).abs().max())
    if difference <= PARITY_TOLERANCE * scale(served):
        return entry(
            check,
            "pass",
            f"They differ by at most {difference:.1e} on {len(x)} adversarial inputs.",
        )
    return entry(
        check,
        "warn",
        f"Runtime and copy differ by {difference:.3g} on adversarial inputs: attacks may miss "
        "examples that the served model has. Every example counted was confirmed by the runtime.",
    )
