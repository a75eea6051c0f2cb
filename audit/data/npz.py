"""NumPy archives with an array of samples and an array of labels; pickles are never loaded."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from audit.data.arrays import checked_bytes, from_array
from audit.data.dataset import Dataset, Manifest, Options
from audit.data.digest import sha256_of
from audit.data.labels import as_labels
from audit.data.wording import brief
from audit.errors import DataError

X_NAMES = ("x", "images", "x_test", "test_images", "data")
Y_NAMES = ("y", "labels", "y_test", "test_labels", "targets")


def is_npz(path: Path) -> bool:
    """Return whether the file's name ends in ``.npz``."""
    return path.suffix.lower() == ".npz"


def open_npz(path: Path, options: Options) -> Dataset:
    """Open samples and labels in an archive written by ``np.savez`` or ``np.savez_compressed``.

    Raises:
        DataError: the file is not such an archive, is damaged or pickled, or it is unclear which
            arrays are the samples and the labels.
        NothingToEvaluate: there is no sample.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.namelist()}
            x_name = choose_array(path, members, X_NAMES, "samples")
            y_name = choose_array(path, members, Y_NAMES, "labels")
            x = read_member(path, archive, members[x_name])
            y = read_member(path, archive, members[y_name])
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"{path} is not a readable .npz archive ({brief(error)}): it is truncated, damaged or "
            "of another kind. Write it with np.savez_compressed(path, x=images, y=labels)."
        ) from error
    used = f"Samples are the array '{x_name}', labels the array '{y_name}'."
    notes = () if (x_name, y_name) == ("x", "y") else (used,)
    labels = as_labels(y, f"{path}: {y_name}")
    return from_array(x, Manifest(path, sha256_of(path), labels, options, notes=notes))


def choose_array(path: Path, found: dict[str, str], names: tuple[str, ...], what: str) -> str:
    """Return the array of samples (or labels): the first name, or else the only known name.

    Raises:
        DataError: none of the names is found, or several are.
    """
    known = [name for name in found if name.lower() in names]
    if names[0] in known:
        return names[0]
    if len(known) == 1:
        return known[0]
    reason = (
        f"several arrays could be the {what}: {brief(known)}" if known else f"no array of {what}"
    )
    raise DataError(
        f"{path}: {reason}. Found {brief(sorted(found))}; expected '{names[0]}' "
        f"(or one of {', '.join(names[1:])})."
    )


def read_member(path: Path, archive: zipfile.ZipFile, member: str) -> NDArray[Any]:
    """Read one array, after comparing its header with the size of the archive's member.

    Raises:
        DataError: the array is a pickle, or its header does not match the payload.
    """
    try:
        with archive.open(member) as stream:
            shape, dtype, start = read_npy_header(stream)
            if dtype.hasobject:
                raise DataError(
                    f"{path}: array '{brief(member)}' holds Python objects (a pickle, which could "
                    "run code); store a plain numeric array."
                )
            expected = start + checked_bytes(path, shape, dtype.itemsize)
            found = archive.getinfo(member).file_size
            if expected != found:
                raise DataError(
                    f"{path}: the header of '{brief(member)}' states {expected} bytes, "
                    f"found {found}; the file is damaged, write it again."
                )
        with archive.open(member) as stream:
            # Reading the member to its end makes zipfile verify the checksum.
            return npy.read_array(stream, allow_pickle=False)
    except ValueError as error:
        raise DataError(
            f"{path}: '{brief(member)}' is not a NumPy array, or it is truncated ({brief(error)})."
        ) from error


def read_npy_header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Read an ``.npy`` header: shape, type, length in bytes; raise `ValueError` if invalid."""
    version = npy.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(stream)
    else:
        raise ValueError(f"version {version} of the .npy format; supported are 1.0 and 2.0")
    return shape, dtype, stream.tell()
