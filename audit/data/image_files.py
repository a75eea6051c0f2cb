"""A list of labelled image files as a `Dataset` that decodes only the requested rows.

When a list is opened, every file is hashed and its header is read, so mixed sizes and unreadable
files are found before any other work. 50,000 images need a few megabytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audit.data.dataset import Dataset, Manifest
from audit.data.image_rows import EncodedImages, from_encoded
from audit.data.images import Source
from audit.errors import NothingToEvaluate


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One row: the file's name as the user sees it, and the folder that contains it.

    A `Path` is made only when it is needed: one per row would take most of the memory used.
    """

    name: str
    folder: Path

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self.folder / self.name


def open_images(files: Sequence[ImageFile], manifest: Manifest) -> Dataset:
    """Make a `Dataset` from image files, one per sample.

    Raises:
        DataError: an image is unreadable, or sizes differ and no `resize` is given.
        NothingToEvaluate: there is no file.
    """
    if not files:
        raise NothingToEvaluate(f"{manifest.path} holds no samples: no image file was found.")

    def sources(rows: NDArray[np.int64]) -> Iterator[tuple[int, Source]]:
        for position, row in enumerate(rows):
            yield position, files[row].path

    everything = (file.path for file in files)
    return from_encoded(EncodedImages(everything, sources, lambda row: files[row].name), manifest)
