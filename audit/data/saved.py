"""Folders that Hugging Face `datasets` writes by ``save_to_disk``: Arrow streams, two JSON files.

The streams are memory-mapped, so only the rows that are read are loaded into memory. `datasets`
itself is not needed, and nothing in the folder is executed.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from audit.data.arrow import arrow, arrow_errors
from audit.data.dataset import Dataset, Options
from audit.data.digest import sha256_named
from audit.data.table import Part, Table, common_types, described_columns, features_of
from audit.data.table_data import open_table
from audit.data.wording import brief
from audit.errors import DataError

STATE = "state.json"
INFO = "dataset_info.json"
DICTIONARY = "dataset_dict.json"


def is_saved(path: Path) -> bool:
    """Return whether the folder has a metadata file that ``save_to_disk`` writes."""
    return (path / STATE).is_file() or (path / DICTIONARY).is_file()


def open_saved(path: Path, options: Options) -> Dataset:
    """Open labelled samples in a saved dataset.

    Raises:
        DataError: it is a dictionary of datasets (the message lists its splits), pyarrow is
            missing, or a file is damaged, missing or outside the folder.
        NothingToEvaluate: there is no row.
    """
    if (path / DICTIONARY).is_file():
        raise DataError(splits_message(path))
    files = data_files(path, read_json(path / STATE))
    return open_table(saved_table(path, files), options)


def splits_message(path: Path) -> str:
    """Return the message about a dictionary of datasets, with the path to pass instead."""
    listed = read_json(path / DICTIONARY).get("splits")
    names = [name for name in listed or [] if isinstance(name, str)]
    present = [name for name in names if (path / name).is_dir()]
    if not present:
        return (
            f"{path} is a dictionary of datasets, but contains none of its splits; save it again."
        )
    example = path / ("test" if "test" in present else present[0])
    return (
        f"{path} is a dictionary of datasets with the splits {brief(', '.join(present))}; "
        f"pass the folder of one of them, e.g. --data {example}."
    )


def data_files(path: Path, state: dict[str, Any]) -> list[Path]:
    """Return the Arrow files that the state lists, all of them directly in the folder.

    Raises:
        DataError: no file is listed, a file is missing or outside the folder, or the dataset was
            saved with a table of indices.
    """
    if state.get("_indices_data_files"):
        raise DataError(
            f"{path} was saved with a table of indices (datasets before 2.0); load it and write it "
            "again with dataset.flatten_indices().save_to_disk(…)."
        )
    try:
        names = [entry["filename"] for entry in state["_data_files"]]
        files = [path / name for name in names]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path / STATE} does not list the data files; save it again.") from error
    for name, file in zip(names, files, strict=True):
        if Path(name).name != name or not file.is_file():
            raise DataError(f"{path / STATE} lists {brief(name)}, which is not a file in {path}.")
    if not files:
        raise DataError(f"{path / STATE} lists no data files; save the dataset again.")
    return files


def saved_table(path: Path, files: list[Path]) -> Table:
    """Return the files as one table; their record batches are memory-mapped, not read."""
    pyarrow = arrow(path)
    ipc = arrow(path, "pyarrow.ipc")
    schemas = []
    parts = []
    for file in files:
        with arrow_errors(file, "Arrow"):
            reader = ipc.open_stream(pyarrow.memory_map(str(file)))
            schemas.append(reader.schema)
            for batch in reader:
                parts.append(Part(file, batch.num_rows, partial(stream_batch, file, batch)))
    info = path / INFO
    extra = [(INFO, info)] if info.is_file() else []
    features = described_columns(read_json(info).get("features")) if extra else {}
    return Table(
        path=path,
        sha256=sha256_named([*((file.name, file) for file in files), *extra]),
        types=common_types(files, schemas),
        features=features or features_of(schemas[0].metadata),
        parts=tuple(parts),
        notes=(),
    )


def stream_batch(file: Path, batch: Any, column: str) -> Iterator[Any]:
    """Yield a column of a record batch, after checking its offsets against its data."""
    with arrow_errors(file, "Arrow"):
        values = batch.column(batch.schema.get_field_index(column))
        # Otherwise a damaged offset could point outside the file.
        values.validate(full=True)
    yield values


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        DataError: the file does not contain an object.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is damaged ({brief(error)}); save the dataset again.") from error
    if not isinstance(found, dict):
        raise DataError(f"{file} does not contain a JSON object; save the dataset again.")
    return found
