"""Reductions over axes, and running sums."""

from collections.abc import Callable

import torch
from torch import Tensor

from audit.models.onnx.node import Kernel, Node, operator, python_numbers

Reduce = Callable[[Tensor, list[int], bool], Tensor]


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Multiply along one axis after the other, as torch reduces only one axis per call."""
    rank = x.dim()
    if not all(-rank <= axis < rank for axis in axes):
        raise IndexError(f"axes {axes} are out of range for {rank} dimensions")
    for axis in sorted({axis % rank for axis in axes}, reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _extreme(function: Callable[..., Tensor], largest: bool) -> Reduce:
    """Make a maximum or minimum; an empty reduction gives the opposite limit of the type."""

    def run(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        if x.numel() > 0:
            return function(x, axes, keep)
        shape = x.sum(axes, keepdim=keep).shape
        return torch.full(shape, _end(x.dtype, not largest), dtype=x.dtype, device=x.device)

    return run


def _end(dtype: torch.dtype, high: bool) -> float:
    if dtype is torch.bool:
        return float(high)
    if dtype.is_floating_point:
        return torch.inf if high else -torch.inf
    return torch.iinfo(dtype).max if high else torch.iinfo(dtype).min


def _norm(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Compute √Σx²; unlike a square root, torch's norm has gradient zero at zero."""
    if not x.is_floating_point():
        return (x * x).sum(axes, keepdim=keep).to(torch.float64).sqrt().to(x.dtype)
    norm: Tensor = torch.linalg.vector_norm(x, 2, axes, keepdim=keep)
    return norm


REDUCTIONS: dict[str, Reduce] = {
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep, dtype=x.dtype),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceMax": _extreme(torch.amax, True),
    "ReduceMin": _extreme(torch.amin, False),
    "ReduceProd": _product,
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep, dtype=x.dtype),
    "ReduceL2": _norm,
    "ReduceSumSquare": lambda x, axes, keep: (x * x).sum(axes, keepdim=keep, dtype=x.dtype),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep),
}


@operator(*REDUCTIONS, static=(1,))
def reduce(node: Node) -> Kernel:
    """Reduce over axes given as an attribute (older opsets) or an input; by default over all."""
    function = REDUCTIONS[node.operator]
    keep, idle = bool(node.get("keepdims", 1)), bool(node.get("noop_with_empty_axes", 0))
    given = node.get("axes")

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = given or python_numbers(axes)
        if not chosen:
            # Without a reduction, the elementwise part of the function still applies.
            if idle:
                return function(x.unsqueeze(0), [0], False)
            chosen = list(range(x.dim()))
        return function(x, chosen, keep) if x.dim() else function(x.reshape(1), [0], False)

    return run


@operator("CumSum", "CumProd", static=(1,))
def cumulative(node: Node) -> Kernel:
    """Compute a running sum or product along an axis.

    If `reverse`, it runs backwards; if `exclusive`, it leaves out the element itself.
    """
    exclusive, backwards = bool(node.get("exclusive", 0)), bool(node.get("reverse", 0))
    function, neutral = {"CumSum": (torch.cumsum, 0), "CumProd": (torch.cumprod, 1)}[node.operator]

    def run(x: Tensor, axis: Tensor) -> Tensor:
        along = int(python_numbers(axis)[0])
        y = x.flip(along) if backwards else x
        if exclusive:
            first = torch.full_like(y.narrow(along, 0, 1), neutral)
            y = torch.cat([first, y.narrow(along, 0, y.shape[along] - 1)], along)
        y = function(y, along).to(x.dtype)
        return y.flip(along) if backwards else y

    return run
