"""Encoded images in files or tables as a `Dataset`: headers are read once, pixels on demand."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audit.data.dataset import Dataset, Manifest, StoredSamples, assemble
from audit.data.images import PALETTE_MODES, Header, Source, decode, read_image_header
from audit.data.pixels import scaled
from audit.errors import DataError

Sources = Callable[[NDArray[np.int64]], Iterator[tuple[int, Source]]]
"""Function from rows (n,) to pairs, in any order: position among the n rows, and image."""


@dataclass(frozen=True)
class EncodedImages:
    """Encoded images in the order of the rows, at least one.

    Attributes:
        everything: all images; iterated over once to read their headers.
        of_rows: function from rows to their images.
        name: function from a row to the name of its image in messages.
    """

    everything: Iterable[Source]
    of_rows: Sources
    name: Callable[[int], str]


@dataclass(frozen=True)
class ImageKind:
    """Images with the same header: the first row that has it, and their number."""

    header: Header
    first: int
    count: int


@dataclass(frozen=True)
class Conversion:
    """A conversion that some images need: a condition on header and channels, and a sentence."""

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


def from_encoded(images: EncodedImages, manifest: Manifest) -> Dataset:
    """Make a `Dataset` from encoded images; without `channels`, it has 1 or 3 as the first image.

    Raises:
        DataError: an image is unreadable, or sizes differ and no `resize` is given.
    """
    options = manifest.options
    kinds = survey_images(images.everything)
    channels = options.channels or (1 if kinds[0].header.grey else 3)
    height, width = options.resize or common_size(manifest.path, kinds, images.name)
    shape = (channels, height, width)

    def fetch(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        x = np.empty((len(rows), *shape), dtype=np.float32)
        for position, source in images.of_rows(rows):
            pixels = decode(source, channels, options.resize)
            if pixels.shape != shape:
                raise DataError(f"{source} has changed since it was opened; reopen it.")
            x[position] = scaled(pixels, options.low, options.high)
        return x

    return assemble(
        manifest.noting(*conversions(kinds, channels), *resizing(kinds, options.resize)),
        StoredSamples(sum(kind.count for kind in kinds), shape, fetch),
    )


def survey_images(sources: Iterable[Source]) -> list[ImageKind]:
    """Return the kinds of images in order of first appearance; no pixel is decoded."""
    found: dict[Header, tuple[int, int]] = {}
    for row, source in enumerate(sources):
        header = read_image_header(source)
        first, count = found.get(header, (row, 0))
        found[header] = (first, count + 1)
    return [ImageKind(header, first, count) for header, (first, count) in found.items()]


def common_size(
    path: Path, kinds: Sequence[ImageKind], name: Callable[[int], str]
) -> tuple[int, int]:
    """Return the (height, width) that all images have.

    Raises:
        DataError: sizes differ; states two images with their sizes.
    """
    first = kinds[0].header
    for kind in kinds:
        header = kind.header
        if (header.height, header.width) != (first.height, first.width):
            raise DataError(
                f"{path}: images differ in size: {name(0)} is {first.height}x{first.width}, "
                f"{name(kind.first)} is {header.height}x{header.width} (height x width). "
                "Pass --resize HxW with the size that the model expects."
            )
    return first.height, first.width


def conversions(kinds: Sequence[ImageKind], channels: int) -> tuple[str, ...]:
    """Return a sentence for each conversion needed, with the number of images that need it."""
    counted = (
        (
            sum(kind.count for kind in kinds if conversion.applies(kind.header, channels)),
            conversion.sentence,
        )
        for conversion in CONVERSIONS
    )
    total = sum(kind.count for kind in kinds)
    return tuple(f"{count} of {total} images {sentence}" for count, sentence in counted if count)


def resizing(kinds: Sequence[ImageKind], resize: tuple[int, int] | None) -> tuple[str, ...]:
    """Return the sentence about resizing, if any image has another size."""
    if resize is None:
        return ()
    count = sum(kind.count for kind in kinds if (kind.header.height, kind.header.width) != resize)
    if not count:
        return ()
    height, width = resize
    total = sum(kind.count for kind in kinds)
    return (
        f"{count} of {total} images were resized (shorter side, bicubic with antialiasing) "
        f"and cropped at the centre to {height}x{width}.",
    )
