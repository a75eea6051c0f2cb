"""Checks of the served model: accuracy, outputs, determinism, batches, agreement with its copy."""

from dataclasses import replace

import torch
from torch import Tensor

from audit.health.common import scale_of
from audit.health.needs import CORRECT_SAMPLES, QUANTISED_OPERATORS, SERVED_COPY
from audit.health.registry import CheckResult, check
from audit.health.subjects import PROBE_SIZE, ModelSubject
from audit.models.classifier import Classifier, looks_like_probabilities
from audit.statistics.confidence import clopper_pearson

PARITY_TOLERANCE = 1e-3
"""Largest score difference between runtime and copy, relative to the largest score."""

DETERMINISM_TOLERANCE = 1e-4
"""Largest difference between repeated calls that only warns, relative to the largest score."""

BATCH_TOLERANCE = 1e-3
"""Largest difference between batches that only warns, relative to the largest score."""

FEWEST_SAMPLES, WIDEST_INTERVAL = 100, 0.1
"""Number of samples below which, and width of the interval above which, `sample_size` warns."""


@check(
    "parity",
    ModelSubject,
    title="Copy agrees with the served model",
    advice="Attacks use scores only, which is weaker evidence: please report the operators of the "
    "model.",
    needs=(SERVED_COPY, CORRECT_SAMPLES),
)
def parity(subject: ModelSubject) -> CheckResult:
    """Check that the differentiable copy computes the same scores as the runtime."""
    classifier = subject.served
    x = subject.samples.x[subject.samples.probe(4 * PROBE_SIZE)]
    served, copied = classifier.deployed(x), classifier.copied(x)
    difference = float((served - copied).abs().max())
    agree = int((served.argmax(1) == copied.argmax(1)).sum())
    numbers: dict[str, int | float] = {
        "max_abs_difference": difference,
        "equal_predictions": agree,
        "samples": len(x),
    }
    if difference <= PARITY_TOLERANCE * scale_of(served) and agree == len(x):
        finding = f"Runtime and copy differ by at most {difference:.1e} on {len(x)} samples."
        return CheckResult("pass", finding, numbers)
    if classifier.unfused is not None:
        plain = without_fusion(classifier, x)
        apart = float((plain - copied).abs().max())
        if apart <= PARITY_TOLERANCE * scale_of(plain):
            finding = (
                f"The copy differs from the served model by {difference:.3g} on {len(x)} samples, "
                f"and from the same file without fused 8-bit kernels by at most {apart:.1e}: the "
                "runtime causes the difference, so gradients are used, and served scores decide."
            )
            return CheckResult("pass", finding, numbers | {"max_abs_difference_unfused": apart})
    finding = (
        f"The differentiable copy differs from the served model by {difference:.3g} and agrees on "
        f"{agree} of {len(x)} predictions, so its gradients are not used."
    )
    return CheckResult("warn", finding, numbers)


@check(
    "clean_accuracy",
    ModelSubject,
    title="Accuracy is above chance",
    advice="Check labels, class order, layout and normalisation with 'audit inspect', and evaluate "
    "on samples of all classes.",
)
def clean_accuracy(subject: ModelSubject) -> CheckResult:
    """Check that the accuracy is above chance; a scan with a lower one stops before this check."""
    samples, classes = subject.samples, subject.classifier.classes
    correct = int(samples.correct.sum())
    seen = (
        f"{correct} of {len(samples)} samples are classified correctly "
        f"({samples.accuracy:.1%}; chance is {1 / classes:.1%})"
    )
    numbers = {
        "correct": correct,
        "samples": len(samples),
        "accuracy": samples.accuracy,
        "chance": 1 / classes,
    }
    if samples.constant is not None:
        finding = f"{seen}, but the model predicts class {samples.constant} for every sample."
        return CheckResult("warn", finding, numbers)
    return CheckResult("pass", f"{seen}.", numbers)


@check(
    "sample_size",
    ModelSubject,
    title="Enough samples",
    advice="Raise --samples, to 1,000 or more if the data allows it.",
)
def sample_size(subject: ModelSubject) -> CheckResult:
    """Check that there are enough samples for a narrow interval on the clean accuracy."""
    samples = subject.samples
    low, high = clopper_pearson(int(samples.correct.sum()), len(samples), subject.confidence)
    width = high - low
    numbers = {"samples": len(samples), "interval_width": width, "confidence": subject.confidence}
    if len(samples) < FEWEST_SAMPLES or width > WIDEST_INTERVAL:
        finding = f"{len(samples)} samples give an interval {width:.0%} wide on clean accuracy."
        return CheckResult("warn", finding, numbers)
    finding = f"{len(samples)} samples give an interval {width:.1%} wide on clean accuracy."
    return CheckResult("pass", finding, numbers)


@check(
    "output",
    ModelSubject,
    title="Model returns logits",
    advice="Export the logits of the model.",
    needs=(CORRECT_SAMPLES,),
)
def output_kind(subject: ModelSubject) -> CheckResult:
    """Check that attacks can use the logits: losses need them, and probabilities saturate."""
    classifier = subject.served
    scores = classifier.deployed(subject.samples.x[subject.samples.probe(PROBE_SIZE)])
    if classifier.output == "labels":
        return CheckResult(
            "warn",
            "The model returns labels only, so gradients come from the scores before the decision, "
            "if the file has any.",
            advice="Serve scores, which allow stronger attacks and tighter results.",
        )
    if classifier.output == "probabilities" or looks_like_probabilities(scores):
        if classifier.gradient == "lifted" and not classifier.threshold:
            return CheckResult(
                "pass", "The model returns probabilities; attacks use the logits before them."
            )
        return CheckResult(
            "warn",
            "The model returns probabilities and its logits cannot be reached, so the loss uses "
            "log-probabilities, which vanish in float32 for very confident predictions.",
        )
    return CheckResult("pass", "The model returns logits.")


@check(
    "quantised_kernels",
    ModelSubject,
    title="8-bit kernels compute what the file states",
    advice="Audit on a machine of the kind that serves the model: these numbers hold for the "
    "machine of the scan.",
    needs=(QUANTISED_OPERATORS, CORRECT_SAMPLES),
)
def quantised_kernels(subject: ModelSubject) -> CheckResult:
    """Check that the runtime's fused 8-bit kernels compute what the file states on this machine."""
    classifier = subject.served
    x = subject.samples.x[subject.samples.probe(4 * PROBE_SIZE)]
    served, plain = classifier.deployed(x), without_fusion(classifier, x)
    difference = float((served - plain).abs().max())
    agree = int((served.argmax(1) == plain.argmax(1)).sum())
    numbers: dict[str, int | float] = {
        "max_abs_difference": difference,
        "equal_predictions": agree,
        "samples": len(x),
    }
    if difference <= PARITY_TOLERANCE * scale_of(plain):
        finding = f"Scores with and without fused 8-bit kernels differ by at most {difference:.1e}."
        return CheckResult("pass", finding, numbers)
    finding = (
        f"On this machine the runtime's fused 8-bit kernels change scores by {difference:.3g} "
        f"and agree with the arithmetic of the file on {agree} of {len(x)} predictions, since they "
        "saturate on processors without 8-bit dot products."
    )
    return CheckResult("warn", finding, numbers)


@check(
    "determinism",
    ModelSubject,
    title="Scores are deterministic",
    advice="Export the model in evaluation mode (dropout may be active): a single attack is weak "
    "evidence about a random model.",
    needs=(CORRECT_SAMPLES,),
)
def determinism(subject: ModelSubject) -> CheckResult:
    """Check that repeated calls with the same input return the same scores."""
    x = subject.samples.x[subject.samples.probe(PROBE_SIZE)]
    first, second, third = (subject.classifier.deployed(x) for _ in range(3))
    difference = float(torch.maximum((first - second).abs(), (first - third).abs()).max())
    numbers = {"max_abs_difference": difference, "samples": len(x)}
    if difference == 0:
        return CheckResult("pass", "Repeated calls return identical scores.", numbers)
    if difference <= DETERMINISM_TOLERANCE * scale_of(first):
        return CheckResult(
            "warn",
            f"Repeated calls differ by {difference:.1e}, in the last digits of the scores.",
            numbers,
            advice="No action is needed: radii may differ in the last digits between scans.",
        )
    finding = f"Repeated calls differ by {difference:.3g}: the model is random."
    return CheckResult("fail", finding, numbers)


@check(
    "batch_invariance",
    ModelSubject,
    title="Scores do not depend on the batch",
    advice="Export the model in evaluation mode: batch normalisation may be in training mode, or "
    "the samples of a batch may affect each other.",
    needs=(CORRECT_SAMPLES,),
)
def batch_invariance(subject: ModelSubject) -> CheckResult:
    """Check that the scores of a sample do not depend on the other samples of its batch."""
    x, classifier = subject.samples.x[subject.samples.probe(PROBE_SIZE)], subject.classifier
    together = classifier.deployed(x)
    reversed_ = classifier.deployed(x.flip(0)).flip(0)
    alone = torch.cat([classifier.deployed(row[None]) for row in x[:8]])
    difference = float(
        torch.maximum(
            (together - reversed_).abs().max(), (together[: len(alone)] - alone).abs().max()
        )
    )
    numbers = {"max_abs_difference": difference, "samples": len(x)}
    if difference == 0:
        return CheckResult("pass", "Scores do not depend on the batch, to the last bit.", numbers)
    if difference <= BATCH_TOLERANCE * scale_of(together):
        return CheckResult(
            "warn",
            f"Scores change by {difference:.1e} with the batch, which is harmless for accuracy.",
            numbers,
            advice="No action is needed: results may depend on the batch size in the last digits.",
        )
    finding = f"Scores change by {difference:.3g} with the other samples of the batch."
    return CheckResult("fail", finding, numbers)


def without_fusion(classifier: Classifier, x: Tensor) -> Tensor:
    """Return the scores of the served file, (B, K), from a runtime without fused 8-bit kernels."""
    assert classifier.unfused is not None
    return replace(classifier, serve=classifier.unfused).deployed(x)
