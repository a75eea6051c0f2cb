"""Checks of the gradients: they exist, are finite and not zero, and predict the served model."""

from torch import Tensor

from attackers.gradient import value_and_grad
from attackers.losses import margin
from attackers.rows import expand, row_sum
from audit.health.needs import CONTINUOUS_INPUTS, CORRECT_SAMPLES, GRADIENTS, LOGITS
from audit.health.registry import CheckResult, check
from audit.health.subjects import PROBE_SIZE, ModelSubject
from audit.models.classifier import Classifier

MOST_ZERO = 0.05
"""Share of gradients that may be exactly zero before `gradients` fails instead of warning."""

SLOPE_TOLERANCE = 0.1
"""Relative error of a slope above which a gradient disagrees with it, and largest share of samples
that may disagree."""


@check(
    "finite_differences",
    ModelSubject,
    title="Gradients match finite differences",
    advice="Gradient attacks may be weak: rely more on the attacks without gradients, and look for "
    "rounding or quantisation in the model.",
    needs=(GRADIENTS, LOGITS, CONTINUOUS_INPUTS, CORRECT_SAMPLES),
)
def finite_differences(subject: ModelSubject) -> CheckResult:
    """Check that the gradient predicts how the margin of the *served* model changes along it."""
    classifier, samples, spec = subject.classifier, subject.samples, subject.classifier.spec
    rows = samples.probe(PROBE_SIZE)
    labels = samples.labels[rows]
    # Some noise is added: on flat backgrounds max pooling has ties, where no derivative exists.
    noise = samples.generator.take(rows).fold("finite differences").uniform(samples.x[rows])
    x = 0.98 * samples.x[rows] + 0.02 * (spec.low + noise * (spec.high - spec.low))
    value, grad = _margin_gradient(classifier, x, labels)
    norm = row_sum(grad.double().square()).sqrt()
    kept = norm > 0
    if not bool(kept.any()):
        return CheckResult("not_applicable", "All gradients are zero.")
    x, labels, grad, norm, value = x[kept], labels[kept], grad[kept], norm[kept], value[kept]
    # The step changes the margin by about a thousandth: more than rounding, and rarely past a kink.
    length = 1e-3 * value.double().abs().clamp_min(1e-3) / norm
    move = (grad.double() / expand(norm, grad.double())) * expand(length, grad.double())
    up, down = ((x.double() + sign * move).float() for sign in (1, -1))
    measured = margin(classifier.deployed(up), labels) - margin(classifier.deployed(down), labels)
    error = (measured.double() / (2 * length * norm) - 1).abs()
    off = int((error > SLOPE_TOLERANCE).sum())
    numbers = {"disagreeing": off, "samples": len(x), "tolerance": SLOPE_TOLERANCE}
    if off <= SLOPE_TOLERANCE * len(x):
        finding = (
            f"Gradients agree with finite differences of the served model on {len(x) - off} of "
            f"{len(x)} samples (to {SLOPE_TOLERANCE:.0%})."
        )
        return CheckResult("pass", finding, numbers)
    finding = (
        f"Gradients disagree with finite differences of the served model on {off} of {len(x)} "
        "samples."
    )
    return CheckResult("warn", finding, numbers)


@check(
    "gradients",
    ModelSubject,
    title="Gradients are finite and not zero",
    advice="Attack a smooth version of the model: the gradients give attacks no direction "
    "(gradient masking by a step function, rounding or saturation), and the attacked accuracy is "
    "far too optimistic.",
    needs=(CORRECT_SAMPLES,),
)
def gradients(subject: ModelSubject) -> CheckResult:
    """Check that gradients of the margin, at random points near samples, are finite, not zero."""
    classifier, samples = subject.classifier, subject.samples
    if classifier.white_box is None:
        return CheckResult(
            "warn",
            "There are no gradients, so only black-box attacks run, which is weaker evidence.",
            advice="Serve the model in a format that can be differentiated, if possible: the true "
            "robustness may be far lower.",
        )
    rows = samples.probe(PROBE_SIZE)
    streams = samples.generator.take(rows).fold("gradients")
    x = subject.metric.sample(samples.x[rows], subject.delta, streams)
    _, grad = _margin_gradient(classifier, x, samples.labels[rows])
    infinite = int((~grad.flatten(1).isfinite().all(1)).sum())
    zero = int((grad.flatten(1) == 0).all(1).sum())
    numbers = {"not_finite": infinite, "zero": zero, "samples": len(x)}
    if infinite:
        return CheckResult(
            "fail",
            f"{infinite} of {len(x)} gradients are not finite.",
            numbers,
            advice="Look for a division by zero or a logarithm in the model: gradient attacks do "
            "not work at such points.",
        )
    if zero:
        finding = f"{zero} of {len(x)} gradients are exactly zero."
        return CheckResult("fail" if zero > MOST_ZERO * len(x) else "warn", finding, numbers)
    return CheckResult("pass", f"All {len(x)} gradients are finite and not zero.", numbers)


def _margin_gradient(classifier: Classifier, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the margins, (B,), and their gradients by the inputs."""
    _, value, grad = value_and_grad(
        classifier.differentiable,
        margin,
        x.to(classifier.device),
        labels.to(classifier.device),
    )
    return value.cpu(), grad.cpu()
