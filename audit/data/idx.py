"""IDX, the format of MNIST: a header with type and dimensions, then big-endian values.

Layout (LeCun, Cortes, Burges): two zero bytes, a type code, the number of dimensions, each
dimension as uint32, the payload. Files may be gzip-compressed, which is detected by content.
"""

import gzip
import re
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from audit.data.arrays import checked_bytes, from_array
from audit.data.dataset import Dataset, Manifest, Options
from audit.data.digest import sha256_of
from audit.data.labels import as_labels
from audit.data.wording import brief
from audit.errors import DataError

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MOST_DIMENSIONS = 8
GZIP_MAGIC = b"\x1f\x8b"
NAME = re.compile(r"(idx\d?|ubyte)(\.gz)?$|\.gz$", re.IGNORECASE)


def is_idx(path: Path) -> bool:
    """Return whether the file's name is one that IDX files have."""
    return NAME.search(path.name) is not None


def open_idx(path: Path, options: Options) -> Dataset:
    """Open images in an IDX file, and labels in the IDX file next to it.

    Raises:
        DataError: a file is not IDX or is truncated, or there is no labels file.
        NothingToEvaluate: there is no image.
    """
    x = read_idx(path)
    if x.ndim == 1:
        raise DataError(
            f"{path} holds one number per sample: it is a labels file. "
            "Pass the images file; labels are found next to it."
        )
    labels_path = find_labels(path)
    labels = as_labels(read_idx(labels_path), str(labels_path))
    return from_array(x, Manifest(path, sha256_of(path, labels_path), labels, options))


def find_labels(images: Path) -> Path:
    """Return the labels file that belongs to an images file, compressed or not.

    Raises:
        DataError: it does not exist; the message contains the expected names.
    """
    stem = images.name.removesuffix(".gz")
    name = re.sub(r"idx\d", "idx1", stem).replace("images", "labels").replace("Images", "Labels")
    suffixes = (".gz", "") if images.name.endswith(".gz") else ("", ".gz")
    names = [name + suffix for suffix in suffixes]
    for candidate in names:
        if name != stem and images.with_name(candidate).is_file():
            return images.with_name(candidate)
    looked = " or ".join(names) if name != stem else "a name with 'labels' in place of 'images'"
    raise DataError(
        f"no labels for {images}: looked for {looked} in {images.parent}. "
        "Put the labels file next to the images."
    )


def read_idx(path: Path) -> NDArray[Any]:
    """Return the array in an IDX file, read-only, in the file's byte order.

    Raises:
        DataError: the file is not IDX, is truncated, or is longer than its header states.
    """
    with path.open("rb") as raw:
        compressed = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        if not compressed:
            return _parse(raw, path)
        try:
            with gzip.GzipFile(fileobj=raw) as stream:
                return _parse(stream, path)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{path} is truncated or damaged ({brief(error)}); download it again."
            ) from error


def _parse(stream: BinaryIO | gzip.GzipFile, path: Path) -> NDArray[Any]:
    """Read the header, then exactly as many bytes as the header states."""
    magic = stream.read(4)
    if (
        len(magic) < 4
        or magic[:2] != b"\0\0"
        or magic[2] not in TYPES
        or not 1 <= magic[3] <= MOST_DIMENSIONS
    ):
        raise DataError(
            f"{path} is not an IDX file: it starts with 0x{magic.hex()}, expected 0x0000, "
            "a type code and the number of dimensions."
        )
    ndim = magic[3]
    header = stream.read(4 * ndim)
    if len(header) < 4 * ndim:
        raise DataError(f"{path} is truncated: it ends inside its header; download it again.")
    shape: tuple[int, ...] = struct.unpack(f">{ndim}I", header)
    dtype = np.dtype(TYPES[magic[2]])
    expected = checked_bytes(path, shape, dtype.itemsize)
    payload = stream.read(expected)
    if len(payload) < expected or stream.read(1):
        found = f"{len(payload)}" if len(payload) < expected else "more"
        raise DataError(
            f"{path}: its header states {expected} bytes for shape {shape}, found {found}; "
            "the file is truncated or damaged, download it again."
        )
    return np.frombuffer(payload, dtype=dtype).reshape(shape)
