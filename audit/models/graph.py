"""From a torch module to the node graph that our ONNX importer reads, checked for equality.

Bound propagation, and the logits behind a final softmax, need to see a model's operators. A script
or an exported program shows them after `torch.onnx.export`; the copy counts only if it computes
the same.
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
"""Largest difference between module and graph, relative to the largest score."""

ROUNDINGS = 16
"""The same where the scores have fewer digits than float32, in units of their last digit."""


def as_graph(
    module: torch.jit.ScriptModule | torch.export.ExportedProgram, example: Tensor
) -> OnnxModule:
    """Translate a module of one input into an importer graph with the same values.

    Args:
        module: a script module, or an exported program.
        example: (B, ...) inputs on which the two are compared.

    Raises:
        ModelError: the exporter or the importer cannot translate it, or the values differ.
    """
    run = module.module() if isinstance(module, torch.export.ExportedProgram) else module
    try:
        # The exporter of scripts is announced to go; it is the only one that reads them.
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
    except Exception as error:  # the exporters raise whatever their passes raise
        raise ModelError(f"The model's graph cannot be read: {first_line(error)}.") from error
    lifted = lifted.to(example.device).eval()
    with torch.no_grad():
        ours, theirs = lifted(example), run(example)
        same = compute_the_same(ours, theirs)
    if not same:
        raise ModelError("The model's graph does not compute what the model computes.")
    return lifted


def compute_the_same(ours: Tensor, theirs: Tensor) -> bool:
    """Tell whether two outputs for the same inputs differ by no more than rounding does."""
    narrow = theirs.is_floating_point() and theirs.element_size() < torch.float32.itemsize
    allowed = ROUNDINGS * torch.finfo(theirs.dtype).eps if narrow else GRAPH_TOLERANCE
    scale = max(1.0, float(theirs.abs().max()))
    if not theirs.is_floating_point():
        ours, theirs = ours.double(), theirs.double()
    # Written so that a value that is not a number does not pass.
    return ours.shape == theirs.shape and float((ours - theirs).abs().max()) <= allowed * scale
