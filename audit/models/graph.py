"""Translation of torch modules to the node graph of the ONNX importer, checked for equality.

Bound propagation, and access to the logits before a final softmax, require the operators of a
model. `torch.onnx.export` lists those of a script or an exported program; the copy is used only
if it computes the same values.
"""

import tempfile
from pathlib import Path

import onnx
import torch
from torch import Tensor

from audit.errors import AuditError, ModelError
from audit.models.execution import first_line
from audit.models.exported import quiet
from audit.models.onnx import OnnxModule, lift

GRAPH_TOLERANCE = 1e-4
"""Largest accepted difference between module and graph, relative to the largest score."""

ROUNDINGS = 16
"""Largest accepted difference for types narrower than float32, in units of the last digit."""


def as_graph(
    module: torch.jit.ScriptModule | torch.export.ExportedProgram, example: Tensor
) -> OnnxModule:
    """Translate a module with one input to an importer graph with the same values.

    Args:
        module: a script module, or an exported program.
        example: (B, ...) inputs on which module and graph are compared.

    Raises:
        ModelError: the exporter or the importer cannot translate it, or the values differ.
    """
    run = module.module() if isinstance(module, torch.export.ExportedProgram) else module
    try:
        # The script exporter is deprecated, but it is the only one that reads scripts.
        with quiet("torch.onnx"), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "graph.onnx"
            if isinstance(module, torch.jit.ScriptModule):
                torch.onnx.export(
                    module,
                    (example,),
                    file,
                    dynamo=False,
                    input_names=["input"],
                    output_names=["output"],
                    dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
                    opset_version=17,
                )
            else:
                torch.onnx.export(module, (), file, dynamo=True, verbose=False)
            lifted = lift(onnx.load(file))
    except AuditError:
        raise
    except Exception as error:  # the exporters raise many types of errors
        raise ModelError(f"The model's graph cannot be read: {first_line(error)}.") from error
    lifted = lifted.to(example.device).eval()
    with torch.no_grad():
        ours, theirs = lifted(example), run(example)
        same = compute_the_same(ours, theirs)
    if not same:
        raise ModelError("The model's graph does not compute what the model computes.")
    return lifted


def compute_the_same(ours: Tensor, theirs: Tensor) -> bool:
    """Return whether two outputs for the same inputs differ only by rounding."""
    narrow = theirs.is_floating_point() and theirs.element_size() < torch.float32.itemsize
    allowed = ROUNDINGS * torch.finfo(theirs.dtype).eps if narrow else GRAPH_TOLERANCE
    scale = max(1.0, float(theirs.abs().max()))
    if not theirs.is_floating_point():
        ours, theirs = ours.double(), theirs.double()
    # NaN fails these comparisons, as it must.
    return ours.shape == theirs.shape and float((ours - theirs).abs().max()) <= allowed * scale
