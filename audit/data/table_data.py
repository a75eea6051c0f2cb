"""A table of samples as a `Dataset`: choice of the columns, and labels by index or by name."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.data.arrow import arrow
from audit.data.classes import by_map, number_labels
from audit.data.dataset import Dataset, Manifest, Options
from audit.data.image_rows import EncodedImages, from_encoded
from audit.data.images import Encoded, Source
from audit.data.labels import as_labels
from audit.data.lists import from_lists
from audit.data.table import Cursor, Table
from audit.data.wording import brief
from audit.errors import DataError, NothingToEvaluate

IMAGE_COLUMNS = ("image", "img", "x", "pixel_values", "images", "pixels")
LABEL_COLUMNS = ("label", "labels", "y", "target", "targets", "class", "fine_label")

Labels = tuple[NDArray[np.int64], tuple[str, ...] | None, tuple[str, ...]]
"""Labels (N,), class names if known, and notes."""


def open_table(table: Table, options: Options) -> Dataset:
    """Open labelled samples in a table; only the labels are kept in memory.

    Raises:
        DataError: a column or a cell is missing, or is not an image or a label by its type.
        NothingToEvaluate: there is no row.
    """
    image = choose_column(table, IMAGE_COLUMNS, "Image", "samples")
    label = choose_column(table, LABEL_COLUMNS, "ClassLabel", "labels")
    if not len(table):
        raise NothingToEvaluate(f"{table.path} holds no samples.")
    labels, class_names, notes = read_labels(table, label, options)
    # A damaged file may claim any number of rows: compare it with the number of labels read.
    if len(labels) != len(table):
        raise DataError(
            f"{table.path} claims {len(table)} rows but has {len(labels)} labels; the file is "
            "damaged, download or write it again."
        )
    if (image, label) != ("image", "label"):
        notes = (f"Samples are the column '{image}', labels the column '{label}'.", *notes)
    notes = (*table.notes, *notes)

    manifest = Manifest(table.path, table.sha256, labels, options, class_names, notes)
    types = arrow(table.path).types
    kind = table.types[image]
    if (types.is_struct(kind) and kind.get_field_index("bytes") >= 0) or is_binary(types, kind):
        sources = encoded(table, image)
        everything = (source for _, source in sources(np.arange(len(table))))
        images = EncodedImages(everything, sources, lambda row: f"row {row}")
        return from_encoded(images, manifest)
    return from_lists(table, image, manifest)


def choose_column(table: Table, names: Sequence[str], feature: str, what: str) -> str:
    """Return the column of samples (or labels): the first of the names found, in any case.

    If none is found, it is the only column that the metadata describes as such a feature.

    Raises:
        DataError: there is no such column, or several.
    """
    by_name = {column.lower(): column for column in sorted(table.types)}
    for name in names:
        if name in by_name:
            return by_name[name]
    described = [
        column
        for column, value in table.features.items()
        if value.get("_type") == feature and column in table.types
    ]
    if len(described) == 1:
        return described[0]
    raise DataError(
        f"{table.path}: no column of {what}. Found {brief(', '.join(sorted(table.types)))}; "
        f"expected '{names[0]}' (or one of {', '.join(names[1:])}): rename the column."
    )


def is_binary(types: Any, kind: Any) -> bool:
    """Return whether cells of the type are bytes of any length."""
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def encoded(
    table: Table, column: str
) -> Callable[[NDArray[np.int64]], Iterator[tuple[int, Source]]]:
    """Return a reader of images in a column of bytes, or of Hugging Face's ``{bytes, path}``."""
    cursor = Cursor(table, column)

    def sources(rows: NDArray[np.int64]) -> Iterator[tuple[int, Source]]:
        for position, piece, place in cursor.take(rows):
            where = f"{table.path}, row {rows[position]}"
            cell = piece[place]
            # Only the bytes are read: the path next to them is untrusted text that is not needed.
            content = cell["bytes"] if cell.is_valid and hasattr(cell, "keys") else cell
            if not content.is_valid:
                raise DataError(without_bytes(where, column, cell.as_py()))
            yield position, Encoded(where, content.as_py())

    return sources


def without_bytes(where: str, column: str, cell: object) -> str:
    """Return the message about a cell without an image."""
    path = cell.get("path") if isinstance(cell, dict) else None
    if path:
        return (
            f"{where}: column '{column}' has no bytes, only the path {brief(path)}, which is not "
            "opened; write the data again with the images embedded, or list them in a CSV."
        )
    return f"{where}: column '{column}' is empty; remove that row."


def read_labels(table: Table, column: str, options: Options) -> Labels:
    """Read labels as indices: unchanged, or by their names if they have names.

    Raises:
        DataError: a label is missing, is neither an integer nor a name, or is not in the class map.
    """
    where = f"{table.path}: column '{column}'"
    pyarrow = arrow(table.path)
    compute = arrow(table.path, "pyarrow.compute")
    kind = table.types[column]
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    values = pyarrow.chunked_array([piece.cast(kind) for piece in table.pieces(column)], type=kind)
    if values.null_count:
        row = compute.index(compute.is_null(values), True).as_py()
        raise DataError(f"{where} is empty in row {row}; every sample needs a label.")
    if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
        return named_labels(table, values, options)
    if pyarrow.types.is_nested(kind):
        raise DataError(
            f"{where} has type {brief(kind)}; expected one class index or name per sample. "
            "Several labels per sample are not supported."
        )
    labels = as_labels(values.to_numpy(), where)
    names = table.features.get(column, {}).get("names")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        return labels, None, ()
    return class_labels(where, labels, tuple(names), options)


def named_labels(table: Table, values: Any, options: Options) -> Labels:
    """Return labels from a column of text."""
    coded = values.combine_chunks().dictionary_encode()
    codes = coded.indices.to_numpy(zero_copy_only=False)
    texts = [text.strip() for text in coded.dictionary.to_pylist()]

    def where(text: str) -> str:
        return f"{table.path}, row {int(np.argmax(codes == texts.index(text)))}"

    numbering = number_labels(list(dict.fromkeys(texts)), where, options.class_map)
    index = np.array([numbering.index[text] for text in texts], dtype=np.int64)
    return index[codes], numbering.class_names, numbering.notes


def class_labels(
    where: str, labels: NDArray[np.int64], names: tuple[str, ...], options: Options
) -> Labels:
    """Return labels of a Hugging Face ``ClassLabel``: indices with names in the metadata.

    Without a class map they are unchanged; with a class map each is renumbered by its name.
    """
    if options.class_map is None:
        return labels, names, ()
    used, codes = np.unique(labels, return_inverse=True)
    wrong = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if wrong.size:
        raise DataError(
            f"{where}: label {labels[wrong[0]]} in row {wrong[0]} has no name among the "
            f"{len(names)} of the metadata, so that the class map cannot be applied."
        )
    numbering = by_map([names[k] for k in used], lambda _: where, options.class_map)
    index = np.array([numbering.index[names[k]] for k in used], dtype=np.int64)
    return index[codes], numbering.class_names, numbering.notes
