"""Quantised operators: integers are held as exact floats, so that gradients can pass.

A quantised value is stored as a float that equals the integer if all its readers accept floats
(`Node.relaxed`); an operator on integers dequantises, computes in float and quantises again.
"""

from typing import Any

import torch
from torch import Tensor

from audit.models.onnx.dtypes import TORCH
from audit.models.onnx.gradients import straight_through
from audit.models.onnx.node import Kernel, Node, operator
from audit.models.onnx.operators.linear import convolve
from audit.models.onnx.operators.window import read_window

KINDS = (torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32)


def along(value: Tensor | None, like: Tensor, axis: int, block: int = 0) -> Tensor | None:
    """Reshape a scale or zero point, per tensor, axis or block, to broadcast with `like`."""
    if value is None or (value.numel() == 1 and value.dim() <= 1 and not block):
        return value if value is None else value.reshape(())
    if block:
        return value.repeat_interleave(block, axis).narrow(axis, 0, like.shape[axis])
    sizes = [1] * like.dim()
    sizes[axis] = value.numel()
    return value.reshape(sizes)


def quantised(x: Tensor, scale: Tensor, zero: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Compute round(x/scale) + zero as a saturated float.

    Halves round to even; the gradient is that of the unrounded value.
    """
    limits = torch.iinfo(dtype)
    steps = x / scale
    whole = straight_through(steps, torch.round(steps))
    if zero is not None:
        whole = whole + zero.to(whole.dtype)
    return torch.clamp(whole, limits.min, limits.max)


def dequantised(x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    """Compute (x − zero)·scale in the type of the scale."""
    y = x if x.is_floating_point() else x.to(scale.dtype)
    if zero is not None:
        y = y - zero.to(y.dtype)
    return y.to(scale.dtype) * scale


def _delivered(node: Node, y: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the integers as floats if every reader accepts floats, else as integers."""
    return y if node.relaxed else y.to(dtype)


def _kind(node: Node, zero: Tensor | None, to: int) -> torch.dtype:
    dtype = zero.dtype if zero is not None else TORCH.get(to) if to else torch.uint8
    if dtype not in KINDS:
        kind = zero.dtype if zero is not None else to
        raise node.refuse(f"quantisation to {kind} is not supported")
    return dtype


@operator("QuantizeLinear", ignores=("saturate",))
def quantize(node: Node) -> Kernel:
    """Quantise floats to integers, per tensor, axis or block."""
    axis, block, to = node.get("axis", 1), node.get("block_size", 0), node.get("output_dtype", 0)
    if node.get("precision", 0):
        raise node.refuse("a precision other than that of the scale is not supported")

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        dtype = _kind(node, zero, to)
        steps = along(scale, x, axis, block)
        assert steps is not None
        exact = x if x.is_floating_point() else x.to(scale.dtype)
        if exact.dtype is torch.float16:  # a 16-bit quotient would round twice
            exact, steps = exact.float(), steps.float()
        y = quantised(exact, steps, along(zero, x, axis, block), dtype)
        return _delivered(node, y, dtype)

    return run


@operator("DequantizeLinear")
def dequantize(node: Node) -> Kernel:
    """Dequantise integers to floats, per tensor, axis or block."""
    axis, block, to = node.get("axis", 1), node.get("block_size", 0), node.get("output_dtype", 0)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        if (not x.is_floating_point() and x.dtype not in KINDS) or "float8" in str(x.dtype):
            raise node.refuse(f"dequantisation from {x.dtype} is not supported")
        steps = along(scale, x, axis, block)
        assert steps is not None
        y = dequantised(x, steps, along(zero, x, axis, block))
        return y.to(TORCH[to]) if to else y

    return run


@operator("DynamicQuantizeLinear")
def dynamic_quantize(node: Node) -> Kernel:
    """Quantise to 8 bits; scale and zero point cover the range of the data and zero."""

    def run(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        high = torch.clamp(x.amax(), min=0.0)
        low = torch.clamp(x.amin(), max=0.0)
        scale = (high - low) / 255
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        zero = torch.round(torch.clamp(-low / scale, 0, 255)).detach()
        y = quantised(x, scale, zero, torch.uint8)
        return _delivered(node, y, torch.uint8), scale, zero.to(torch.uint8)

    return run


def _centred(x: Tensor, zero: Tensor | None, wide: torch.dtype, axis: int | None) -> Tensor:
    """Return x − zero as a float; a zero point per row or column is aligned with its axis."""
    y = x if x.is_floating_point() else x.to(wide)
    if zero is None:
        return y
    if zero.dim() == 1 and zero.numel() > 1 and axis is not None:
        zero = zero.reshape(-1, *[1] * (-1 - axis))
    return y - zero.to(y.dtype)


def _wide(a: Tensor, b: Tensor) -> torch.dtype:
    """Return the type in which sums of products of 8-bit integers are exact.

    It is float32 for sums below 2^24, else float64.
    """
    terms = b[0].numel() if b.dim() > 2 else b.shape[0]
    gradient = a.is_floating_point() or b.is_floating_point()
    return torch.float32 if gradient or terms * 2**16 < 2**24 else torch.float64


@operator("MatMulInteger")
def matmul_integer(node: Node) -> Kernel:
    """Multiply integer matrices after subtracting their zero points."""

    def run(
        a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
    ) -> Tensor:
        wide = _wide(a, b)
        y = _centred(a, a_zero, wide, -2).to(wide) @ _centred(b, b_zero, wide, None).to(wide)
        return _delivered(node, y, torch.int32)

    return run


@operator("ConvInteger")
def conv_integer(node: Node) -> Kernel:
    """Convolve integers after subtracting their zero points."""
    arguments = _convolution(node)

    def run(
        x: Tensor, w: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None
    ) -> Tensor:
        wide = _wide(x, w)
        weight = _centred(w, along(w_zero, w, 0), wide, None).to(wide)
        y = _convolve(node, _centred(x, x_zero, wide, None).to(wide), weight, None, arguments)
        return _delivered(node, y, torch.int32)

    return run


def _convolution(node: Node) -> int:
    for name in ("auto_pad", "pads", "strides", "dilations", "kernel_shape"):
        node.get(name)
    return int(node.get("group", 1))


def _convolve(node: Node, x: Tensor, w: Tensor, bias: Tensor | None, group: int) -> Tensor:
    kernel = tuple(w.shape[2:])
    return convolve(x, w, bias, read_window(node, len(kernel), kernel), group)


@operator("QLinearConv")
def qlinear_convolution(node: Node) -> Kernel:
    """Dequantise, convolve and quantise; the 32-bit bias has the scale of the products."""
    group = _convolution(node)

    def run(*given: Any) -> Tensor:
        x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, *rest = given
        weight = dequantised(w, _facing(w_scale, w), along(w_zero, w, 0))
        bias = rest[0] * (x_scale * w_scale) if rest and rest[0] is not None else None
        y = _convolve(node, dequantised(x, x_scale, x_zero), weight, bias, group)
        return _delivered(node, quantised(y, y_scale, y_zero, y_zero.dtype), y_zero.dtype)

    return run


def _facing(scale: Tensor, w: Tensor) -> Tensor:
    shaped = along(scale, w, 0)
    assert shaped is not None
    return shaped


@operator("QLinearMatMul")
def qlinear_matmul(node: Node) -> Kernel:
    """Dequantise, multiply and quantise."""

    def run(*given: Tensor) -> Tensor:
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = given
        if any(scale.numel() > 1 for scale in (a_scale, b_scale, y_scale)):
            raise node.refuse("scales per row or column are not supported")
        left = dequantised(a, a_scale.float(), a_zero)
        right = dequantised(b, b_scale.float(), b_zero)
        y = quantised(left @ right, y_scale.float(), y_zero, y_zero.dtype)
        return _delivered(node, y, y_zero.dtype)

    return run
