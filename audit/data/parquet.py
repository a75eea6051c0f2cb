"""Parquet files: a single file, a folder of shards, or the layout of Hugging Face repositories."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from audit.data.arrow import arrow, arrow_errors
from audit.data.dataset import Dataset, Options
from audit.data.digest import sha256_named, sha256_of
from audit.data.splits import choose_split, is_split
from audit.data.table import Part, Table, common_types, features_of
from audit.data.table_data import open_table
from audit.errors import DataError

PARQUET_SUFFIXES = (".parquet", ".pq")
SHARD = re.compile(r"(?P<stem>.+?)-(?P<number>\d{5})-of-(?P<total>\d{5})(-[0-9a-f]+)?")
NUMBERS = re.compile(r"(\d+)")

DEPTH = 3
"""Number of levels of folders that are searched, as in ``config/split/0000.parquet``."""

BATCH_ROWS = 32
"""Number of rows decoded at a time: 39 MB for 224x224x3 as 64-bit integers."""

BUFFER_BYTES = 1 << 20


def is_parquet(path: Path) -> bool:
    """Return whether it is a parquet file by name, a folder that contains one, or names shards."""
    if path.is_dir():
        return next(found(path), None) is not None
    return path.suffix.lower() in PARQUET_SUFFIXES or bool(shards_called(path))


def open_parquet(path: Path, options: Options) -> Dataset:
    """Open labelled samples in parquet files.

    A file is read alone. From a folder the test split is read, or else the validation split; files
    without a split in their names are shards of one table. ``data/train`` is the name of all of
    ``data/train-00000-of-00002.parquet`` and its sibling files.

    Raises:
        DataError: pyarrow is missing, a file is damaged, or a shard or a column is missing.
        NothingToEvaluate: there is no row.
    """
    files, notes = choose_files(path)
    return open_table(parquet_table(path, files, notes), options)


def parquet_table(path: Path, files: list[Path], notes: tuple[str, ...]) -> Table:
    """Return the files as one table; only their metadata is read."""
    parquet = arrow(path, "pyarrow.parquet")
    schemas = []
    parts = []
    for file in files:
        with arrow_errors(file, "parquet"):
            metadata = parquet.read_metadata(file)
            schemas.append(metadata.schema.to_arrow_schema())
            for group in range(metadata.num_row_groups):
                rows = metadata.row_group(group).num_rows
                if rows < 0:
                    raise ValueError(f"row group {group} claims {rows} rows")
                parts.append(Part(file, rows, partial(stream_row_group, file, group, metadata)))
    if path.is_file():
        sha256 = sha256_of(path)
    else:
        folder = path if path.is_dir() else path.parent
        sha256 = sha256_named((file.relative_to(folder).as_posix(), file) for file in files)
    types = common_types(files, schemas)
    return Table(path, sha256, types, features_of(schemas[0].metadata), tuple(parts), notes)


def stream_row_group(file: Path, group: int, metadata: Any, column: str) -> Iterator[Any]:
    """Yield a column of a row group one batch at a time; each batch is read on demand."""
    parquet = arrow(file, "pyarrow.parquet")
    with arrow_errors(file, "parquet"):
        reader = parquet.ParquetFile(
            file, metadata=metadata, buffer_size=BUFFER_BYTES, pre_buffer=False
        )
        with reader:
            for batch in reader.iter_batches(
                BATCH_ROWS, row_groups=[group], columns=[column], use_threads=False
            ):
                yield batch.column(column)


def found(folder: Path) -> Iterator[Path]:
    """Yield parquet files in a folder and up to `DEPTH` - 1 levels below, except hidden ones."""
    for depth in range(DEPTH):
        for file in folder.glob("*/" * depth + "*"):
            parts = file.relative_to(folder).parts
            if file.suffix.lower() in PARQUET_SUFFIXES and not any(
                p.startswith(".") for p in parts
            ):
                yield file


def choose_files(path: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Return the files to read, in the order of their shards, and a note about the choice.

    Raises:
        DataError: the choice of the table or the split is unclear, or a shard is missing.
    """
    if path.is_file():
        return [path], ()
    if not path.is_dir():
        shards = shards_called(path)
        return complete(path, shards), (f"Read from {len(shards)} parquet files.",)
    splits: dict[str, list[Path]] = {}
    for file in sorted(found(path), key=natural):
        splits.setdefault(split_of(file, path), []).append(file)
    split = "" if set(splits) == {""} else choose_split(path, split_names(splits), example(splits))
    files = splits[split]
    folders = sorted({file.parent for file in files})
    if len(folders) > 1:
        names = ", ".join(folder.relative_to(path).as_posix() for folder in folders)
        raise DataError(f"{path} holds several tables: {names}; pass one of these folders.")
    chosen = (
        f"The split {split} is used (found: {', '.join(split_names(splits))}). " if split else ""
    )
    count = "1 parquet file" if len(files) == 1 else f"{len(files)} parquet files"
    return complete(path, files), (f"{chosen}Read from {count}.",)


def split_names(splits: dict[str, list[Path]]) -> list[str]:
    """Return the names of the splits; files without a split are described as such."""
    return [split or "files without a split" for split in splits]


def example(splits: dict[str, list[Path]]) -> str:
    """Return a path that names the first split: its file, its folder, or the name of its shards."""
    files = next(files for split, files in sorted(splits.items()) if split)
    shard = SHARD.fullmatch(files[0].stem)
    if shard and len(files) > 1:
        return str(files[0].with_name(shard["stem"]))
    return str(files[0] if len(files) == 1 else files[0].parent)


def split_of(file: Path, root: Path) -> str:
    """Return the split that a file's name or its folder's name states; empty if neither does."""
    shard = SHARD.fullmatch(file.stem)
    stem = shard["stem"] if shard else file.stem
    if is_split(stem):
        return stem
    if file.parent != root and is_split(file.parent.name):
        return file.parent.name
    words = [word for word in re.split(r"[^A-Za-z]+", stem) if is_split(word)]
    return words[0] if len(words) == 1 else ""


def shards_called(path: Path) -> list[Path]:
    """Return the files ``NAME-00000-of-00002.parquet`` … in the folder of a path called NAME."""
    if not path.parent.is_dir():
        return []
    candidates = (file for file in path.parent.iterdir() if file.suffix.lower() in PARQUET_SUFFIXES)
    matches = ((file, SHARD.fullmatch(file.stem)) for file in candidates)
    return sorted(
        (file for file, shard in matches if shard and shard["stem"] == path.name), key=natural
    )


def complete(path: Path, files: list[Path]) -> list[Path]:
    """Return the files, after checking that no shard that their names imply is missing.

    Raises:
        DataError: a shard is missing, or shards of several tables are mixed.
    """
    shards = [shard for file in files if (shard := SHARD.fullmatch(file.stem))]
    if not shards:
        return files
    kinds = {(shard["stem"], int(shard["total"])) for shard in shards}
    if len(kinds) > 1 or len(shards) < len(files):
        names = ", ".join(file.name for file in files[:4])
        raise DataError(f"{path} mixes shards of several tables: {names}; pass one of them.")
    stem, total = kinds.pop()
    missing = sorted(set(range(total)) - {int(shard["number"]) for shard in shards})
    if missing or len(shards) != total:
        wanted = f"{stem}-{missing[0]:05d}-of-{total:05d}" if missing else "one file per number"
        raise DataError(
            f"{path} has {len(shards)} files for the {total} shards of {stem}: expected {wanted}; "
            "download the missing files, or pass a single file to use only that one."
        )
    return files


def natural(file: Path) -> list[tuple[int, str]]:
    """Return a sort key that puts part2 before part10."""
    return [(int(word), "") if word.isdecimal() else (0, word) for word in NUMBERS.split(str(file))]
