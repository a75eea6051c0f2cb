"""Pixel values: integers are mapped to [low, high], floats are checked to be in that range."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.errors import DataError

WHITE: dict[str, int] = {"bool": 1, "uint8": 255, "uint16": 65535}
"""Integer types that are read as pixels, with the value that is mapped to `high`."""


def check_dtype(dtype: np.dtype[Any], what: str) -> None:
    """Raise `DataError` unless values of this type can be read as pixels."""
    if dtype.name in WHITE or dtype.kind == "f":
        return
    raise DataError(
        f"{what} has type {dtype.name}, whose range does not determine what black and white are; "
        "store uint8 (0..255), uint16 (0..65535) or floats in [low, high]."
    )


def scaled(values: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """Map integers v to ``low + (high − low)·v/white`` in float64; return floats unchanged.

    Args:
        values: any shape; bool, uint8, uint16 or floating.
        low: value of integer 0.
        high: value of the largest integer of the type.

    Returns:
        float32, same shape; a float too large for float32 becomes infinite (and is refused later).
    """
    white = WHITE.get(values.dtype.name)
    if white is None:
        with np.errstate(over="ignore"):
            return values.astype(np.float32)
    # A table with one entry per possible integer is exact and faster than per-pixel arithmetic.
    table = (low + (high - low) * (np.arange(white + 1) / white)).astype(np.float32)
    return table[values.astype(np.intp)]


def clip_inward(x: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """Clip to the float32 numbers inside [low, high].

    Rounding to float32 can leave the interval by half a unit in the last place (float32 of 0.1 is
    above 0.1). The judge tests the box in float64, so the bounds are rounded inward here.
    """
    least, most = np.float32(low), np.float32(high)
    if float(least) < low:
        least = np.nextafter(least, np.float32(np.inf))
    if float(most) > high:
        most = np.nextafter(most, np.float32(-np.inf))
    return np.clip(x, least, most)


def check_range(
    x: NDArray[np.float32], rows: NDArray[np.int64], path: str, low: float, high: float
) -> None:
    """Raise on samples with a value that is not finite or not in [low, high].

    Args:
        x: (n, *shape) samples.
        rows: (n,) row of each sample in the user's data.
        path: for the message.
        low: smallest permitted value.
        high: largest permitted value.

    Raises:
        DataError: a value is invalid; states the first such row, the value, the range and a remedy.
    """
    finite = np.isfinite(x)
    if not finite.all():
        position = tuple(np.argwhere(~finite)[0])
        raise DataError(
            f"{path}: row {rows[position[0]]} contains {x[position]}; "
            "every value must be a finite number. Remove or repair that sample."
        )
    outside = (x < np.float32(low)) | (x > np.float32(high))
    if outside.any():
        position = tuple(np.argwhere(outside)[0])
        raise DataError(
            f"{path}: row {rows[position[0]]} contains {x[position]:g}, outside "
            f"[{low:g}, {high:g}]; the values read span {x.min():g}..{x.max():g}. "
            + remedy(float(x.min()), float(x.max()))
        )


def remedy(least: float, most: float) -> str:
    """Return advice for data that spans [least, most] instead of the stated range."""
    if least >= 0 and 1 < most <= 255:
        return "It looks like 0..255: pass --low 0 --high 255, or store uint8."
    if least >= 0 and most <= 1:
        return "It looks like 0..1: pass --low 0 --high 1."
    if least >= -1 and most <= 1:
        return "It looks like -1..1: pass --low -1 --high 1."
    if -10 <= least < 0 and most <= 10:
        return (
            "It looks normalised: store the pixels before normalisation and pass --mean and --std."
        )
    return "Pass the true range of the pixels as --low and --high."
