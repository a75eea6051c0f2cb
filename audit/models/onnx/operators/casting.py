"""Changes of element type."""

import torch
from torch import Tensor

from audit.models.onnx.dtypes import FLOAT8, TORCH
from audit.models.onnx.gradients import straight_through
from audit.models.onnx.node import Kernel, Node, operator, operators_without_attributes


def converted(x: Tensor, dtype: torch.dtype, saturate: bool) -> Tensor:
    """Convert `x` to a type; if `saturate`, 8-bit floats are clipped to their largest value."""
    if saturate and dtype in FLOAT8:
        largest = torch.finfo(dtype).max
        x = x.clamp(-largest, largest)
    elif dtype is torch.float8_e4m3fn:  # no infinity: values that round beyond 448 become NaN
        x = torch.where(x.abs() > 464, torch.nan, x)
    return x.to(dtype)


@operator("Cast", ignores=("round_mode",))
def cast(node: Node) -> Kernel:
    """Convert to the type `to`.

    If every reader converts the integers back to floats, the cast counts as a rounding.
    """
    dtype = TORCH.get(node.get("to"))
    if dtype is None:
        raise node.refuse(f"element type {node.get('to')} is not supported")
    integer = not dtype.is_floating_point and dtype is not torch.bool
    saturate = bool(node.get("saturate", 1))

    def run(x: Tensor) -> Tensor:
        if integer and node.relaxed and x.is_floating_point():
            return straight_through(x, x.to(dtype).to(x.dtype))
        return converted(x, dtype, saturate)

    return run


@operator("CastLike", ignores=("round_mode",))
def cast_like(node: Node) -> Kernel:
    """Convert to the type of the second input."""
    saturate = bool(node.get("saturate", 1))
    return lambda x, like: converted(x, like.dtype, saturate)


@operator("BitCast")
def bit_cast(node: Node) -> Kernel:
    """Reinterpret the bits as another type of the same width."""
    dtype = TORCH.get(node.get("to"))
    if dtype is None:
        raise node.refuse(f"element type {node.get('to')} is not supported")

    def run(x: Tensor) -> Tensor:
        if x.element_size() != torch.empty((), dtype=dtype).element_size():
            raise node.refuse(f"a bit cast from {x.dtype} to {dtype} changes the number of bits")
        return x.contiguous().view(dtype)

    return run


operators_without_attributes({"Identity": lambda x: x})


@operator("Dropout", ignores=("ratio", "seed", "is_test"))
def dropout(node: Node) -> Kernel:
    """Return the input and a mask that keeps everything, as Dropout does at inference."""
    mode = node.constants.get(2)
    if node.has(2) and (mode is None or bool(mode)):
        raise node.refuse("training mode is not supported")
    return lambda x, *_: (x, torch.ones_like(x, dtype=torch.bool))
