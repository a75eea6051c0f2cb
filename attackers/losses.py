"""Losses that an attacker maximises, of the logits ``(B, K)`` and labels ``(B,)``, one per sample.

All are larger the closer a sample is to being misclassified. A sample is correct only when its
label is the *unique* top class, so a tie, or a score that is not a number, counts as an error.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]
TargetedLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Loss of (logits, labels, targets), larger the closer a sample is to its target class."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return -log softmax(logits)[label], ``(B,)``."""
    return functional.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return max_{k != y} z_k - z_y, ``(B,)``: negative exactly when the sample is correct."""
    own = logits.gather(1, labels[:, None])[:, 0]
    rivals = logits.scatter(1, labels[:, None], -torch.inf)
    return rivals.amax(1) - own


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the difference of logits ratio, ``(B,)``, invariant to shift and scale of logits.

    -(z_y - z_(2)) / (z_(1) - z_(3)) if y is the top class, else -(z_y - z_(1)) / (z_(1) - z_(3)).
    It needs a third class; for two the margin takes its place.

    Source: Croce & Hein 2020, equation 6.
    """
    if logits.shape[1] < 3:
        return margin(logits, labels)
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def redlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Return min(DLR, 0): no loss and no gradient once a sample is misclassified, ``(B,)``.

    Source: Bai, He, Jiang, Obloj 2023 (rectified DLR).
    """
    return dlr(logits, labels).clamp_max(0)


def targeted_margin(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return z_t - z_y, ``(B,)``."""
    return (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None]))[:, 0]


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Compute the targeted DLR, ``(B,)``: (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2).

    It needs a fourth class; with fewer the targeted margin takes its place.

    Source: Croce & Hein 2020, equation 7.
    """
    value = targeted_margin(logits, labels, targets)
    if logits.shape[1] < 4:
        return value
    top = logits.topk(4, dim=1).values
    return value / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def misclassified(logits: Tensor, labels: Tensor) -> Tensor:
    """Return True where the label is not the unique top class, ``(B,)`` bool."""
    return ~(margin(logits, labels) < 0)


def outvoted(logits: Tensor, labels: Tensor) -> Tensor:
    """Return True where another class scores strictly above the label, ``(B,)`` bool.

    An adversarial example must satisfy this, so that it is one however ties are broken; it
    differs from `misclassified` on exact ties and scores that are not numbers only.
    """
    return margin(logits, labels) > 0


def aimed(loss: Loss | TargetedLoss) -> Loss:
    """Return a loss of (logits, aims); aims are labels ``(B,)`` or (label, target) ``(B, 2)``."""

    def value(scores: Tensor, aims: Tensor) -> Tensor:
        return loss(scores, *(aims.unbind(1) if aims.dim() == 2 else (aims,)))

    return value


LOSSES: dict[str, Loss] = {
    "ce": cross_entropy,
    "margin": margin,
    "dlr": dlr,
    "redlr": redlr,
}
