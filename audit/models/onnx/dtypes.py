"""Element types and stored tensors, converted from ONNX protobuf to torch."""

import numpy as np
import onnx
import torch
from onnx import TensorProto
from torch import Tensor

from audit.errors import ModelError

TORCH: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
    TensorProto.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    TensorProto.FLOAT8E5M2: torch.float8_e5m2,
    TensorProto.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.UINT16: torch.uint16,
    TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64,
    TensorProto.BOOL: torch.bool,
}

FLOAT8 = frozenset(kind for kind in TORCH.values() if "float8" in str(kind))

# Largest tensor that a graph may create: one gibibyte of float32.
MAX_ELEMENTS = 2**28


def bounded(shape: list[int] | tuple[int, ...]) -> list[int]:
    """Return the shape as a list if it is small enough to allocate.

    Raises:
        ModelError: a size is negative, or there are more than `MAX_ELEMENTS` elements.
    """
    elements = 1
    for size in shape:
        if size < 0:
            raise ModelError(
                f"The ONNX graph computes a tensor of negative size, {list(shape)}: export the "
                "model again."
            )
        elements *= size
    if elements > MAX_ELEMENTS:
        raise ModelError(
            f"The ONNX graph creates a tensor of shape {list(shape)}, but at most {MAX_ELEMENTS} "
            "elements are allowed: check that the file is the intended model."
        )
    return list(shape)


def to_tensor(proto: TensorProto) -> Tensor:
    """Decode a stored tensor to the CPU, with its own memory.

    Raises:
        ModelError: torch cannot compute with the type (strings, 4-bit), or the data is broken.
    """
    dtype = TORCH.get(proto.data_type)
    if dtype is None:
        known = proto.data_type in TensorProto.DataType.values()
        kind = TensorProto.DataType.Name(proto.data_type) if known else str(proto.data_type)
        raise ModelError(
            f"Tensor '{proto.name}' has element type {kind}, which is not supported: export the "
            "model with float or integer tensors."
        )
    bounded(tuple(proto.dims))
    try:
        array = onnx.numpy_helper.to_array(proto)
    except (ValueError, TypeError, OverflowError) as error:
        raise ModelError(
            f"Tensor '{proto.name}' cannot be decoded ({error}): copy the file or export the "
            "model again."
        ) from error
    if dtype is torch.bfloat16:  # numpy lacks these types: copy the bits
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    if dtype in FLOAT8:
        return torch.from_numpy(array.view(np.uint8).copy()).view(dtype)
    return torch.from_numpy(np.array(array))


def is_float(elem_type: int) -> bool:
    """Return whether gradients can flow through an ONNX element type."""
    dtype = TORCH.get(elem_type)
    return dtype is not None and dtype.is_floating_point
