"""A CSV of image files and their labels, one sample per line."""

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from audit.data.classes import number_labels
from audit.data.dataset import Dataset, Manifest, Options
from audit.data.digest import sha256_named
from audit.data.image_files import ImageFile, open_images
from audit.data.wording import brief
from audit.errors import DataError

CSV_FILE_COLUMNS = ("file", "path", "filename", "image")
CSV_LABEL_COLUMNS = ("label", "class", "target")
CSV_NAME_COLUMN = "name"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list; `name` is the name of the class, or empty."""

    line: int
    file: str
    label: str
    name: str


def is_csv(path: Path) -> bool:
    """Return whether the file's name ends in ``.csv``."""
    return path.suffix.lower() == ".csv"


def open_csv(path: Path, options: Options) -> Dataset:
    """Open image files with labels: integers, or names with indices by class map or sorted order.

    Columns, found by header in upper or lower case: file, path, filename or image; label, class or
    target; optionally name, the class's name. Files are relative to the CSV's folder or to its
    sub-folder ``images/``.

    Raises:
        DataError: a column, file or label is missing or wrong; the message contains the line.
        NothingToEvaluate: there is no line except the header.
    """
    rows = read_rows(path)
    # One object per folder, not one per row.
    folders = (path.parent, path.parent / "images")
    files = [find_file(path, folders, row) for row in rows]
    first = {row.label: row for row in reversed(rows)}
    unique = list(dict.fromkeys(row.label for row in rows))
    numbering = number_labels(
        unique, lambda label: f"{path}, line {first[label].line}", options.class_map
    )
    labels = [numbering.index[row.label] for row in rows]
    class_names = numbering.class_names
    if class_names is None and options.class_map is None:
        class_names = names_by_label(labels, rows)
    manifest = Manifest(
        path=path,
        sha256=sha256_named(chain([(path.name, path)], ((file.name, file.path) for file in files))),
        labels=np.array(labels, dtype=np.int64),
        options=options,
        class_names=class_names,
        notes=numbering.notes,
    )
    return open_images(files, manifest)


def read_rows(path: Path) -> list[Row]:
    """Read the lines of the list except blank ones; separated by comma, semicolon or tab.

    Raises:
        DataError: the file is not text, a column is missing, or a line is too short.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            header_line = stream.readline()
            delimiter = max(",;\t", key=header_line.count)
            stream.seek(0)
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            header = [cell.strip().lower() for cell in next(reader, [])]
            file = column(path, header, CSV_FILE_COLUMNS)
            label = column(path, header, CSV_LABEL_COLUMNS)
            name = header.index(CSV_NAME_COLUMN) if CSV_NAME_COLUMN in header else None
            rows = []
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                cells += [""] * (len(header) - len(cells))
                text = "" if name is None else cells[name].strip()
                # Interned, so that a label that many lines share is stored once.
                label_text = sys.intern(cells[label].strip())
                row = Row(reader.line_num, cells[file].strip(), label_text, sys.intern(text))
                if not (row.file and row.label):
                    raise DataError(
                        f"{path}, line {row.line}: file or label is empty; fill in or remove it."
                    )
                rows.append(row)
            return rows
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV in UTF-8 ({brief(error)}).") from error


def column(path: Path, header: Sequence[str], names: Sequence[str]) -> int:
    """Return the position of the first of the names that the header contains."""
    for name in names:
        if name in header:
            return header.index(name)
    raise DataError(
        f"{path}: no column {' or '.join(names)} in its first line, which has: "
        f"{brief(', '.join(header))}. Expected a header such as 'file,label'."
    )


def find_file(path: Path, folders: Sequence[Path], row: Row) -> ImageFile:
    """Return the file of a line, from the folder of the CSV or its sub-folder ``images/``."""
    for folder in folders:
        if (folder / row.file).is_file():
            return ImageFile(row.file, folder)
    raise DataError(
        f"{path}, line {row.line}: {brief(row.file)} is neither in {path.parent} nor in its "
        "images/ sub-folder; file names are relative to the CSV."
    )


def names_by_label(labels: Sequence[int], rows: Sequence[Row]) -> tuple[str, ...] | None:
    """Return class names from the ``name`` column; a class without a name is called by its number.

    Returns:
        None if there are no names, or if a label cannot be a class index.
    """
    found: dict[int, str] = {}
    for label, row in zip(labels, rows, strict=True):
        if row.name:
            found.setdefault(label, row.name)
    # The bound prevents one absurd label from allocating a tuple of that length.
    if not found or min(labels) < 0 or max(labels) >= 1_000_000:
        return None
    return tuple(found.get(label, str(label)) for label in range(max(labels) + 1))
