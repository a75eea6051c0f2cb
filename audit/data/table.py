"""A table on disk: files in parts (row groups or record batches), read column by column.

Only the current piece of the current part is held in memory.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.data.wording import brief
from audit.errors import DataError

Stream = Callable[[str], Iterator[Any]]
"""Function from a column to its values in one part, as consecutive pyarrow arrays (pieces)."""


@dataclass(frozen=True)
class Part:
    """Consecutive rows of one file."""

    file: Path
    rows: int
    stream: Stream = field(repr=False)


@dataclass(frozen=True)
class Table:
    """A table of labelled samples.

    Attributes:
        path: path as the user gave it.
        sha256: digest of its files.
        types: column -> its pyarrow type, equal in all files.
        features: column -> its description in Hugging Face's metadata, e.g.
            ``{"_type": "Image"}``.
        parts: parts in the order of the rows.
        notes: one sentence for each conversion or choice made so far.
    """

    path: Path
    sha256: str
    types: dict[str, Any]
    features: dict[str, dict[str, Any]]
    parts: tuple[Part, ...]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return sum(part.rows for part in self.parts)

    def pieces(self, column: str) -> Iterator[Any]:
        """Yield all values of a column, one piece at a time."""
        for part in self.parts:
            yield from part.stream(column)


class Cursor:
    """Read position in a column: moving forward is cheap, moving back restarts the part.

    This is the only mutable object of the loaders. Parquet can only be decoded from the start of a
    row group, and a row group can be the whole file; so the stream stays open between two reads.
    """

    def __init__(self, table: Table, column: str) -> None:
        self.table = table
        self.column = column
        self.starts = np.cumsum([0, *(part.rows for part in table.parts)])
        self.part = -1
        self.stream: Iterator[Any] = iter(())
        self.piece: Any = ()
        self.start = 0

    def take(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, Any, int]]:
        """Yield for each row, in ascending order: position in ``rows``, piece, index in the piece.

        Raises:
            DataError: the file has fewer rows than it had when it was opened.
        """
        for position in np.argsort(rows, kind="stable"):
            self._seek(int(rows[position]))
            yield int(position), self.piece, int(rows[position]) - self.start

    def _seek(self, row: int) -> None:
        """Move to the piece that holds the row."""
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        if part != self.part or row < self.start:
            self.part, self.start, self.piece = part, int(self.starts[part]), ()
            self.stream = self.table.parts[part].stream(self.column)
        while row >= self.start + len(self.piece):
            self.start += len(self.piece)
            try:
                self.piece = next(self.stream)
            except BaseException as error:
                # After any exception the stream cannot be resumed: restart it at the next call.
                self.part = -1
                if not isinstance(error, StopIteration):
                    raise
                file = self.table.parts[part].file
                raise DataError(f"{file} has changed since it was opened; reopen it.") from error


def features_of(metadata: dict[bytes, bytes] | None) -> dict[str, dict[str, Any]]:
    """Return column -> feature from the metadata of Hugging Face `datasets` in a schema."""
    try:
        info = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        return described_columns(info["info"]["features"])
    except (ValueError, KeyError, TypeError):
        return {}


def described_columns(features: object) -> dict[str, dict[str, Any]]:
    """Return the columns whose description is a JSON object; skip all others."""
    if not isinstance(features, dict):
        return {}
    return {name: value for name, value in features.items() if isinstance(value, dict)}


def common_types(files: Sequence[Path], schemas: Sequence[Any]) -> dict[str, Any]:
    """Return column -> type for the columns that all files have.

    Raises:
        DataError: the files share no column, or a column has different types in two files.
    """
    types = {name: schemas[0].field(name).type for name in set(schemas[0].names)}
    for file, schema in zip(files[1:], schemas[1:], strict=True):
        types = {name: kind for name, kind in types.items() if name in schema.names}
        for name, kind in types.items():
            if schema.field(name).type != kind:
                raise DataError(
                    f"column '{brief(name, 40)}' is {brief(kind)} in {files[0]} but "
                    f"{brief(schema.field(name).type)} in {file}; are they shards of one table?"
                )
    if not types:
        raise DataError(f"{files[0]} and its sibling files have no column in common.")
    return types
