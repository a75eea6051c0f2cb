"""Samples that lie in memory as one array: read as images where their shape says so."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.data.dataset import Dataset, Manifest, StoredSamples, assemble
from audit.data.pixels import check_dtype, scaled
from audit.data.wording import brief
from audit.errors import DataError

CHANNELS = (1, 3, 4)

LARGEST_ARRAY_BYTES = 16 << 30
"""Decompressed size of an array above which a file is refused: a compressed file of a few
megabytes can claim any size, and more than this does not fit a common machine anyway."""


def from_array(x: NDArray[Any], manifest: Manifest) -> Dataset:
    """Make a `Dataset` over an array, which keeps its own type until rows are read.

    Args:
        x: (N, ...) bool, uint8, uint16 or floating.
        manifest: everything but the samples.

    Raises:
        DataError: x cannot be read as samples, or not with the channels or size asked for.
        NothingToEvaluate: there is no sample.
    """
    path, options = manifest.path, manifest.options
    check_dtype(x.dtype, f"{path}: x")
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise DataError(
            f"{path}: x has shape {x.shape}; expected (N, ...), N samples of at least one value."
        )
    x, image_notes = channels_first(x)
    copies, channel_notes = channel_copies(path, x.shape[1:], options.channels)
    refuse_resize(path, x.shape[1:], options.resize)

    def fetch(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        values = np.ascontiguousarray(scaled(x[rows], options.low, options.high))
        return np.repeat(values, copies, axis=1) if copies > 1 else values

    shape = (x.shape[1] * copies, *x.shape[2:])
    return assemble(
        manifest.noting(*image_notes, *channel_notes), StoredSamples(len(x), shape, fetch)
    )


def channels_first(x: NDArray[Any]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """(N, H, W) as (N, 1, H, W), (N, H, W, C) as (N, C, H, W), anything else as it is."""
    if x.ndim == 3:
        return x[:, np.newaxis], ("x was (N, H, W); read as images of one channel.",)
    if x.ndim == 4 and x.shape[3] in CHANNELS and x.shape[1] not in CHANNELS:
        note = "x was (N, H, W, C); read as channels-last images and moved to (N, C, H, W)."
        return np.moveaxis(x, 3, 1), (note,)
    return x, ()


def channel_copies(
    path: Path, shape: tuple[int, ...], channels: int | None
) -> tuple[int, tuple[str, ...]]:
    """How often the one channel of a greyscale image is repeated to have ``channels`` of them.

    Returns:
        1 where nothing is to be done (also for samples that are not images), and the notes.

    Raises:
        DataError: the images have another number of channels than asked for, and not one.
    """
    if channels is None or len(shape) != 3 or shape[0] == channels:
        return 1, ()
    if shape[0] == 1 and channels == 3:
        return 3, ("Greyscale images were repeated to 3 channels.",)
    raise DataError(
        f"{path}: images have {shape[0]} channels, {channels} are asked for; "
        "convert them before storing them."
    )


def refuse_resize(path: Path, shape: tuple[int, ...], resize: tuple[int, int] | None) -> None:
    """Raise where a size is asked for that the array does not have: only files are resized."""
    if resize is not None and shape[-2:] != resize:
        raise DataError(
            f"{path}: --resize {resize[0]}x{resize[1]} applies to image files only, and these "
            f"samples have shape {shape}; resize them before storing them."
        )


def checked_bytes(path: Path, shape: tuple[int, ...], itemsize: int) -> int:
    """Bytes of an array as its header claims it, in exact arithmetic.

    Raises:
        DataError: more than `LARGEST_ARRAY_BYTES`.
    """
    size = itemsize
    for length in shape:
        size *= length
    if size > LARGEST_ARRAY_BYTES:
        raise DataError(
            f"{path}: an array of shape {brief(shape)} needs more than "
            f"{LARGEST_ARRAY_BYTES >> 30} GiB; "
            "the file is damaged, or store fewer samples, or image files in class folders, which "
            "are read one by one."
        )
    return size
