"""A lifted graph as a list of steps, and the loop that runs them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from audit.errors import AuditError, UnsupportedOperator, out_of_memory
from audit.models.onnx.node import Kernel, Node

Values = dict[str, Tensor | None]


@dataclass(frozen=True)
class Step:
    """Operation on named values.

    Attributes:
        shape_only: True if the outputs depend on the input's shape, not on its values.
        frees: names that no later step reads.
    """

    node: Node
    kernel: Kernel
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shape_only: bool
    frees: tuple[str, ...] = ()


def with_frees(steps: Sequence[Step], kept: set[str]) -> list[Step]:
    """Return the steps with `frees` set: each frees the values that no later step reads.

    Args:
        steps: in order of execution.
        kept: names that are needed after the run: targets, parameters, constants.
    """
    seen = set(kept)
    freed = []
    for step in reversed(steps):
        mine = {name for name in (*step.inputs, *step.outputs) if name}
        freed.append(replace(step, frees=tuple(mine - seen)))
        seen |= mine
    return freed[::-1]


def execute(steps: Sequence[Step], values: Values) -> None:
    """Run the steps in order; add their results to `values` and delete freed ones.

    Raises:
        UnsupportedOperator: torch cannot compute a node.
    """
    for step in steps:
        inputs = [values[name] if name else None for name in step.inputs]
        result = computed(step, inputs)
        del inputs
        if len(result) < len(step.outputs):
            raise step.node.refuse(
                f"the node has {len(step.outputs)} outputs, but only {len(result)} are supported"
            )
        values.update(zip(step.outputs, result, strict=False))
        for name in step.frees:
            del values[name]


def computed(step: Step, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Run the kernel of a step.

    Raises:
        UnsupportedOperator: torch cannot compute the node; the message names it.
    """
    try:
        result = step.kernel(*inputs)
    except AuditError:
        raise
    except Exception as error:  # torch raises many types; the message names the node
        if out_of_memory(error):
            raise
        raise failure(step.node, inputs, error) from error
    return result if isinstance(result, tuple) else (result,)


def failure(node: Node, inputs: Sequence[object], error: Exception) -> UnsupportedOperator:
    """Return the error of a kernel, with the node's name and its input types and shapes."""
    given = ", ".join(
        f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        if isinstance(value, Tensor)
        else "-"
        for value in inputs
    )
    text = str(error).strip().splitlines()
    reason = text[0] if text else type(error).__name__
    return node.refuse(f"cannot be computed on ({given}): {reason}")
