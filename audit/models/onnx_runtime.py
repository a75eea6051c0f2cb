"""ONNX files served by onnxruntime."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from audit.errors import AuditError, ModelError
from audit.models import execution
from audit.models.execution import Function, first_line
from audit.models.preprocess import as_dtype


@dataclass(frozen=True)
class Served:
    """Model served by onnxruntime.

    Attributes:
        shape: input shape, batch first, ``None`` for dynamic sizes.
        dtype: dtype of the input.
        run: maps inputs with any number of rows to scores, float32 on the CPU.
        provider: the execution provider that onnxruntime has selected.
    """

    shape: tuple[int | None, ...]
    dtype: torch.dtype
    run: Function
    provider: str


DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(double)": torch.float64,
    "tensor(float16)": torch.float16,
    "tensor(uint8)": torch.uint8,
    "tensor(int8)": torch.int8,
    "tensor(int32)": torch.int32,
    "tensor(int64)": torch.int64,
}


def serve(
    model: onnx.ModelProto, output: str, *, cuda: bool, rows: int, path: Path, fused: bool = True
) -> Served:
    """Create the onnxruntime session of a loaded model.

    The runtime receives the bytes that `onnx` has loaded and checked, so external data can only
    come from locations that `onnx` allows.

    Args:
        model: as returned by `audit.models.onnx.read_model`.
        output: name of the output that holds the scores.
        cuda: whether to request the CUDA provider.
        rows: number of rows of every call if the batch size is dynamic.
        path: path of the file, for messages.
        fused: True as served; if False, every operator runs separately, and operators between
            DequantizeLinear and QuantizeLinear compute in floats.

    Raises:
        ModelError: onnxruntime is not installed, or cannot run the model.
    """
    runtime = _import_runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    if not fused:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = torch.get_num_threads()
    providers = (["CUDAExecutionProvider"] if cuda else []) + ["CPUExecutionProvider"]
    try:
        session = runtime.InferenceSession(model.SerializeToString(), options, providers=providers)
    except Exception as error:  # onnxruntime raises bare subclasses of Exception
        raise ModelError(
            f"onnxruntime cannot load {path}: {first_line(error)}. "
            "Export the model again, or update onnxruntime."
        ) from error
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(entry.name for entry in inputs)
        raise ModelError(
            f"{path} takes {len(inputs)} inputs ({names}), but a classifier with one input is "
            "expected: make the other inputs constants when exporting."
        )
    (entry,) = inputs
    if entry.type not in DTYPES:
        raise ModelError(
            f"{path} takes an input of type {entry.type}, but a numeric tensor is expected: "
            "export the classifier with the tensor as its input."
        )
    dtype = DTYPES[entry.type]
    shape = tuple(size if isinstance(size, int) else None for size in entry.shape)

    def call(x: Tensor) -> Tensor:
        array = _cast(x, dtype)
        try:
            (scores,) = session.run([output], {entry.name: array})
        except Exception as error:
            raise ModelError(
                f"onnxruntime fails on an input of shape {tuple(array.shape)}: "
                f"{first_line(error)}. Check --layout, and that the samples have the size the "
                "model expects."
            ) from error
        return torch.from_numpy(_as_numbers(scores, output))

    def run(x: Tensor) -> Tensor:
        return execution.in_calls_of((shape[0] if shape else None) or rows, call)(x)

    return Served(shape, dtype, run, session.get_providers()[0])


def batched(fixed: int | None, run: Function, example: Tensor) -> Function:
    """Find the fastest way to evaluate a lifted module on several samples.

    A graph exported for batch size 1 often works for any, unless its constants (a Reshape to
    ``(1, 256)``, say) prevent it: then it is mapped over the rows, or called row by row.

    Args:
        fixed: the batch size that the graph declares, ``None`` if dynamic.
        run: the lifted function.
        example: (2 or more, ...) prepared inputs.

    Returns:
        A function of batches of any size whose rows equal those of single calls.

    Raises:
        UnsupportedOperator: an operator does not support a value.
        ModelError: the graph does not accept inputs of this shape.
    """
    with torch.no_grad():
        try:
            single = execution.in_calls_of(fixed or 1, run)(example)
        except (RuntimeError, IndexError, ValueError) as error:
            raise ModelError(
                f"The model fails on an input of shape {tuple(example.shape[1:])}: "
                f"{first_line(error)}. Check --layout, and that the samples have the size the "
                "model expects."
            ) from error
        for candidate in (run, execution.mapped(run)) if fixed in (None, 1) else ():
            try:
                together = candidate(example)
            except (AuditError, RuntimeError, IndexError, ValueError):
                continue  # try the next way; calls of the declared batch size always work
            if together.shape == single.shape and _close(together, single):
                return candidate
    return execution.in_calls_of(fixed or 1, run)


def _as_numbers(scores: Any, output: str) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """Convert scores to float32; ZipMap's dictionaries, one per row, become columns.

    Raises:
        ModelError: the output does not contain numbers, but named labels for example.
    """
    if isinstance(scores, list) and scores and isinstance(scores[0], dict):
        scores = [list(row.values()) for row in scores]
    try:
        return np.asarray(scores, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"The output '{output}' does not contain numbers, but scores or class indices are "
            "expected: export the model with its scores as output."
        ) from error


def _close(a: Tensor, b: Tensor) -> bool:
    scale = float(b.abs().max()) if b.numel() else 0.0
    return math.isfinite(scale) and bool((a - b).abs().max() <= 1e-4 * max(scale, 1.0))


def _cast(x: Tensor, dtype: torch.dtype) -> "np.ndarray[Any, Any]":
    return np.ascontiguousarray(as_dtype(x, dtype).numpy())


def _import_runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            "onnxruntime is not installed, but it is required to run ONNX models: "
            "pip install 'wasserstein-audit[cpu]' (or [gpu] with an NVIDIA GPU; never both)."
        ) from error
    return onnxruntime
