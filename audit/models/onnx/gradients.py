"""Straight-through gradients for operations whose exact derivative is zero by construction."""

from typing import Any

import torch
from torch import Tensor


class _StraightThrough(torch.autograd.Function):
    """Identity of the second argument that sends the gradient to the first.

    Source: Bengio, Léonard, Courville 2013.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Save nothing: the gradient depends on no value."""

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


def straight_through(x: Tensor, value: Tensor) -> Tensor:
    """Return exactly `value`, with the derivative of x -> x.

    Args:
        x: tensor that the value was computed from; an integer tensor has no gradient.
        value: tensor of the same shape and type.
    """
    if not x.is_floating_point() or not torch.is_grad_enabled():
        return value
    return _StraightThrough.apply(x, value.detach())  # type: ignore[no-any-return]


def wrapped(x: Tensor) -> bool:
    """Return whether `x` is inside a `torch.func` transform such as vmap."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(x))
