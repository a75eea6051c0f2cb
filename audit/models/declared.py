"""What an ONNX file declares about its outputs: which may hold scores, and the labels it lists."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx

from audit.models.execution import Function
from audit.models.onnx.heads import score_outputs

LISTS = ("classlabels_int64s", "classlabels_ints", "classlabels_strings")
"""Attributes in which classifiers of scikit-learn's kind, and ZipMap, list their labels."""


@dataclass(frozen=True)
class Declared:
    """Outputs and labels of a file.

    Attributes:
        taken: the output that is served as the scores; empty where the file has one output only.
        others: the other outputs that may hold scores; creates the runtime that serves it.
        labels: the file's own label of each score, as text; empty where it lists none.
    """

    taken: str = ""
    others: Mapping[str, Callable[[], Function]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()

    @property
    def integers(self) -> tuple[int, ...] | None:
        """The labels as integers, or None where they are names."""
        try:
            return tuple(int(label) for label in self.labels)
        except ValueError:
            return None


def declared_by(graph: onnx.GraphProto, serve: Callable[[str], Function]) -> Declared:
    """Read what the graph declares; ``serve`` makes the runtime of an output by its name."""
    taken, *rest = [value.name for value in score_outputs(graph)] or [""]
    others = {name: lambda name=name: serve(name) for name in rest}
    listed = [
        tuple(map(str, item.ints)) or tuple(text.decode() for text in item.strings)
        for node in graph.node
        for item in node.attribute
        if item.name in LISTS
    ]
    # ZipMap stands last, and names the columns that are served.
    labels = next((labels for labels in reversed(listed) if labels), ())
    return Declared(taken if rest else "", others, labels)
