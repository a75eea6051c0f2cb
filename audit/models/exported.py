"""Reader of `torch.export` archives (``.pt2``)."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from audit.errors import ModelError
from audit.models.execution import first_line


@dataclass(frozen=True)
class Program:
    """Exported program with one input.

    Attributes:
        program: the program that torch loads.
        module: its forward pass.
        shape: shape of the input, batch first, ``None`` where dynamic.
        dtype: dtype of the input.
        most: largest batch size of the export, ``None`` without a limit.
    """

    program: torch.export.ExportedProgram
    module: torch.nn.Module
    shape: tuple[int | None, ...]
    dtype: torch.dtype
    most: int | None


def read_program(path: Path, *, trusted: bool) -> Program:
    """Load an exported program.

    Loading unpickles parts of the archive, which can run code, so nothing is opened unless the
    user trusts the file.

    Raises:
        ModelError: the file is not trusted, damaged, or not a program with one tensor input.
    """
    if not trusted:
        raise ModelError(
            f"{path} is a torch.export archive, which can run arbitrary code when it is opened: "
            "pass --trust-model if you trust its source, or export the model to ONNX."
        )
    try:
        with quiet("torch.export", "torch._export"), path.open("rb") as file:
            program = torch.export.load(file)
            module = program.module()
    except Exception as error:  # the reader raises many types of errors
        raise ModelError(
            f"torch cannot load {path} as an exported program: {first_line(error)}. "
            "Save it again with this version of torch, or export the model to ONNX."
        ) from error
    value = _tensor_input(program, path)
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    for parameter in program.parameters():
        parameter.requires_grad_(False)
    return Program(program, module, shape, value.dtype, _most(program, value))


def _tensor_input(program: torch.export.ExportedProgram, path: Path) -> torch.Tensor:
    names = program.graph_signature.user_inputs
    values = [node.meta.get("val") for node in program.graph.nodes if node.name in names]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    if len(names) != 1 or len(tensors) != 1 or not tensors[0].dim():
        raise ModelError(
            f"{path} takes {len(names)} inputs, {len(tensors)} of them tensors, but a classifier "
            "that takes one tensor is expected: export a module whose forward takes one batch."
        )
    return tensors[0]


def _most(program: torch.export.ExportedProgram, value: torch.Tensor) -> int | None:
    """Return the largest declared batch size; torch stores "no limit" as a huge number."""
    for symbol, allowed in program.range_constraints.items():
        if str(symbol) == str(value.shape[0]) and allowed.upper < 2**31:
            return int(allowed.upper)
    return None


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Keep the logs and warnings of torch's readers and exporters off the terminal."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
