"""FGSM: one steepest step (Goodfellow, Shlens, Szegedy 2015, section 4; any metric)."""

from torch import Tensor

from attackers.gradient import Logits, value_and_grad
from attackers.losses import Loss, cross_entropy
from attackers.random_streams import SampleGenerator
from attackers.threat import Threat


def fgsm(
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    generator: SampleGenerator | None = None,
    loss: Loss = cross_entropy,
) -> Tensor:
    """Return x0 + argmax <grad, d> over the ball and the box.

    Args:
        logits: differentiable classifier.
        x0: (B, ...) in the box.
        labels: (B,) int64.
        threat: pointwise threat; ``delta`` is the radius.
        generator: unused; the attack is deterministic.
        loss: per-sample loss to increase.

    Returns:
        (B, ...) inside ball and box, in the dtype of ``x0``.

    Source: Goodfellow, Shlens, Szegedy 2015, section 4.
    """
    del generator
    _, _, grad = value_and_grad(logits, loss, x0, labels)
    return threat.metric.farthest(x0, grad.nan_to_num(), threat.delta)
