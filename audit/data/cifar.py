"""The binary layout of CIFAR-10 and CIFAR-100: fixed-size records of label bytes and pixels.

CIFAR-10: 1 label byte, 3072 pixels (3073 bytes). CIFAR-100: a coarse and a fine label byte, 3072
pixels (3074 bytes); the fine label is used. Pixels are (3, 32, 32), channels first.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audit.data.arrays import from_array
from audit.data.dataset import Dataset, Manifest, Options
from audit.data.digest import sha256_of
from audit.errors import DataError

PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Layout:
    """Layout of a record: number of classes of each label byte (the last byte is the label)."""

    name: str
    classes: tuple[int, ...]

    @property
    def record(self) -> int:
        """Bytes per record."""
        return len(self.classes) + PIXELS

    def fits(self, data: NDArray[np.uint8]) -> bool:
        """Return whether the bytes are complete records whose label bytes are all in range."""
        if data.size % self.record:
            return False
        label_bytes = data.reshape(-1, self.record)[:, : len(self.classes)]
        return bool((label_bytes < np.array(self.classes)).all())


LAYOUTS = (Layout("CIFAR-10", (10,)), Layout("CIFAR-100", (20, 100)))


def is_cifar(path: Path) -> bool:
    """Return whether the file's name ends in ``.bin``."""
    return path.suffix.lower() == ".bin"


def open_cifar(path: Path, options: Options) -> Dataset:
    """Open images and (fine) labels in one binary file.

    Raises:
        DataError: the file does not consist of complete records, or labels are out of range.
    """
    data = np.fromfile(path, dtype=np.uint8)
    layout = next((layout for layout in LAYOUTS if layout.fits(data)), None)
    if layout is None:
        raise DataError(
            f"{path}: {data.size} bytes are neither complete CIFAR-10 records (3073 bytes, "
            "label below 10) nor complete CIFAR-100 records (3074 bytes, labels below 20 and "
            "100); the file is truncated or of another kind."
        )
    records = data.reshape(-1, layout.record)
    count = len(layout.classes)
    labels = records[:, count - 1].astype(np.int64)
    manifest = Manifest(path, sha256_of(path), labels, options)
    return from_array(
        records[:, count:].reshape(-1, 3, 32, 32),
        manifest.noting(f"Read as {layout.name} records."),
    )
