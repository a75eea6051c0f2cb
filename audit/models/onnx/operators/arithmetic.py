"""Elementwise arithmetic, comparison and logic, with broadcasting as in numpy."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from audit.models.onnx.gradients import straight_through
from audit.models.onnx.node import Kernel, Node, operator, operators_without_attributes

WIDE_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


def _unsigned(function: Callable[..., Tensor]) -> Kernel:
    """Extend a function to wide unsigned integers, for which torch lacks most operations."""

    def run(*tensors: Tensor) -> Tensor:
        kind = tensors[0].dtype
        if kind not in WIDE_UNSIGNED:
            return function(*tensors)
        whole = [tensor.to(torch.int64) for tensor in tensors]
        if kind is torch.uint64 and any(bool((value < 0).any()) for value in whole):
            raise ValueError("unsigned integers of 2^63 or more are not supported")
        y = function(*whole)
        return y if y.dtype is torch.bool else y.to(kind)  # unsigned integers wrap around

    return run


operators_without_attributes(
    {
        "Abs": torch.abs, "Neg": torch.neg, "Sign": torch.sign, "Sqrt": torch.sqrt,
        "Exp": torch.exp, "Log": torch.log, "Erf": torch.erf, "Reciprocal": torch.reciprocal,
        "Sin": torch.sin, "Cos": torch.cos, "Tan": torch.tan,
        "Asin": torch.asin, "Acos": torch.acos, "Atan": torch.atan,
        "Sinh": torch.sinh, "Cosh": torch.cosh, "Tanh": torch.tanh,
        "Asinh": torch.asinh, "Acosh": torch.acosh, "Atanh": torch.atanh,
        "Add": _unsigned(torch.add), "Sub": _unsigned(torch.sub), "Mul": torch.mul,
        "And": torch.logical_and, "Or": torch.logical_or, "Xor": torch.logical_xor,
        "Not": torch.logical_not, "IsNaN": torch.isnan,
        "Equal": torch.eq, "Less": _unsigned(torch.lt), "LessOrEqual": _unsigned(torch.le),
        "Greater": _unsigned(torch.gt), "GreaterOrEqual": _unsigned(torch.ge),
        "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or,
        "BitwiseXor": torch.bitwise_xor, "BitwiseNot": torch.bitwise_not,
    }
)  # fmt: skip


def _rounding(function: Callable[[Tensor], Tensor]) -> Kernel:
    """Round to integers with the exact value and the gradient of the identity."""
    return lambda x: straight_through(x, function(x))


operators_without_attributes(
    {
        "Round": _rounding(torch.round),  # ONNX and torch both round halves to even
        "Floor": _rounding(torch.floor),
        "Ceil": _rounding(torch.ceil),
    }
)


def _where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.where(condition, x, y)


def _divide(x: Tensor, y: Tensor) -> Tensor:
    """Divide x by y; integer division rounds towards zero."""
    if x.is_floating_point() or y.is_floating_point():
        return x / y
    return torch.div(x, y, rounding_mode="trunc")


def _power(x: Tensor, exponent: Tensor) -> Tensor:
    """Raise x to a power; the result has the type of the base."""
    return torch.pow(x, exponent).to(x.dtype)


def _fold(function: Callable[[Tensor, Tensor], Tensor]) -> Kernel:
    return lambda *tensors: functools.reduce(function, tensors)


def _mean(*tensors: Tensor) -> Tensor:
    total: Tensor = functools.reduce(torch.add, tensors)
    return total / len(tensors)


operators_without_attributes(
    {
        "Where": _where,
        "Div": _unsigned(_divide),
        "Max": _unsigned(_fold(torch.maximum)),
        "Min": _unsigned(_fold(torch.minimum)),
        "Sum": _fold(torch.add),
        "Mean": _mean,
    }
)


@operator("Pow")
def power(node: Node) -> Kernel:
    """Raise a base to an exponent; torch specialises a constant exponent given as a number."""
    exponent = node.constants.get(1)
    if exponent is None or exponent.numel() != 1 or exponent.dim() > 0:
        return _power
    number = exponent.item()
    return lambda x, _: torch.pow(x, number).to(x.dtype)


@operator("Mod")
def modulo(node: Node) -> Kernel:
    """Compute the remainder with the sign of the divisor, or of the dividend if `fmod` is set."""
    return torch.fmod if node.get("fmod", 0) else torch.remainder


@operator("BitShift")
def bit_shift(node: Node) -> Kernel:
    """Shift the bits of unsigned integers."""
    left = node.get("direction") == "LEFT"
    return torch.bitwise_left_shift if left else torch.bitwise_right_shift


@operator("IsInf")
def is_infinite(node: Node) -> Kernel:
    """Detect infinities of the chosen signs."""
    positive = bool(node.get("detect_positive", 1))
    negative = bool(node.get("detect_negative", 1))

    def run(x: Tensor) -> Tensor:
        none = torch.zeros_like(x, dtype=torch.bool)
        above = torch.isposinf(x) if positive else none
        return above | torch.isneginf(x) if negative else above

    return run


@operator("Clip", static=(1, 2))
def clip(node: Node) -> Kernel:
    """Clip to bounds given as attributes (opset < 11) or as optional inputs."""
    low, high = node.get("min"), node.get("max")
    known = all(not node.has(i) or i in node.constants for i in (1, 2))
    if not known:
        return functools.partial(_clip_by_tensors, node.leading)
    if node.has(1):
        low = node.constants[1].item()
    if node.has(2):
        high = node.constants[2].item()

    def run(x: Tensor, *_: Tensor | None) -> Tensor:
        if low is None and high is None:
            return x
        y = torch.clamp(x, low, high)
        return straight_through(x, y) if node.leading else y

    return run


def _clip_by_tensors(
    leading: bool, x: Tensor, low: Tensor | None = None, high: Tensor | None = None
) -> Tensor:
    y = x
    if low is not None:
        y = torch.maximum(y, low.to(x.device))
    if high is not None:
        y = torch.minimum(y, high.to(x.device))
    return straight_through(x, y) if leading else y
