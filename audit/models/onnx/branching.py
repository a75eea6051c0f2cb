"""`If` at run time: lifted branches, and the choice between two of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from audit.models.onnx.node import Kernel
from audit.models.onnx.program import Step, Values, execute


@dataclass(frozen=True)
class Branch:
    """One branch of an `If`: its steps, the names of its results, and what they depend on."""

    steps: list[Step]
    outputs: list[str]
    depends: int


def choose_branch(branches: Sequence[Branch], outside: Sequence[str]) -> Kernel:
    """Return a kernel that runs the first branch if the condition holds, else the second."""

    def run(condition: Tensor, *given: Tensor) -> tuple[Tensor | None, ...]:
        branch = branches[0 if bool(condition) else 1]
        values: Values = dict(zip(outside, given, strict=True))
        execute(branch.steps, values)
        return tuple(values[name] for name in branch.outputs)

    return run
