"""Operators that are affine in the input and therefore need no relaxation."""

import torch
from torch import Tensor

from audit.models.onnx.dtypes import FLOAT8, TORCH
from audit.models.onnx.program import Step

NONNEGATIVE = frozenset(
    {
        "Flatten",
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Split",
        "Pad",
        "Concat",
        "Gather",
        "Expand",
        "Dropout",
        "Cast",
        "CastLike",
        "DepthToSpace",
        "SpaceToDepth",
        "AveragePool",
        "GlobalAveragePool",
        "ReduceMean",
        "ReduceSum",
        "Sum",
        "Add",
        "Identity",
    }
)
"""Affine operators without negative coefficients: the operator itself maps the half-widths of an
interval to the half-widths of its image."""

FACTORS = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "MatMul": 2, "Mul": 2, "Div": 2, "Sub": 2}
"""Operators that are affine in one operand if the other is constant, with their number of factors;
later operands are biases."""

CASTS = frozenset({"Cast", "CastLike"})

RESHAPING = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


def require_affine(step: Step, inputs: list[Tensor | None], varying: list[int]) -> None:
    """Refuse a step that is not affine in the network's input.

    Args:
        step: step of the graph.
        inputs: its inputs for one sample.
        varying: positions of the inputs that depend on the network's input.

    Raises:
        UnsupportedOperator: the operation is not known to be affine.
    """
    name = step.node.operator
    if name in CASTS:
        _require_float(step, inputs)
        return
    if step.node.domain == "" and (name in NONNEGATIVE or name == "Neg"):
        return
    if name in FACTORS and (name == "Sub" or len(varying) == 1):
        if name == "Div" and varying != [0]:
            raise step.node.refuse("dividing by a function of the input has no linear bound here")
        return
    if name == "BatchNormalization" and varying == [0]:
        return
    raise step.node.refuse("no linear bound of this operation is known")


def _require_float(step: Step, inputs: list[Tensor | None]) -> None:
    """Refuse a cast whose rounding is not negligible: to integers, booleans and 8-bit floats."""
    like = inputs[1] if len(inputs) > 1 else None
    dtype = TORCH[step.node.attributes["to"]] if like is None else like.dtype
    if not dtype.is_floating_point or dtype in FLOAT8:
        kind = str(dtype).removeprefix("torch.")
        raise step.node.refuse(f"a cast to {kind} of a function of the input has no linear bound")


def as_float(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert a float tensor to ``dtype``; integers are shapes or indices and remain unchanged."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == dtype:
        return value
    return value.to(dtype)
