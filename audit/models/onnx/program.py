"""A lifted graph as a list of steps, and the loop that runs them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from audit.errors import AuditError, UnsupportedOperator, out_of_memory
from audit.models.onnx.node import Kernel, Node

Values = dict[str, Tensor | None]


@dataclass(frozen=True)
class Step:
    """One operation on named values.

    Attributes:
        shape_only: the outputs depend on the input's shape, not on its values.
        frees: names nobody reads after this step.
    """

    node: Node
    kernel: Kernel
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shape_only: bool
    frees: tuple[str, ...] = ()


def with_frees(steps: Sequence[Step], kept: set[str]) -> list[Step]:
    """The same steps, each freeing what it is the last to read.

    Args:
        steps: in order of execution.
        kept: names that outlive the run: targets, parameters, constants.
    """
    seen = set(kept)
    freed = []
    for step in reversed(steps):
        mine = {name for name in (*step.inputs, *step.outputs) if name}
        freed.append(replace(step, frees=tuple(mine - seen)))
        seen |= mine
    return freed[::-1]


def execute(steps: Sequence[Step], values: Values) -> None:
    """Run the steps in order; `values` gains the results and loses what is dead.

    Raises:
        UnsupportedOperator: torch cannot do what a node asks for.
    """
    for step in steps:
        inputs = [values[name] if name else None for name in step.inputs]
        result = computed(step, inputs)
        del inputs
        if len(result) < len(step.outputs):
            raise step.node.refuse(f"{len(step.outputs)} outputs")
        values.update(zip(step.outputs, result, strict=False))
        for name in step.frees:
            del values[name]


def computed(step: Step, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """What the kernel of a step gives.

    Raises:
        UnsupportedOperator: torch cannot do what the node asks for, with the node's name.
    """
    try:
        result = step.kernel(*inputs)
    except AuditError:
        raise
    except Exception as error:  # whatever torch objects to, the node is the one to name
        if out_of_memory(error):
            raise
        raise failure(step.node, inputs, error) from error
    return result if isinstance(result, tuple) else (result,)


def failure(node: Node, inputs: Sequence[object], error: Exception) -> UnsupportedOperator:
    """What a kernel objects to, with the node's name and the tensors it was given."""
    given = ", ".join(
        f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        if isinstance(value, Tensor)
        else "-"
        for value in inputs
    )
    text = str(error).strip().splitlines()
    reason = text[0] if text else type(error).__name__
    return node.refuse(f"cannot be computed on ({given}): {reason}")
