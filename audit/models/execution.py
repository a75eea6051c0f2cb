"""Execution of a model on batches of any size, with results that do not depend on the batch.

CPU kernels choose their blocking by the batch size, which changes the last bits of the scores. So
on the CPU every model call has the same number of rows: longer batches are split, shorter ones are
padded by repeating their last row. Within calls of one shape a row's result does not depend on its
position or its neighbours (checked for every model by the batch-invariance health check).

MKL's matrix products depend on a row's position even so, unless MKL_CBWR is set: measured with
torch 2.13, a product of (32, 576) and (576, 10) differs in its last bits between equal rows.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from audit.errors import ModelError, out_of_memory

# MKL reads this at the first product; it has no measurable cost.
os.environ.setdefault("MKL_CBWR", "AUTO")

Function = Callable[[Tensor], Tensor]
Reason = Callable[[BaseException], str]


def call_rows(sample: tuple[int, ...]) -> int:
    """Return the rows per model call on the CPU; they depend only on the sample's size."""
    return 32 if math.prod(sample) <= 65536 else 8


def in_calls_of(rows: int, run: Function) -> Function:
    """Evaluate ``run`` in calls of exactly ``rows`` rows, padding the last one."""

    def padded(x: Tensor) -> Tensor:
        parts = []
        for part in x.split(rows):
            missing = rows - len(part)
            if missing:
                filled = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])])
                parts.append(run(filled)[: len(part)])
            else:
                parts.append(run(part))
        return torch.cat(parts)

    return padded


def first_line(error: BaseException) -> str:
    """Return the first line of an error of a runtime: the rest is a dump."""
    return (_message_lines(error) or [type(error).__name__])[0].rstrip(".")[:300]


def last_line(error: BaseException) -> str:
    """Return the last line of a TorchScript error: the lines before it are the stack."""
    return (_message_lines(error) or [type(error).__name__])[-1].rstrip(".")[:200]


def _message_lines(error: BaseException) -> list[str]:
    return [line.strip() for line in str(error).splitlines() if line.strip()]


def one_tensor(module: Callable[[Tensor], object], reason: Reason = first_line) -> Function:
    """Evaluate a torch module that maps a batch to one tensor of scores.

    The module is given a copy of the batch, as it may write to its input.

    Args:
        module: receives inputs ``(B, ...)``.
        reason: returns a one-line description of an error of the module.

    Returns:
        A function that raises `ModelError` if the module fails or returns anything other than
        one tensor of B rows.
    """

    def run(x: Tensor) -> Tensor:
        try:
            scores = module(x.clone())
        except Exception as error:  # the model's own code may raise anything
            if out_of_memory(error):
                raise
            raise ModelError(
                f"The model fails on inputs of shape {tuple(x.shape)} and type "
                f"{str(x.dtype).removeprefix('torch.')}: {reason(error)}. Check the layout "
                "(--layout), and that the samples have the channels and size the model expects."
            ) from error
        if not isinstance(scores, Tensor):
            raise ModelError(
                f"The model returns a {type(scores).__name__}, but one tensor of scores is "
                "expected: export or wrap it so that it returns only the logits."
            )
        require_rows(tuple(scores.shape), len(x))
        return scores

    return run


def require_rows(shape: tuple[int, ...], rows: int) -> None:
    """Check that a model returns one row of scores, or one label, per sample.

    Raises:
        ModelError: it returns another shape.
    """
    if shape[:1] != (rows,):
        raise ModelError(
            f"The model returns an output of shape {shape} for {rows} samples, but one row of "
            "scores per sample is expected: let the first axis of the output be the batch."
        )


def mapped(run: Function) -> Function:
    """Evaluate a single-sample model on a batch through `torch.func.vmap`."""

    def single(row: Tensor) -> Tensor:
        return run(row[None])[0]

    return lambda x: torch.func.vmap(single)(x)


@dataclass
class Counter:
    """Number of single-sample passes; the only mutable state of a model."""

    forwards: int = 0
    gradients: int = 0

    def since(self, earlier: "Counter") -> "Counter":
        """Return the passes since an earlier `copy`."""
        return Counter(self.forwards - earlier.forwards, self.gradients - earlier.gradients)

    def copy(self) -> "Counter":
        """Return a snapshot."""
        return Counter(self.forwards, self.gradients)


@dataclass(frozen=True)
class Counted:
    """Function of a batch that counts the samples it is evaluated on."""

    run: Function
    counter: Counter = field(default_factory=Counter)

    def __call__(self, x: Tensor) -> Tensor:
        """Count the rows of ``x`` and evaluate."""
        self.counter.forwards += len(x)
        # An input that requires a gradient is about to be differentiated once.
        if x.requires_grad:
            self.counter.gradients += len(x)
        return self.run(x)
