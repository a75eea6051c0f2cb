"""A folder with one sub-folder of images per class."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audit.data.classes import ClassMap, by_map, list_classes
from audit.data.dataset import Dataset, Manifest, Options
from audit.data.digest import sha256_named
from audit.data.image_files import ImageFile, open_images
from audit.data.images import IMAGE_SUFFIXES
from audit.data.splits import is_split
from audit.errors import DataError


def is_folder(path: Path) -> bool:
    """Return whether the path is a folder."""
    return path.is_dir()


def open_folder(path: Path, options: Options) -> Dataset:
    """Open images in class folders; if all folder names are integers, they are the labels.

    Otherwise the class map gives the indices, or the sorted order of the names does. Images may be
    in sub-folders of a class folder.

    Raises:
        DataError: there are no class folders, the class map lacks one, or an image is unreadable.
        NothingToEvaluate: the class folders contain no images.
    """
    names = class_folders(path)
    indices, class_names, note = number_folders(path, names, options.class_map)
    files: list[ImageFile] = []
    labels: list[NDArray[np.int64]] = []
    ignored = 0
    for name, index in zip(names, indices, strict=True):
        found = sorted(visible_files(path, name), key=lambda file: file.split("/"))
        images = [file for file in found if os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES]
        ignored += len(found) - len(images)
        files += [ImageFile(file, path) for file in images]
        labels.append(np.full(len(images), index, dtype=np.int64))

    notes = [note]
    if ignored:
        notes.append(f"{ignored} files that are not images were ignored.")
    manifest = Manifest(
        path=path,
        sha256=sha256_named((file.name, file.path) for file in files),
        labels=np.concatenate(labels),
        options=options,
        class_names=class_names,
        notes=tuple(notes),
    )
    opened = open_images(files, manifest)
    return replace(opened, folders=tuple(names) if class_names is None else ())


def class_folders(path: Path) -> list[str]:
    """Return the names of the sub-folders, sorted.

    Raises:
        DataError: there are no sub-folders, they are splits instead of classes, or the folder
            contains a list of files with its images.
    """
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    folders = [entry.name for entry in entries if entry.is_dir()]
    lists = [entry for entry in entries if entry.suffix.lower() == ".csv"]
    if lists and len(folders) <= 1:
        raise DataError(
            f"the folder {path} has no class folders, but {lists[0].name}; "
            f"pass {lists[0]} to use that list of files and labels."
        )
    if not folders:
        examples = ", ".join(entry.name for entry in entries[:3])
        raise DataError(
            f"the folder {path} has no sub-folders (found: {examples}); expected one sub-folder "
            "of images per class. Pass a file, or write a CSV of files and labels."
        )
    if all(is_split(name) for name in folders):
        raise DataError(
            f"the sub-folders of {path} are splits, not classes: {', '.join(folders)}; "
            f"pass one of them, e.g. {path / folders[0]}."
        )
    return folders


def number_folders(
    path: Path, names: list[str], class_map: ClassMap | None
) -> tuple[list[int], tuple[str, ...] | None, str]:
    """Return the index of each class folder, class names if known, and a note about them.

    Raises:
        DataError: the class map lacks a folder's name.
    """
    integers = all(name.isascii() and name.isdigit() for name in names)
    mapped = class_map is not None and any(name in class_map.index for name in names)
    if integers and not mapped:
        note = "Sub-folder names are integers and are used as the labels."
        return [int(name) for name in names], None, note
    if class_map is not None:
        numbering = by_map(names, lambda name: str(path / name), class_map)
        indices = [numbering.index[name] for name in names]
        return indices, numbering.class_names, numbering.notes[0]
    note = f"Classes are the {len(names)} sub-folders in sorted order: {list_classes(names)}."
    return list(range(len(names))), tuple(names), note


def visible_files(path: Path, name: str) -> Iterator[str]:
    """Yield all files below the sub-folder except hidden ones, relative to ``path``."""
    for folder, folders, files in os.walk(path / name):
        folders[:] = [inner for inner in folders if not inner.startswith(".")]
        inside = Path(folder).relative_to(path).as_posix()
        for file in files:
            if not file.startswith(".") and os.path.isfile(os.path.join(folder, file)):
                yield f"{inside}/{file}"
