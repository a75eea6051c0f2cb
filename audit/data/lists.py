"""A column of numbers, flat or nested, as samples: one shape for all rows, read on demand."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.data.arrays import channel_copies, channels_first, refuse_resize
from audit.data.arrow import arrow
from audit.data.dataset import Dataset, Manifest, StoredSamples, assemble
from audit.data.pixels import check_dtype, scaled
from audit.data.table import Cursor, Table
from audit.data.wording import brief
from audit.errors import DataError

WIDE = {"int8", "int16", "int32", "int64", "uint32", "uint64"}
"""Integer types that are not pixel types, but that lists without an explicit type have."""

LARGEST_SAMPLE_BYTES = 1 << 30
"""Size of one sample in bytes above which a column is refused."""


def from_lists(table: Table, column: str, manifest: Manifest) -> Dataset:
    """Make a `Dataset` from a column of lists of numbers, which is not kept in memory.

    Integers wider than a pixel are read as uint8 if all of them are in 0..255.

    Raises:
        DataError: a cell is not a list of numbers, rows differ in shape, or the values do not
            determine a pixel range.
    """
    options = manifest.options
    stored, shape, notes_of_values = survey_lists(table, column)
    probe, image_notes = channels_first(np.empty((0, *shape), dtype=stored))
    copies, channel_notes = channel_copies(table.path, probe.shape[1:], options.channels)
    refuse_resize(table.path, probe.shape[1:], options.resize)
    cursor = Cursor(table, column)

    def fetch(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        x = np.empty((len(rows), *shape), dtype=stored)
        for position, piece, place in cursor.take(rows):
            row = int(rows[position])
            values = lists_as_array(table, column, piece.slice(place, 1), row)
            if values.shape[1:] != shape:
                raise DataError(f"{table.path}, row {row} has changed since it was opened.")
            x[position] = values[0]
        values = np.ascontiguousarray(scaled(channels_first(x)[0], options.low, options.high))
        return np.repeat(values, copies, axis=1) if copies > 1 else values

    shape_read = (probe.shape[1] * copies, *probe.shape[2:])
    return assemble(
        manifest.noting(*notes_of_values, *image_notes, *channel_notes),
        StoredSamples(len(table), shape_read, fetch),
    )


def survey_lists(
    table: Table, column: str
) -> tuple[np.dtype[Any], tuple[int, ...], tuple[str, ...]]:
    """Return the pixel type and the shape of all rows, and notes; every row is read once.

    Raises:
        DataError: rows differ in shape, are not numbers, or are integers of unknown range.
    """
    shape: tuple[int, ...] | None = None
    dtype = np.dtype(np.uint8)
    least, most, row = 0, 0, 0
    for piece in table.pieces(column):
        if not len(piece):
            continue
        values = lists_as_array(table, column, piece, row)
        shape = values.shape[1:] if shape is None else shape
        if values.shape[1:] != shape:
            raise DataError(ragged(table, column, row, values.shape[1:], shape))
        dtype = values.dtype
        if dtype.name in WIDE:
            least, most = min(least, int(values.min())), max(most, int(values.max()))
        row += len(piece)
    if shape is None or 0 in shape:
        raise DataError(f"{table.path}: column '{column}' contains empty lists, expected numbers.")
    if np.prod(shape, dtype=float) * dtype.itemsize > LARGEST_SAMPLE_BYTES:
        raise DataError(f"{table.path}: one sample of shape {brief(shape)} is larger than 1 GiB.")
    if dtype.name in WIDE and least >= 0 and 1 < most <= 255:
        note = f"Values are {dtype.name}, all in 0..255; read as uint8, 255 is mapped to high."
        return np.dtype(np.uint8), shape, (note,)
    check_dtype(dtype, f"{table.path}: column '{column}'")
    return dtype, shape, ()


def lists_as_array(table: Table, column: str, piece: Any, row: int) -> NDArray[Any]:
    """Return the lists of a piece as one array (n, *shape).

    Args:
        table: for messages.
        column: for messages.
        piece: a pyarrow array of n lists, of lists, … of numbers, or of tensors.
        row: row of its first cell.

    Raises:
        DataError: a cell is empty, does not contain numbers, or differs in length from the others.
    """
    types = arrow(table.path).types
    compute = arrow(table.path, "pyarrow.compute")
    shape: tuple[int, ...] = ()
    values = piece
    if hasattr(values.type, "shape") and hasattr(values, "to_numpy_ndarray"):
        return np.asarray(values.to_numpy_ndarray())
    values = getattr(values, "storage", values)
    while is_list(types, values.type):
        lengths = compute.list_value_length(values).to_numpy(zero_copy_only=False)
        # An empty cell has length nan, which differs from every length.
        odd = np.flatnonzero(lengths != lengths[0]) if lengths.size else lengths
        inner = int(np.prod(shape, dtype=np.int64)) if shape else 1
        if values.null_count:
            null = int(np.argmax(compute.is_null(values).to_numpy(zero_copy_only=False)))
            raise DataError(missing(table, column, row + null // inner))
        if odd.size:
            other, here = int(lengths[odd[0]]), int(lengths[0])
            raise DataError(
                ragged(table, column, row + int(odd[0]) // inner, (*shape, other), (*shape, here))
            )
        shape = (*shape, int(lengths[0]) if lengths.size else 0)
        values = values.flatten()
    if not shape or not is_number(types, values.type):
        raise DataError(
            f"{table.path}: column '{column}' has type {brief(piece.type)}; expected encoded "
            "images (bytes, or {bytes, path}) or lists of numbers."
        )
    if values.null_count:
        null = int(np.argmax(compute.is_null(values).to_numpy(zero_copy_only=False)))
        raise DataError(missing(table, column, row + null // int(np.prod(shape))))
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(piece), *shape)


def is_list(types: Any, kind: Any) -> bool:
    """Return whether cells of the type are lists, of variable or fixed length."""
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def is_number(types: Any, kind: Any) -> bool:
    """Return whether cells of the type are numbers or booleans."""
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def missing(table: Table, column: str, row: int) -> str:
    """Return the message about a cell without a value."""
    return f"{table.path}, row {row}: column '{column}' has an empty value; remove that row."


def ragged(
    table: Table, column: str, row: int, found: tuple[int, ...], expected: tuple[int, ...]
) -> str:
    """Return the message about rows that differ in shape."""
    return (
        f"{table.path}, row {row}: column '{column}' has lists of length "
        f"{'x'.join(map(str, found))}, before it {'x'.join(map(str, expected))}; lists must have "
        "one shape for all rows. Store images of mixed sizes as encoded bytes, and pass --resize."
    )
