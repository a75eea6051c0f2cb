"""Declarations of an ONNX file: the outputs that may hold scores, and the labels it lists."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx

from audit.models.execution import Function
from audit.models.onnx.heads import score_outputs

LISTS = ("classlabels_int64s", "classlabels_ints", "classlabels_strings")
"""Attributes in which scikit-learn classifiers and ZipMap list their labels."""


@dataclass(frozen=True)
class Declared:
    """Declared outputs and labels of a file.

    Attributes:
        taken: the output that is served as the scores; empty if the file has one output only.
        others: functions that create the runtimes of the other outputs that may hold scores.
        labels: the label of each score as text; empty if the file lists none.
    """

    taken: str = ""
    others: Mapping[str, Callable[[], Function]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()

    @property
    def integers(self) -> tuple[int, ...] | None:
        """The labels as integers, or None if they are names."""
        try:
            return tuple(int(label) for label in self.labels)
        except ValueError:
            return None


def declared_by(graph: onnx.GraphProto, serve: Callable[[str], Function]) -> Declared:
    """Read the declarations of a graph; ``serve`` creates the runtime of an output by name."""
    taken, *rest = [value.name for value in score_outputs(graph)] or [""]
    others = {name: lambda name=name: serve(name) for name in rest}
    listed = [
        tuple(map(str, item.ints)) or tuple(text.decode() for text in item.strings)
        for node in graph.node
        for item in node.attribute
        if item.name in LISTS
    ]
    # ZipMap comes last and names the served columns.
    labels = next((labels for labels in reversed(listed) if labels), ())
    return Declared(taken if rest else "", others, labels)
