"""Options for reading the data."""

from dataclasses import dataclass
from pathlib import Path

from audit.options.option import option
from audit.values import path_of, size


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading the data.

    Attributes:
        resize: (height, width) in pixels that image files are resized and cropped to, or None.
        class_map: file that maps class names to indices, or None.
    """

    resize: tuple[int, int] | None = option(
        "--resize",
        default=None,
        read=size,
        metavar="HxW",
        help="Resize image files and crop them at the centre.",
    )
    class_map: Path | None = option(
        "--class-map",
        default=None,
        read=path_of,
        metavar="FILE",
        fallback="names in alphabetical order",
        help="File that maps class names to indices: JSON, CSV, or one name per line.",
    )
