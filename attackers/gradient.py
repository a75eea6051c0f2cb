"""Loss and input gradient in slices of rows: memory is bounded, parameters collect nothing."""

from collections.abc import Callable

import torch
from torch import Tensor

from attackers.losses import Loss

Logits = Callable[[Tensor], Tensor]
"""A differentiable classifier: inputs ``(B, ...)`` to scores ``(B, K)``."""


def value_and_grad(
    logits: Logits, loss: Loss, x: Tensor, labels: Tensor, *, rows: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Evaluate the model, the loss and the gradient of the loss with respect to the input.

    Args:
        logits: the classifier.
        loss: per-sample loss of (logits, labels).
        x: (B, ...) inputs.
        labels: (B,) int64.
        rows: number of samples to differentiate at once; all by default.

    Returns:
        Scores (B, K), losses (B,) and gradients of the shape of ``x``, all detached. A gradient
        entry that is not finite is returned as it is: the caller decides.
    """
    if rows is None or len(x) <= rows:
        return _value_and_grad(logits, loss, x, labels)
    parts = [
        _value_and_grad(logits, loss, part, part_labels)
        for part, part_labels in zip(x.split(rows), labels.split(rows), strict=True)
    ]
    scores, values, grads = zip(*parts, strict=True)
    return torch.cat(scores), torch.cat(values), torch.cat(grads)


def _value_and_grad(
    logits: Logits, loss: Loss, x: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        scores = logits(x)
        values = loss(scores, labels)
        # A score that does not depend on the input has no graph: its gradient is zero.
        if not values.requires_grad:
            return scores.detach(), values.detach(), torch.zeros_like(x)
        (grad,) = torch.autograd.grad(values.sum(), x, allow_unused=True)
    return scores.detach(), values.detach(), torch.zeros_like(x) if grad is None else grad
