"""One image file: facts from its header, and its pixels as (C, H, W) integers.

Only the first frame of an animation is read. The orientation in EXIF is not applied, as in common
training pipelines.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from audit.data.wording import brief
from audit.errors import DataError

IMAGE_SUFFIXES = {
    suffix: decoder
    for decoder, suffixes in {
        "PNG": (".png",),
        "JPEG": (".jpg", ".jpeg", ".jpe"),
        "BMP": (".bmp",),
        "GIF": (".gif",),
        "WEBP": (".webp",),
        "TIFF": (".tif", ".tiff"),
        "PPM": (".ppm", ".pgm", ".pbm"),
    }.items()
    for suffix in suffixes
}
"""File suffix -> decoder. Pillow's other decoders are disabled: some start external programs."""

GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"}
DEEP_MODES = {"I", "I;16", "I;16B", "I;16L", "I;16N"}
ALPHA_MODES = {"LA", "La", "PA", "RGBA", "RGBa"}
PALETTE_MODES = {"P", "PA"}
MODE_OF_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image file in memory, e.g. from a cell of a table.

    Attributes:
        name: name in messages.
        content: bytes of the file.
    """

    name: str
    content: bytes = field(repr=False)

    def __str__(self) -> str:
        return self.name


Source = Path | Encoded


@dataclass(frozen=True)
class Header:
    """Properties of an image that are known before its pixels are decoded.

    Attributes:
        height: in pixels.
        width: in pixels.
        mode: Pillow's name of the pixel type, e.g. ``RGB``.
        alpha: whether the image has transparency.
        reduced: whether Pillow will reduce 16-bit colour to 8 bits.
    """

    height: int
    width: int
    mode: str
    alpha: bool
    reduced: bool

    @property
    def grey(self) -> bool:
        """Whether the image has one channel, not counting transparency."""
        return self.mode in GREY_MODES

    @property
    def deep(self) -> bool:
        """Whether the pixels are integers up to 65535."""
        return self.mode in DEEP_MODES


@contextmanager
def opened(source: Source) -> Iterator[ImageFile.ImageFile]:
    """Open an image from a file or memory; errors while it is in use become `DataError`s."""
    try:
        with warnings.catch_warnings():
            # Warnings about damaged metadata and dropped transparency do not help the user.
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            file = io.BytesIO(source.content) if isinstance(source, Encoded) else source
            with Image.open(file, formats=sorted(set(IMAGE_SUFFIXES.values()))) as image:
                yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{source}: the image claims more than {Image.MAX_IMAGE_PIXELS} pixels, as a file made "
            "to exhaust memory would; remove it, or reduce its size."
        ) from error
    # Pillow's decoders report damage by any of these.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise DataError(
            f"{source} is not a readable image ({brief(error)}); repair or remove it."
        ) from error


def read_image_header(source: Source) -> Header:
    """Read size and pixel type without decoding the image.

    Raises:
        DataError: the image is unreadable, or its pixels are 32-bit floats, whose range is unknown.
    """
    with opened(source) as image:
        if image.mode == "F":
            raise DataError(f"{source}: pixels are floats; store such samples as .npz.")
        return Header(
            height=image.height,
            width=image.width,
            mode=image.mode,
            alpha=image.mode in ALPHA_MODES or "transparency" in image.info,
            reduced=image.mode not in DEEP_MODES and _sixteen_bit(image),
        )


def _sixteen_bit(image: ImageFile.ImageFile) -> bool:
    """Return whether the file's raw pixel type, e.g. ``RGB;16B``, has 16 bits per channel."""
    for tile in image.tile:
        arguments = (tile.args,) if isinstance(tile.args, str) else (tile.args or ())
        if any(isinstance(argument, str) and ";16" in argument for argument in arguments):
            return True
    return False


def decode(source: Source, channels: int, resize: tuple[int, int] | None) -> NDArray[Any]:
    """Decode the pixels of one image.

    Args:
        source: the file.
        channels: 1, 3 or 4; colour becomes grey by the luma of ITU-R 601, grey is repeated,
            transparency is dropped unless 4 channels are requested.
        resize: (H, W) to resize and crop to, see `cover`; None: no change of size.

    Returns:
        (channels, H, W) uint8, or uint16 if the file has 16-bit greyscale.

    Raises:
        DataError: the file is damaged, or a pixel exceeds 65535.
    """
    with opened(source) as image:
        if image.mode in DEEP_MODES:
            return _repeated(_deep(source, image, resize), channels)
        pixels = cover(image.convert(MODE_OF_CHANNELS[channels]), resize)
        array = np.asarray(pixels)
    return array[np.newaxis] if array.ndim == 2 else np.moveaxis(array, 2, 0)


def _deep(source: Source, image: Image.Image, resize: tuple[int, int] | None) -> NDArray[np.uint16]:
    """Return a 16-bit greyscale image as (H, W) uint16, resized in floating point."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(
            f"{source}: pixels span {values.min()}..{values.max()}, expected 0..65535; "
            "store such samples as .npz, as floats in [low, high]."
        )
    if resize is None:
        return values.astype(np.uint16)
    resized = cover(Image.fromarray(values.astype(np.float32)), resize)
    rounded: NDArray[np.float32] = np.rint(np.asarray(resized))
    return np.clip(rounded, 0, 65535).astype(np.uint16)


def _repeated(grey: NDArray[np.uint16], channels: int) -> NDArray[np.uint16]:
    """Repeat (H, W) to (1 or 3, H, W), with an opaque fourth channel if 4 are requested."""
    colour = np.repeat(grey[np.newaxis], min(channels, 3), axis=0)
    if channels < 4:
        return colour
    return np.concatenate([colour, np.full_like(colour[:1], 65535)])


def cover(image: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    """Resize (bicubic, antialiased) to the smallest size that covers (H, W), then crop its centre.

    For a square size, the shorter side is resized to it.

    Raises:
        DataError: the image is so elongated that the intermediate image would exhaust memory.
    """
    if size is None or size == (image.height, image.width):
        return image
    height, width = size
    scale = max(height / image.height, width / image.width)
    full = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    if Image.MAX_IMAGE_PIXELS is not None and full[0] * full[1] > Image.MAX_IMAGE_PIXELS:
        raise DataError(
            f"an image of {image.height}x{image.width} cannot be resized to cover "
            f"{height}x{width}: it is too elongated; crop it first."
        )
    resized = image.resize(full, Image.Resampling.BICUBIC)
    left, top = (full[0] - width) // 2, (full[1] - height) // 2
    return resized.crop((left, top, left + width, top + height))
