"""Samples in memory as one array, read as images where their shape is that of images."""

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
"""Decompressed size in bytes above which an array is refused.

A compressed file of a few megabytes can claim any size; larger arrays do not fit into the memory of
a common machine.
"""


def from_array(x: NDArray[Any], manifest: Manifest) -> Dataset:
    """Make a `Dataset` from an array, which keeps its type until rows are read.

    Args:
        x: (N, ...) bool, uint8, uint16 or floating.
        manifest: everything except the samples.

    Raises:
        DataError: x cannot be read as samples, or not with the requested channels or size.
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
    """Return images as (N, C, H, W), with a note if x was (N, H, W) or (N, H, W, C).

    Arrays of any other shape are returned unchanged.
    """
    if x.ndim == 3:
        return x[:, np.newaxis], ("x was (N, H, W); read as images of one channel.",)
    if x.ndim == 4 and x.shape[3] in CHANNELS and x.shape[1] not in CHANNELS:
        note = "x was (N, H, W, C); read as channels-last images and moved to (N, C, H, W)."
        return np.moveaxis(x, 3, 1), (note,)
    return x, ()


def channel_copies(
    path: Path, shape: tuple[int, ...], channels: int | None
) -> tuple[int, tuple[str, ...]]:
    """Return how often the channel of a greyscale image is repeated to make ``channels`` channels.

    Returns:
        The number of copies, 1 if no change is needed or samples are not images; and the notes.

    Raises:
        DataError: the images have neither the requested number of channels nor a single one.
    """
    if channels is None or len(shape) != 3 or shape[0] == channels:
        return 1, ()
    if shape[0] == 1 and channels == 3:
        return 3, ("Greyscale images were repeated to 3 channels.",)
    raise DataError(
        f"{path}: images have {shape[0]} channels, but {channels} are requested; "
        "convert the images before storing them."
    )


def refuse_resize(path: Path, shape: tuple[int, ...], resize: tuple[int, int] | None) -> None:
    """Raise if the requested size is not that of the array: only image files are resized."""
    if resize is not None and shape[-2:] != resize:
        raise DataError(
            f"{path}: --resize {resize[0]}x{resize[1]} applies to image files only, and these "
            f"samples have shape {shape}; resize them before storing them."
        )


def checked_bytes(path: Path, shape: tuple[int, ...], itemsize: int) -> int:
    """Return the size in bytes of an array as claimed by its header, in exact arithmetic.

    Raises:
        DataError: the size is larger than `LARGEST_ARRAY_BYTES`.
    """
    size = itemsize
    for length in shape:
        size *= length
    if size > LARGEST_ARRAY_BYTES:
        raise DataError(
            f"{path}: an array of shape {brief(shape)} needs more than "
            f"{LARGEST_ARRAY_BYTES >> 30} GiB; "
            "if the file is not damaged, store fewer samples, or store image files in class "
            "folders, which are read one by one."
        )
    return size
