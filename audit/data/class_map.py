"""Readers of class maps: JSON, CSV, or one name per line in the order of the indices."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from audit.data.classes import INTEGER, ClassMap
from audit.data.wording import brief
from audit.errors import DataError

NAME_COLUMNS = ("name", "class", "class_name")
INDEX_COLUMNS = ("index", "label", "id")

MOST_CLASSES = 1_000_000
LARGEST_MAP_BYTES = 64 << 20

FORMS = (
    'a JSON object {"cat": 0, "dog": 1} or list ["cat", "dog"], a .csv with the columns '
    "name,index, or a text file with one name per line in the order of the indices"
)


def read_class_map(path: Path) -> ClassMap:
    """Read a class map by the file's suffix: .json, .csv or any other (one name per line).

    Raises:
        DataError: the file is missing, has another form, or contains a name or an index twice.
    """
    if not path.is_file():
        raise DataError(f"the class map {path} is not a file; expected {FORMS}.")
    if path.stat().st_size > LARGEST_MAP_BYTES:
        raise DataError(
            f"the class map {path} is larger than {LARGEST_MAP_BYTES >> 20} MiB; is it a class map?"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        reader = {".json": from_json, ".csv": from_csv}.get(path.suffix.lower(), from_lines)
        pairs = list(reader(text))
    except (ValueError, RecursionError, csv.Error) as error:
        raise DataError(f"the class map {path} is wrong ({brief(error)}); expected {FORMS}.") from (
            error
        )
    except OSError as error:
        raise DataError(f"{path} cannot be read: {brief(error.strerror or error)}.") from error
    return checked(path, pairs)


def from_json(text: str) -> Iterable[tuple[str, int]]:
    """Return names and indices from a list of names, from name -> index, or index -> name."""
    # Objects are read as tuples of pairs, because a dictionary would hide a repeated name.
    found = json.loads(text, object_pairs_hook=tuple)
    if isinstance(found, list):
        return [(_name(name), index) for index, name in enumerate(found)]
    if not isinstance(found, tuple):
        raise ValueError(f"neither an object nor a list, but {type(found).__name__}")
    if found and all(INTEGER.fullmatch(key) and isinstance(value, str) for key, value in found):
        return [(value, int(key)) for key, value in found]
    return [(name, _index(index)) for name, index in found]


def from_csv(text: str) -> Iterable[tuple[str, int]]:
    """Yield names and indices from the columns of a CSV, found by its first line."""
    lines = text.splitlines()
    header_line = lines[0] if lines else ""
    delimiter = max(",;\t", key=header_line.count)
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    header = [cell.strip().lower() for cell in next(rows, [])]
    name = next((header.index(column) for column in NAME_COLUMNS if column in header), None)
    index = next((header.index(column) for column in INDEX_COLUMNS if column in header), None)
    if name is None or index is None:
        raise ValueError(f"its first line is {brief(header_line, 60)!r}, not 'name,index'")
    for cells in rows:
        if any(cell.strip() for cell in cells):
            if len(cells) <= max(name, index):
                raise ValueError(f"line {rows.line_num} has no name or no index")
            yield cells[name].strip(), _index(cells[index].strip())


def from_lines(text: str) -> Iterable[tuple[str, int]]:
    """Return names, one per line, numbered by line; blank lines at the end are ignored."""
    return [(line.strip(), index) for index, line in enumerate(text.rstrip().splitlines())]


def checked(path: Path, pairs: list[tuple[str, int]]) -> ClassMap:
    """Return a class map, after checking that each name and each index occurs once.

    Raises:
        DataError: a name or an index occurs twice, a name is empty, or an index is negative or at
            least `MOST_CLASSES`.
    """
    if not pairs:
        raise DataError(f"the class map {path} names no class; expected {FORMS}.")
    index: dict[str, int] = {}
    name_of: dict[int, str] = {}
    for name, position in pairs:
        shown = brief(name, 40)
        if not name:
            raise DataError(f"the class map {path} has no name for class {position}.")
        if name in index:
            raise DataError(
                f"the class map {path} has the name '{shown}' twice, for {index[name]} and "
                f"{position}; names must be unique, so rename one of them."
            )
        if position in name_of:
            raise DataError(
                f"the class map {path} gives the index {position} to both "
                f"'{brief(name_of[position], 40)}' and '{shown}'; each class has one name."
            )
        if not 0 <= position < MOST_CLASSES:
            raise DataError(
                f"the class map {path} gives '{shown}' the index {position}; "
                "class indices are counted from 0."
            )
        index[name] = position
        name_of[position] = name
    return ClassMap(path, index)


def _name(value: Any) -> str:
    """Return the value; raise `ValueError` unless it is text."""
    if not isinstance(value, str):
        raise ValueError(f"{brief(value, 40)!r} is not a name")
    return value


def _index(value: Any) -> int:
    """Return the value as an integer; raise `ValueError` if it is not one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and INTEGER.fullmatch(value):
        return int(value)
    raise ValueError(f"{brief(value, 40)!r} is not a class index")
