"""A folder with one sub-folder of images per class."""

from pathlib import Path

import numpy as np

from audit.data.dataset import Dataset, Options
from audit.data.digest import sha256_named
from audit.data.image_files import ImageFile, open_images
from audit.data.images import SUFFIXES
from audit.data.wording import brief
from audit.errors import DataError


def is_folder(path: Path) -> bool:
    """Whether the path is a folder."""
    return path.is_dir()


def open_folder(path: Path, options: Options) -> Dataset:
    """Images in class folders; sub-folder names that are all integers are the labels themselves.

    Otherwise class k is the k-th name in sorted order. Images may lie deeper inside a class folder.

    Raises:
        DataError: there are no class folders, or an image cannot be read.
        NothingToEvaluate: the class folders hold no images.
    """
    folders = class_folders(path)
    names = [folder.name for folder in folders]
    numbered = all(name.isascii() and name.isdigit() for name in names)
    files: list[ImageFile] = []
    labels: list[int] = []
    ignored = 0
    for position, folder in enumerate(folders):
        found = [file for file in sorted(folder.rglob("*")) if visible_file(file, folder)]
        images = [file for file in found if file.suffix.lower() in SUFFIXES]
        ignored += len(found) - len(images)
        files += [ImageFile(file.relative_to(path).as_posix(), file) for file in images]
        labels += [int(folder.name) if numbered else position] * len(images)

    if numbered:
        notes = ["Sub-folder names are integers and were taken as the labels."]
    else:
        shown = brief(", ".join(names))
        notes = [f"Classes are the {len(names)} sub-folders in sorted order: {shown}"]
    if ignored:
        notes.append(f"{ignored} files that are not images were ignored.")
    return open_images(
        path,
        files,
        np.array(labels, dtype=np.int64),
        sha256=sha256_named((file.name, file.path) for file in files),
        options=options,
        class_names=None if numbered else tuple(names),
        notes=tuple(notes),
    )


def class_folders(path: Path) -> list[Path]:
    """The sub-folders, sorted by name (by number where all names are integers).

    Raises:
        DataError: there are none, or the folder is rather a list of files with its images.
    """
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    folders = [entry for entry in entries if entry.is_dir()]
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
    return folders


def visible_file(file: Path, folder: Path) -> bool:
    """Whether it is a file, and no part of its path inside the folder is hidden."""
    parts = file.relative_to(folder).parts
    return file.is_file() and not any(part.startswith(".") for part in parts)
