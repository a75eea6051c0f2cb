"""Other common numberings of the data's labels, with advice in case one of them is right."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from audit.data import Dataset
from audit.data.wording import shortened
from audit.models.classifier import Classifier

SHOWN_LABELS = 6
"""Number of labels that a sentence lists before it skips to the last one."""


@dataclass(frozen=True)
class Relabelling:
    """Another numbering of the labels of the data.

    Attributes:
        kind: "labels", or "file labels" where the model's file lists them.
        name: the reading in words, for the beginning of a sentence.
        advice: what to do if it is the right one.
        index: the class index of each label of the data.
    """

    kind: str
    name: str
    advice: str
    index: Mapping[int, int]

    def of(self, labels: Tensor) -> Tensor:
        """Return the labels under this numbering, ``(N,)``."""
        return torch.tensor([self.index[int(label)] for label in labels])


def relabellings(classifier: Classifier, dataset: Dataset) -> list[Relabelling]:
    """Return other common numberings of the data's labels, each once."""
    used = [int(label) for label in np.unique(dataset.labels)]
    found: list[Relabelling] = []
    seen = [{label: label for label in used}]
    for other in (*_by_file(classifier, dataset, used), *_by_folders(dataset)):
        if set(used) <= set(other.index):
            index = {label: other.index[label] for label in used}
            if index not in seen:
                seen.append(index)
                found.append(replace(other, index=index))
    return found


def _by_file(classifier: Classifier, dataset: Dataset, used: list[int]) -> Iterator[Relabelling]:
    """Yield the numbering by the labels or class names that the file lists for its scores."""
    declared = classifier.declared.labels
    if not declared or classifier.output == "labels":
        return
    advice = (
        "Replace every label by its position in that list, counted from 0; for class folders and "
        "lists of files pass --class-map FILE, a text file with the file's labels in that order, "
        "one per line."
    )
    name = f"Read as the labels that the file lists ({shortened(declared, SHOWN_LABELS)})"
    integers, names = classifier.declared.integers, dataset.class_names
    if integers is not None:
        index = {label: place for place, label in enumerate(integers)}
        yield Relabelling("file labels", name, advice, index)
    elif names is not None and all(0 <= label < len(names) for label in used):
        places = {label: place for place, label in enumerate(declared)}
        if all(names[label] in places for label in used):
            index = {label: places[names[label]] for label in used}
            yield Relabelling("file labels", name, advice, index)


def _by_folders(dataset: Dataset) -> Iterator[Relabelling]:
    """Yield numberings of numbered class folders: in text order, in number order, from one."""
    if not dataset.folders:
        return
    advice = "If the model was trained in that order, pass --class-map FILE, {}."
    lines = "a text file with one folder name per line in that order"
    text = sorted(dataset.folders)
    yield Relabelling(
        "labels",
        "With the class folders numbered in text order, as torchvision's ImageFolder numbers them "
        f"({shortened(text, SHOWN_LABELS)}),",
        advice.format(lines),
        {int(name): place for place, name in enumerate(text)},
    )
    numbers = sorted({int(name) for name in dataset.folders})
    yield Relabelling(
        "labels",
        f"With the class folders numbered from 0 in the order {shortened(numbers, SHOWN_LABELS)},",
        advice.format(lines),
        {number: place for place, number in enumerate(numbers)},
    )
    if numbers[0] > 0:
        yield Relabelling(
            "labels",
            "With the class folders counted from one (folder 1 is class 0),",
            advice.format("a .csv of name,index where each index is the folder's number less 1"),
            {number: number - 1 for number in numbers},
        )
