"""Compare the files that two revisions wrote: every number to the last digit."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.numpy import load_file

EXCLUDED = ("seconds", "created", "path", "version", "schema_version", "environment", "command")
"""Keys of JSON files that are not compared, wherever they are: times, paths, versions."""

SENTENCES = (
    "detail",
    "finding",
    "advice",
    "title",
    "warnings",
    "notes",
    "note",
    "expression",
    "unit",
)
"""Keys whose text may be worded anew: a change is counted apart and is no difference."""

IDENTITY = ("id", "metric", "order", "loss", "delta", "label", "name", "index", "epoch")
"""Keys that tell the entries of a list apart."""

PICTURE = "data:image/"
COMPARED = (".json", ".csv", ".npz", ".safetensors", ".onnx")
Arrays = dict[str, NDArray[Any]]


@dataclass
class Found:
    """What a comparison came to.

    Attributes:
        values: how many were compared.
        differences: changed or missing ones.
        new: keys, health checks, columns, arrays and files that only the new revision has.
        reworded: sentences that differ.
    """

    values: int = 0
    differences: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    reworded: list[str] = field(default_factory=list)


def compare_folders(old: Path, new: Path) -> Found:
    """Compare all files of two folders by their names."""
    found = Found()
    before, after = (set(_files(folder)) for folder in (old, new))
    found.differences += [f"{name}: missing" for name in sorted(before - after)]
    found.new += sorted(after - before)
    for name in sorted(before & after):
        first, second = old / name, new / name
        if first.suffix == ".json":
            values = [json.loads(path.read_text(encoding="utf-8")) for path in (first, second)]
            compare_values(values[0], values[1], name, found)
        elif first.suffix == ".csv":
            compare_tables(first, second, name, found)
        else:
            compare_arrays(_arrays(first), _arrays(second), name, found)
    return found


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.suffix in COMPARED:
            yield path.relative_to(folder).as_posix()


def compare_values(old: Any, new: Any, at: str, found: Found) -> None:
    """Compare two JSON values; ``at`` says where they are."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            here = f"{at} {key}"
            if key in EXCLUDED:
                continue
            if key not in new:
                found.differences.append(f"{here}: missing")
            elif key not in old:
                found.new.append(here)
            elif key in SENTENCES:
                _compare_sentences(old[key], new[key], here, found)
            else:
                compare_values(old[key], new[key], here, found)
    elif isinstance(old, list) and isinstance(new, list):
        _compare_lists(old, new, at, found)
    elif not str(old).startswith(PICTURE):
        found.values += 1
        if repr(old) != repr(new):
            found.differences.append(f"{at}: {old!r} -> {new!r}")


def _compare_lists(old: list[Any], new: list[Any], at: str, found: Found) -> None:
    """Compare entry by entry: by what tells them apart where they are objects, else by position."""
    before, after = (_identified(map(_current_check, entries)) for entries in (old, new))
    of_version_1 = any(map(_is_check_of_version_1, old))
    for key, value in before.items():
        if key not in after:
            found.differences.append(f"{at} {key}: missing")
            continue
        other = after[key]
        if of_version_1:  # the keys that only version 2 has are known, and would hide new ones
            other = {name: part for name, part in other.items() if name in value}
        compare_values(value, other, f"{at} {key}", found)
    for key in after.keys() - before.keys():
        if isinstance(after[key], dict) and "finding" in after[key]:
            found.new.append(f"{at} {key}")
        else:
            found.differences.append(f"{at} {key}: was not there")


def _current_check(entry: Any) -> Any:
    """Return a health check of schema version 1 with the keys of version 2 that it can fill.

    There the metric was part of the name, "square.linf", and one text held finding and advice.
    """
    if not _is_check_of_version_1(entry):
        return entry
    name, _, metric = entry["check"].partition(".")
    found = {"id": name, "status": entry["status"], "finding": entry["detail"]}
    return found | ({"metric": metric} if metric else {})


def _is_check_of_version_1(entry: Any) -> bool:
    return isinstance(entry, dict) and set(entry) == {"check", "status", "detail"}


def _identified(entries: Iterable[Any]) -> dict[str, Any]:
    """The entries by what tells them apart; the second of the same is numbered."""
    found: dict[str, Any] = {}
    for position, entry in enumerate(entries):
        parts = (
            []
            if not isinstance(entry, dict)
            else [str(entry[k]) for k in IDENTITY if entry.get(k) is not None]
        )
        name, number = " ".join(parts) or f"[{position}]", 1
        while (key := name if number == 1 else f"{name} ({number})") in found:
            number += 1
        found[key] = entry
    return found


def _compare_sentences(old: Any, new: Any, at: str, found: Found) -> None:
    """Note texts that differ; one that is null on one side only is a difference."""
    if (old is None) != (new is None):
        found.differences.append(f"{at}: {old!r} -> {new!r}")
    elif old != new:
        found.reworded.append(f"{at}: {old!r} -> {new!r}")


def compare_tables(old: Path, new: Path, at: str, found: Found) -> None:
    """Compare CSV files byte by byte; where they differ, say in which cells."""
    before, after = (_columns(path) for path in (old, new))
    found.values += sum(map(len, before.values()))
    if old.read_bytes() == new.read_bytes():
        return
    told = len(found.differences) + len(found.new)
    found.new += [f"{at} {name}" for name in after if name not in before]
    for name, cells in before.items():
        if name not in after:
            found.differences.append(f"{at} {name}: missing")
        elif len(cells) != len(after[name]):
            found.differences.append(f"{at} {name}: {len(cells)} -> {len(after[name])} rows")
        else:
            found.differences += [
                f"{at} {name} row {row}: {first} -> {second}"
                for row, (first, second) in enumerate(zip(cells, after[name], strict=True))
                if first != second
            ]
    if told == len(found.differences) + len(found.new):
        found.differences.append(f"{at}: the cells are the same, the bytes are not")


def _columns(path: Path) -> dict[str, Sequence[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    return {name: [row[column] for row in rows] for column, name in enumerate(header)}


def compare_arrays(old: Arrays, new: Arrays, at: str, found: Found) -> None:
    """Compare arrays bit by bit."""
    found.new += [f"{at} {name}" for name in new if name not in old]
    for name, first in old.items():
        second = new.get(name)
        found.values += first.size
        if second is None:
            found.differences.append(f"{at} {name}: missing")
        elif (first.dtype, first.shape) != (second.dtype, second.shape):
            kinds = [f"{array.dtype}{list(array.shape)}" for array in (first, second)]
            found.differences.append(f"{at} {name}: {kinds[0]} -> {kinds[1]}")
        elif first.tobytes() != second.tobytes():
            changed = sum(
                a.tobytes() != b.tobytes() for a, b in zip(first.flat, second.flat, strict=True)
            )
            found.differences.append(f"{at} {name}: {changed} of {first.size} values differ")


def _arrays(path: Path) -> Arrays:
    """The arrays of a file by name; of a model, its weights."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    if path.suffix == ".safetensors":
        return dict(load_file(path))
    graph = onnx.load(path).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
