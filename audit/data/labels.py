"""Class labels of any integer type, converted to one (N,) int64 array."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.errors import DataError

LARGEST = np.iinfo(np.int64).max


def as_labels(values: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Return labels as int64.

    Args:
        values: (N,) or (N, 1); integers, or floats with integer values.
        where: file and array, for messages.

    Returns:
        (N,) int64.

    Raises:
        DataError: the shape is wrong, or a label is not an integer; states the row.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        advice = " If the rows are one-hot, store y.argmax(axis=1)." if values.ndim == 2 else ""
        raise DataError(
            f"{where} has shape {values.shape}; expected one class index per sample, (N,).{advice}"
        )
    if values.dtype.kind not in "biuf":
        raise DataError(
            f"{where} has type {values.dtype}; labels must be integers, the class indices from 0."
        )
    if values.dtype.kind == "f":
        _check_whole(values, where)
    if values.dtype == np.uint64 and values.size and values.max() > LARGEST:
        raise DataError(f"{where} contains {values.max()}, which is not a class index.")
    return values.astype(np.int64)


def _check_whole(values: NDArray[Any], where: str) -> None:
    """Raise unless every float is an integer below 2**53."""
    wrong = np.flatnonzero(~(np.isfinite(values) & (np.rint(values) == values)))
    if not wrong.size:
        wrong = np.flatnonzero(np.abs(values.astype(np.float64)) >= 2.0**53)
    if wrong.size:
        row = int(wrong[0])
        raise DataError(
            f"{where}: label {values[row]} in row {row} is not an integer; "
            "labels are class indices, counted from 0."
        )
