"""Indices of classes: by a class map, or by the sorted order of the names."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from audit.data.wording import brief, shortened
from audit.errors import DataError

INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(nan|inf)", re.I)

SHOWN_CLASSES = 4
"""Number of classes that a sentence lists before it skips to the last one."""


@dataclass(frozen=True)
class ClassMap:
    """The model's index of each class name, as stated in a file of the user.

    Attributes:
        path: the file, for messages.
        index: name -> index; every index occurs once.
    """

    path: Path
    index: Mapping[str, int]

    @property
    def names(self) -> tuple[str, ...]:
        """Name of class k at position k; its number where the map has no name for it."""
        named = {index: name for name, index in self.index.items()}
        return tuple(named.get(k, str(k)) for k in range(max(named) + 1))


@dataclass(frozen=True)
class Numbering:
    """Index of each label in the data, class names if known, and notes about the decisions."""

    index: Mapping[str, int]
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...]


def number_labels(
    labels: Sequence[str], where: Callable[[str], str], class_map: ClassMap | None
) -> Numbering:
    """Return the indices of labels that are text: class indices as digits, or class names.

    Args:
        labels: each label once, in order of first appearance.
        where: label -> where it was found, for messages.
        class_map: the user's class map; None: names are numbered in sorted order.

    Raises:
        DataError: some labels are integers and others are not, or the class map lacks a name.
    """
    if class_map is not None and any(label in class_map.index for label in labels):
        return by_map(labels, where, class_map)
    odd = [label for label in labels if not INTEGER.fullmatch(label)]
    if not odd:
        return Numbering({label: int(label) for label in labels}, None, ())
    if class_map is not None:
        return by_map(labels, where, class_map)
    numeric = [label for label in odd if NUMBER.fullmatch(label)]
    if numeric or len(odd) < len(labels):
        label = (numeric or odd)[0]
        raise DataError(
            f"{where(label)}: label '{brief(label)}' is not an integer; "
            "labels must either all be class indices, counted from 0, or all be class names."
        )
    names = sorted(labels)
    note = (
        f"Labels are names; classes are the {len(names)} names in sorted order: "
        f"{list_classes(names)}."
    )
    return Numbering({name: k for k, name in enumerate(names)}, tuple(names), (note,))


def by_map(labels: Sequence[str], where: Callable[[str], str], class_map: ClassMap) -> Numbering:
    """Return the indices of names by the class map.

    Raises:
        DataError: the map lacks a name; states where it was found and what the map has.
    """
    for label in labels:
        if label not in class_map.index:
            known = brief(list_classes(list(class_map.index), class_map))
            raise DataError(
                f"{where(label)}: class '{brief(label)}' is not in the class map "
                f"{class_map.path}, which has {known}; "
                "add it there, or correct the spelling."
            )
    index = {label: class_map.index[label] for label in labels}
    by_index = sorted(index, key=index.__getitem__)
    note = (
        f"Class names were looked up in the class map {class_map.path.name}: "
        f"{list_classes(by_index, class_map)}."
    )
    return Numbering(index, class_map.names, (note,))


def list_classes(names: Sequence[str], class_map: ClassMap | None = None) -> str:
    """Return a short list of classes: ``0 ant, 1 bee, 2 cat, 3 dog, …, 9 yak``.

    Args:
        names: in the order to list them.
        class_map: gives their indices; None: the positions are the indices.
    """
    pairs = [(class_map.index[name] if class_map else k, name) for k, name in enumerate(names)]
    return shortened(pairs, SHOWN_CLASSES, lambda pair: f"{pair[0]} {brief(pair[1], 30)}")
