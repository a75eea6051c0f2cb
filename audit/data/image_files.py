"""A list of labelled image files as a `Dataset` that decodes only the rows asked for.

On opening, every file is hashed and its header read: mixed sizes and unreadable files are found
before any work is done, and 50,000 images need a few megabytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audit.data.dataset import Dataset, Options
from audit.data.image_rows import from_sources
from audit.data.images import Source
from audit.errors import NothingToEvaluate


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One row: the file's name as the user sees it, and the folder it is relative to.

    A `Path` is made when it is needed: kept for every row it would be most of the memory used.
    """

    name: str
    folder: Path

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.folder / self.name


def open_images(
    path: Path,
    files: Sequence[ImageFile],
    labels: NDArray[np.int64],
    *,
    sha256: str,
    options: Options,
    class_names: tuple[str, ...] | None,
    notes: tuple[str, ...],
) -> Dataset:
    """A `Dataset` over image files.

    Args:
        path: the folder or list, as the user gave it.
        files: one per sample.
        labels: (N,).
        sha256: digest of everything read.
        options: `channels` None means 1 or 3, as the first image has.
        class_names: see `Dataset`.
        notes: conversions already made.

    Raises:
        DataError: an image is unreadable, or sizes differ and no `resize` is given.
        NothingToEvaluate: there is no file.
    """
    if not files:
        raise NothingToEvaluate(f"{path} holds no samples: no image file was found.")

    def sources(rows: NDArray[np.int64]) -> Iterator[tuple[int, Source]]:
        for position, row in enumerate(rows):
            yield position, files[row].path

    return from_sources(
        path,
        (file.path for file in files),
        sources,
        labels,
        name=lambda row: files[row].name,
        sha256=sha256,
        options=options,
        class_names=class_names,
        notes=notes,
    )
