"""Table of the data formats, and the function that opens data of any of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from audit.data.cifar import is_cifar, open_cifar
from audit.data.class_map import read_class_map
from audit.data.csv_list import is_csv, open_csv
from audit.data.dataset import Dataset, Options
from audit.data.folder import is_folder, open_folder
from audit.data.idx import is_idx, open_idx
from audit.data.npz import is_npz, open_npz
from audit.data.parquet import is_parquet, open_parquet, shards_called
from audit.data.saved import is_saved, open_saved
from audit.data.wording import brief
from audit.errors import DataError


@dataclass(frozen=True)
class Format:
    """A data format: its description for messages, the paths it applies to, and its loader."""

    description: str
    claims: Callable[[Path], bool]
    load: Callable[[Path, Options], Dataset]


DATA_FORMATS = (
    Format("a folder written by datasets' save_to_disk", is_saved, open_saved),
    Format(".parquet files, or a folder of them (columns image, label)", is_parquet, open_parquet),
    Format("a folder with one sub-folder of images per class", is_folder, open_folder),
    Format(".csv (columns file, label)", is_csv, open_csv),
    Format(".npz (arrays x, y)", is_npz, open_npz),
    Format(".bin (CIFAR-10 or CIFAR-100 binary)", is_cifar, open_cifar),
    Format("IDX (*-idx3-ubyte, *-idx3-ubyte.gz)", is_idx, open_idx),
)


def open_data(
    path: Path,
    *,
    low: float,
    high: float,
    resize: tuple[int, int] | None = None,
    channels: int | None = None,
    class_map: Path | None = None,
) -> Dataset:
    """Open labelled data of any known format.

    Args:
        path: file or folder.
        low: smallest pixel value; integer pixels are mapped so that 0 becomes it.
        high: largest pixel value; 255 of uint8 (65535 of uint16) becomes it.
        resize: (height, width) in pixels to which image files are resized and cropped.
        channels: channels of an image (1, 3 or 4); None: as in the first image. It has no effect
            on samples that are not images.
        class_map: a file that gives class names their indices, see `audit.data.class_map`;
            None: names are numbered in sorted order.

    Raises:
        DataError: the path is missing, empty, of unknown format, or cannot be read.
        NothingToEvaluate: it contains no sample.
        UsageError: an argument is invalid.
    """
    classes = None if class_map is None else read_class_map(class_map)
    options = Options(low, high, resize, channels, classes)
    try:
        _check_present(path)
        return _format_of(path).load(path, options)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} holds text that is not UTF-8 ({brief(error)}); write it again."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {brief(error.strerror or error)}.") from error


def _check_present(path: Path) -> None:
    """Raise unless the path is a folder or file that is not empty, or the common name of shards."""
    if not path.exists():
        if shards_called(path):
            return
        raise DataError(f"{path} does not exist; pass the path of the data as --data.")
    if path.is_dir():
        if not any(path.iterdir()):
            raise DataError(f"the folder {path} is empty.")
    elif not path.is_file():
        raise DataError(f"{path} is neither a file nor a folder.")
    elif path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes); download or write it again.")


def _format_of(path: Path) -> Format:
    """Return the first format that applies to the path."""
    for candidate in DATA_FORMATS:
        if candidate.claims(path):
            return candidate
    known = "; ".join(candidate.description for candidate in DATA_FORMATS)
    raise DataError(f"{path}: unknown kind of data. Supported: {known}.")
