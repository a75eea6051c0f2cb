"""The splits of a data set, and the choice of one if the user does not name one."""

from collections.abc import Collection

from audit.errors import DataError

SPLITS = {
    "test": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "train": "train",
    "training": "train",
}
"""Common names of splits, and their meaning."""

PREFERRED = ("test", "validation")


def is_split(name: str) -> bool:
    """Return whether a folder or file of that name is a split and not a class."""
    return name.lower() in SPLITS


def choose_split(path: object, splits: Collection[str], example: str) -> str:
    """Return the name of the test split, or else of the validation split.

    Args:
        path: the data, for messages.
        splits: names of the splits found.
        example: path to pass for the first of them.

    Raises:
        DataError: there is neither, or a choice is ambiguous; the message lists the splits.
    """
    for wanted in PREFERRED:
        found = [split for split in splits if SPLITS.get(split.lower()) == wanted]
        if len(found) == 1:
            return found[0]
    raise DataError(
        f"{path} has no single split to evaluate: expected test or validation, found "
        f"{', '.join(sorted(splits))}; name the one to use, e.g. --data {example}."
    )
