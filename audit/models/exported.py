"""`torch.export` archives (``.pt2``): the exported program, as it is."""

from pathlib import Path

import torch

from audit.errors import ModelError
from audit.models.execution import Function


def read_program(
    path: Path, *, trusted: bool
) -> tuple[torch.export.ExportedProgram, tuple[int | None, ...], torch.dtype]:
    """Load an exported program.

    Loading one unpickles parts of the archive, which can run code, so nothing is opened before the
    user has said that the file is trusted.

    Returns:
        The program, its input shape (batch first, ``None`` where dynamic) and dtype.

    Raises:
        ModelError: not trusted, damaged, or not a program of one tensor input.
    """
    if not trusted:
        raise ModelError(
            f"{path} is a torch.export archive, which can run code of its own when it is opened: "
            "pass --trust-model if you trust where it comes from, or export it to ONNX."
        )
    try:
        program = torch.export.load(str(path))
    except Exception as error:  # the reader raises whatever its many parts raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"torch cannot load {path} as an exported program: {lines[0][:200]}. "
            "Save it again with this version of torch, or export it to ONNX."
        ) from error
    names = program.graph_signature.user_inputs
    values = [node.meta.get("val") for node in program.graph.nodes if node.name in names]
    if len(names) != 1 or len(values) != 1 or not isinstance(values[0], torch.Tensor):
        raise ModelError(
            f"{path} takes {len(names)} inputs, but a classifier of one tensor is expected: "
            "export a module whose forward takes one batch."
        )
    (value,) = values
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    for parameter in program.parameters():
        parameter.requires_grad_(False)
    return program, shape, value.dtype


def call(module: torch.nn.Module) -> Function:
    """Return the module as a function of a batch to a tensor of scores.

    Raises (when called):
        ModelError: the program refuses the input, or does not return one tensor.
    """

    def run(x: torch.Tensor) -> torch.Tensor:
        try:
            scores = module(x)
        except (RuntimeError, AssertionError, ValueError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(
                f"The program refuses inputs of shape {tuple(x.shape)}: {lines[0][:200]}. "
                "Check --layout, and that the data fits the sizes it was exported for."
            ) from error
        if not isinstance(scores, torch.Tensor):
            raise ModelError(
                f"The program returns a {type(scores).__name__}, but one tensor of scores is "
                "expected: export a module that returns the logits."
            )
        return scores

    return run
