"""Changes of element type."""

import torch
from torch import Tensor

from audit.models.onnx.dtypes import FLOAT8, TORCH
from audit.models.onnx.gradients import straight_through
from audit.models.onnx.node import Kernel, Node, operator, operators_without_attributes


def converted(x: Tensor, dtype: torch.dtype, saturate: bool) -> Tensor:
    """`x` as another type; an 8-bit float's overflow ends at its largest value if `saturate`."""
    if saturate and dtype in FLOAT8:
        largest = torch.finfo(dtype).max
        x = x.clamp(-largest, largest)
    elif dtype is torch.float8_e4m3fn:  # no infinity: what would round beyond 448 is no number
        x = torch.where(x.abs() > 464, torch.nan, x)
    return x.to(dtype)


@operator("Cast", ignores=("round_mode",))
def cast(node: Node) -> Kernel:
    """To the type `to`; a float becoming an integer on its way back to a float is a rounding."""
    dtype = TORCH.get(node.get("to"))
    if dtype is None:
        raise node.refuse(f"element type {node.get('to')}")
    integer = not dtype.is_floating_point and dtype is not torch.bool
    saturate = bool(node.get("saturate", 1))

    def run(x: Tensor) -> Tensor:
        if integer and node.relaxed and x.is_floating_point():
            return straight_through(x, x.to(dtype).to(x.dtype))
        return converted(x, dtype, saturate)

    return run


@operator("CastLike", ignores=("round_mode",))
def cast_like(node: Node) -> Kernel:
    """To the type of the second input."""
    saturate = bool(node.get("saturate", 1))
    return lambda x, like: converted(x, like.dtype, saturate)


@operator("BitCast")
def bit_cast(node: Node) -> Kernel:
    """The same bits read as another type of the same width."""
    dtype = TORCH.get(node.get("to"))
    if dtype is None:
        raise node.refuse(f"element type {node.get('to')}")

    def run(x: Tensor) -> Tensor:
        if x.element_size() != torch.empty((), dtype=dtype).element_size():
            raise node.refuse("widths differ")
        return x.contiguous().view(dtype)

    return run


operators_without_attributes({"Identity": lambda x: x})


@operator("Dropout", ignores=("ratio", "seed", "is_test"))
def dropout(node: Node) -> Kernel:
    """Dropout at inference: the input, and a mask that keeps everything."""
    mode = node.constants.get(2)
    if node.has(2) and (mode is None or bool(mode)):
        raise node.refuse("training mode")
    return lambda x, *_: (x, torch.ones_like(x, dtype=torch.bool))
