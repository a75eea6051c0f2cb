"""Checks of the gradients: they exist, are finite and not zero, and predict the served model."""

from torch import Tensor

from attackers.geometry import Metric
from attackers.gradient import value_and_grad
from attackers.losses import margin
from attackers.rows import expand, row_sum
from audit.evidence.samples import Samples
from audit.health.common import PROBE, entry
from audit.models.classifier import Classifier
from audit.schema import Health


def gradients(classifier: Classifier, metric: Metric, samples: Samples, delta: float) -> Health:
    """Gradients of the margin exist, are finite and not zero, at random points near the samples."""
    if classifier.white_box is None:
        return entry(
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
        return entry(
            "gradients",
            "fail",
            f"{broken} of {len(x)} gradients are not finite: look for a division by zero or a "
            "logarithm in the model; gradient attacks are blind there.",
        )
    if zero:
        return entry(
            "gradients",
            "fail" if zero > 0.05 * len(x) else "warn",
            f"{zero} of {len(x)} gradients are exactly zero, so gradient attacks do not see where "
            "to go (gradient masking: a step function, rounding or saturation in the model). The "
            "attacked accuracy is far too optimistic: attack a smooth version of the model.",
        )
    return entry("gradients", "pass", f"All {len(x)} gradients are finite and not zero.")


def finite_differences(classifier: Classifier, samples: Samples) -> Health:
    """The gradient predicts how the *served* model's margin moves along it."""
    spec = classifier.spec
    if (
        classifier.white_box is None
        or classifier.output != "logits"
        or not spec.dtype.is_floating_point
    ):
        return entry(
            "finite_differences",
            "not_applicable",
            "It needs gradients, served logits and inputs that can move by little.",
        )
    rows = samples.probe(PROBE)
    labels = samples.labels[rows]
    # A little noise: on flat backgrounds max pooling has ties, where no derivative exists.
    noise = samples.generator.take(rows).fold("finite differences").uniform(samples.x[rows])
    x = 0.98 * samples.x[rows] + 0.02 * (spec.low + noise * (spec.high - spec.low))
    _, value, grad = _margin_gradient(classifier, x, labels)
    norm = row_sum(grad.double().square()).sqrt()
    kept = norm > 0
    if not bool(kept.any()):
        return entry("finite_differences", "not_applicable", "All gradients are zero.")
    x, labels, grad, norm, value = x[kept], labels[kept], grad[kept], norm[kept], value[kept]
    # A move that changes the margin by about a thousandth: above rounding, mostly below a kink.
    length = 1e-3 * value.double().abs().clamp_min(1e-3) / norm
    move = (grad.double() / expand(norm, grad.double())) * expand(length, grad.double())
    up, down = ((x.double() + sign * move).float() for sign in (1, -1))
    measured = margin(classifier.deployed(up), labels) - margin(classifier.deployed(down), labels)
    error = (measured.double() / (2 * length * norm) - 1).abs()
    off = int((error > 0.1).sum())
    if off <= 0.1 * len(x):
        return entry(
            "finite_differences",
            "pass",
            f"Gradients agree with finite differences of the served model on {len(x) - off} of "
            f"{len(x)} samples (10 %).",
        )
    return entry(
        "finite_differences",
        "warn",
        f"Gradients disagree with finite differences of the served model on {off} of {len(x)} "
        "samples: rounding, quantisation or many kinks on the way. Gradient attacks may be weak.",
    )


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
