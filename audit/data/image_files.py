"""A list of labelled image files as a `Dataset` that decodes only the rows asked for.

On opening, every file is hashed and its header read: mixed sizes and unreadable files are found
before any work is done, and 50,000 images need a few megabytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audit.data.dataset import Dataset, Options, assemble
from audit.data.images import PALETTE_MODES, Header, decode, read_header
from audit.data.pixels import scaled
from audit.errors import DataError, NothingToEvaluate


@dataclass(frozen=True)
class ImageFile:
    """One row: the file's name as the user sees it, and where it is."""

    name: str
    path: Path


@dataclass(frozen=True)
class Conversion:
    """A conversion that some images need: which ones, and the sentence that states it."""

    applies: Callable[[Header, int], bool]
    sentence: str


CONVERSIONS = (
    Conversion(lambda h, c: h.grey and c >= 3, "are greyscale; repeated to 3 channels."),
    Conversion(
        lambda h, c: not h.grey and c == 1,
        "are in colour; converted to greyscale (luma of ITU-R 601).",
    ),
    Conversion(lambda h, c: h.alpha and c < 4, "have transparency; it was dropped."),
    Conversion(lambda h, c: not h.alpha and c == 4, "have no transparency; made opaque."),
    Conversion(lambda h, _: h.mode in PALETTE_MODES, "have a palette; colours looked up in it."),
    Conversion(lambda h, _: h.deep, "have 16 bits per pixel; 65535 is mapped to high."),
    Conversion(lambda h, _: h.reduced, "have 16 bits per colour; reduced to 8."),
    Conversion(
        lambda h, _: h.mode in {"CMYK", "YCbCr", "LAB", "HSV"},
        "are stored as CMYK, YCbCr, LAB or HSV; converted to RGB.",
    ),
)


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
    headers = [read_header(file.path) for file in files]
    channels = options.channels or (1 if headers[0].grey else 3)
    height, width = options.resize or common_size(path, files, headers)
    shape = (channels, height, width)

    def fetch(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        x = np.empty((len(rows), *shape), dtype=np.float32)
        for position, row in enumerate(rows):
            pixels = decode(files[row].path, channels, options.resize)
            if pixels.shape != shape:
                raise DataError(f"{files[row].path} has changed since it was opened; start again.")
            x[position] = scaled(pixels, options.low, options.high)
        return x

    return assemble(
        str(path),
        sha256=sha256,
        labels=labels,
        samples=len(files),
        shape=shape,
        options=options,
        fetch=fetch,
        class_names=class_names,
        notes=(*notes, *conversions(headers, channels), *resizing(headers, options.resize)),
    )


def common_size(
    path: Path, files: Sequence[ImageFile], headers: Sequence[Header]
) -> tuple[int, int]:
    """(height, width) of all images.

    Raises:
        DataError: they differ; names two files with their sizes.
    """
    first = headers[0]
    for file, header in zip(files, headers, strict=True):
        if (header.height, header.width) != (first.height, first.width):
            raise DataError(
                f"{path}: images differ in size: {files[0].name} is {first.height}x{first.width}, "
                f"{file.name} is {header.height}x{header.width} (height x width). "
                "Pass --resize HxW with the size that the model expects."
            )
    return first.height, first.width


def conversions(headers: Sequence[Header], channels: int) -> tuple[str, ...]:
    """A sentence for each conversion that at least one image needs, with the number of images."""
    counted = (
        (sum(conversion.applies(header, channels) for header in headers), conversion.sentence)
        for conversion in CONVERSIONS
    )
    total = len(headers)
    return tuple(f"{count} of {total} images {sentence}" for count, sentence in counted if count)


def resizing(headers: Sequence[Header], resize: tuple[int, int] | None) -> tuple[str, ...]:
    """The sentence about resizing, where any image has another size."""
    if resize is None:
        return ()
    count = sum((header.height, header.width) != resize for header in headers)
    if not count:
        return ()
    height, width = resize
    return (
        f"{count} of {len(headers)} images were resized (shorter side, bicubic with antialiasing) "
        f"and cropped at the centre to {height}x{width}.",
    )
