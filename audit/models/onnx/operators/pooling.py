"""Pooling over windows and over whole planes."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from audit.models.onnx.node import Kernel, Node, operator, operators_without_attributes
from audit.models.onnx.operators.linear import CONVOLUTIONS
from audit.models.onnx.operators.window import Window, pad_spatial, read_window

MAXIMA: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MEANS: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _planes(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


operators_without_attributes(
    {
        "GlobalAveragePool": lambda x: x.mean(_planes(x), keepdim=True),
        "GlobalMaxPool": lambda x: x.amax(_planes(x), keepdim=True),
    }
)


@operator("GlobalLpPool")
def global_lp_pool(node: Node) -> Kernel:
    """Compute the p-norm of each plane."""
    p = node.get("p", 2)
    return lambda x: torch.linalg.vector_norm(x, p, _planes(x), keepdim=True)


def _window(node: Node) -> Window:
    kernel = node.get("kernel_shape") or []
    if len(kernel) not in MAXIMA:
        raise node.refuse(f"kernel_shape {kernel} is not supported")
    return read_window(node, len(kernel), kernel)


@operator("MaxPool")
def max_pool(node: Node) -> Kernel:
    """Compute the maximum per window; padding is never the maximum."""
    window = _window(node)
    columns_first = bool(node.get("storage_order", 0))
    if node.wants(1):
        return _checked(node, window, lambda x: _max_with_indices(x, window, columns_first))
    return _checked(node, window, lambda x: _max(x, window))


def _checked(node: Node, window: Window, pool: Kernel) -> Kernel:
    """Require inputs with a batch axis, as torch also accepts inputs without one."""

    def run(x: Tensor) -> Any:
        node.require_shape("input X", x, (None,) * (2 + len(window.kernel)))
        return pool(x)

    return run


def _max(x: Tensor, window: Window) -> Tensor:
    function = MAXIMA[len(window.kernel)]
    rank = len(window.kernel)
    arguments = (window.kernel, window.strides, 0, window.dilations)
    if not x.is_floating_point():  # torch pools floats only; 8-bit integers are exact in them
        return _max(x.float(), window).to(x.dtype)
    fits = all(pad <= reach // 2 for pad, reach in zip(window.pads, window.reach, strict=False))
    if window.is_symmetric() and fits and not window.ceil:
        return function(x, window.kernel, window.strides, window.pads[:rank], window.dilations)
    begins, ends = _pads(x, window)
    return function(pad_spatial(x, begins, ends, -torch.inf), *arguments)


def _pads(x: Tensor, window: Window) -> tuple[list[int], list[int]]:
    sizes = x.shape[2:]
    begins, ends = window.padding(sizes)
    extra = window.overhang(sizes)
    return begins, [end + more for end, more in zip(ends, extra, strict=True)]


def _max_with_indices(x: Tensor, window: Window, columns_first: bool) -> tuple[Tensor, Tensor]:
    """Return the maxima and their flat positions in the whole unpadded tensor."""
    begins, ends = _pads(x, window)
    padded = pad_spatial(x.float(), begins, ends, -torch.inf)
    function = MAXIMA[len(window.kernel)]
    y, where = function(
        padded, window.kernel, window.strides, 0, window.dilations, return_indices=True
    )
    sizes = list(x.shape[2:])
    axes = range(len(sizes))
    coordinates: list[Tensor] = []
    for axis in reversed(axes):
        coordinates.insert(0, where % padded.shape[2 + axis] - begins[axis])
        where = where // padded.shape[2 + axis]
    order = reversed(axes) if columns_first else axes
    flat = torch.zeros_like(where)
    for axis in order:
        flat = flat * sizes[axis] + coordinates[axis]
    planes = torch.arange(x.shape[0] * x.shape[1], device=x.device)
    offset = planes.reshape(x.shape[0], x.shape[1], *[1] * len(sizes)) * x[0, 0].numel()
    return y.to(x.dtype), flat + offset


@operator("AveragePool")
def average_pool(node: Node) -> Kernel:
    """Compute the mean per window; it includes the pads if `count_include_pad` is set."""
    window = _window(node)
    whole = bool(node.get("count_include_pad", 0))
    rank = len(window.kernel)
    fits = all(pad <= k // 2 for pad, k in zip(window.pads, window.kernel, strict=False))
    if window.is_symmetric() and fits and not window.ceil and max(window.dilations) == 1:
        pads = window.pads[:rank]
        return _checked(
            node,
            window,
            lambda x: MEANS[rank](x, window.kernel, window.strides, pads, False, whole),
        )
    return _checked(node, window, lambda x: _mean(x, window, whole))


def _mean(x: Tensor, window: Window, whole: bool) -> Tensor:
    sizes = x.shape[2:]
    begins, ends = window.padding(sizes)
    ones = torch.ones(1, 1, *sizes, dtype=x.dtype, device=x.device)
    counted = pad_spatial(ones, begins, ends, 1.0 if whole else 0.0)
    beyond = [0] * len(sizes)
    count = _sum(pad_spatial(counted, beyond, window.overhang(sizes)), window)
    padded = pad_spatial(x, *_pads(x, window))
    if max(window.dilations) > 1:
        return _sum(padded, window) / count
    means = MEANS[len(sizes)](padded, window.kernel, window.strides)
    return means * (math.prod(window.kernel) / count)


def _sum(x: Tensor, window: Window) -> Tensor:
    """Sum each window of an already padded input by a convolution with ones."""
    rank = len(window.kernel)
    flat = x.reshape(-1, 1, *x.shape[2:])
    ones = torch.ones(1, 1, *window.kernel, dtype=x.dtype, device=x.device)
    y = CONVOLUTIONS[rank](flat, ones, None, window.strides, 0, window.dilations)
    return y.reshape(*x.shape[:2], *y.shape[2:])


@operator("LpPool")
def lp_pool(node: Node) -> Kernel:
    """Compute the p-norm of each window."""
    window = _window(node)
    if window.same and any(r < s for r, s in zip(window.reach, window.strides, strict=True)):
        # Runtimes compute different values here.
        raise node.refuse("SAME padding of a window smaller than its stride is not supported")
    p = node.get("p", 2)

    def run(x: Tensor) -> Tensor:
        powers = pad_spatial(x, *_pads(x, window)).abs() ** p
        return _sum(powers, window).pow(1 / p)

    return _checked(node, window, run)
