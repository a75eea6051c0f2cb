"""The splits of a data set, and which of them an audit takes where the user names none."""

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
"""Names that splits have, and what they mean."""

PREFERRED = ("test", "validation")


def is_split(name: str) -> bool:
    """Whether a folder or file of that name is a split and not a class."""
    return name.lower() in SPLITS


def choose_split(path: object, splits: Collection[str], example: str) -> str:
    """The test split, else the validation split.

    Args:
        path: the data, for messages.
        splits: names found.
        example: what to pass for the first of them.

    Raises:
        DataError: there is neither, or there are several validation splits; names what there is.
    """
    for wanted in PREFERRED:
        found = [split for split in splits if SPLITS.get(split.lower()) == wanted]
        if len(found) == 1:
            return found[0]
    raise DataError(
        f"{path} has no one split to evaluate: expected test or validation, found "
        f"{', '.join(sorted(splits))}; name the one to use, e.g. --data {example}."
    )
