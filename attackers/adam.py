"""One step of Adam as a pure function: inputs are not modified."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam

BETAS, EPSILON = (0.9, 0.999), 1e-8


@torch.no_grad()
def adam_step(
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    *,
    number: int,
    rate: float,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Compute the next weights and moments.

    Args:
        weights: tensors of any shapes, floating.
        grads: gradients of the same shapes.
        first: mean of the gradients so far, zeros at first.
        second: mean of their squares, zeros at first.
        number: steps taken before this one.
        rate: learning rate.

    Returns:
        New weights, first moments and second moments, each of the shapes of ``weights``.

    Source: Kingma & Ba 2015, algorithm 1, by torch's implementation.
    """
    new, means, squares = ([v.detach().clone() for v in kept] for kept in (weights, first, second))
    adam(
        new,
        list(grads),
        means,
        squares,
        [],
        [torch.tensor(float(number), device="cpu") for _ in new],
        amsgrad=False,
        beta1=BETAS[0],
        beta2=BETAS[1],
        lr=rate,
        weight_decay=0.0,
        eps=EPSILON,
        maximize=False,
    )
    return new, means, squares
