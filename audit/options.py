"""Reading the values of command-line options: lists, fractions, sizes."""

import math
from collections.abc import Sequence
from fractions import Fraction

from audit.errors import UsageError


def split(values: Sequence[str] | None) -> tuple[str, ...]:
    """Flatten an option given with commas, repeatedly, or both."""
    return tuple(
        part.strip() for value in values or () for part in value.split(",") if part.strip()
    )


def number(text: str, option: str) -> float:
    """Read a number, a fraction such as ``8/255``, or ``inf``."""
    if text.strip().lower() in ("inf", "infinity"):
        return math.inf
    try:
        return float(Fraction(text.strip()))
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(
            f"{option} takes numbers or fractions such as 0.1 or 8/255, found {text!r}."
        ) from error


def numbers(values: Sequence[str] | None, option: str) -> tuple[float, ...] | None:
    """Read a list of numbers; None where the option was not given."""
    return tuple(number(text, option) for text in split(values)) or None


def count(text: str, option: str) -> int | None:
    """Read a positive whole number, or ``auto`` (None)."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{option} takes auto or a positive whole number, found {text!r}.")
    return int(text)


def size(text: str | None, option: str) -> tuple[int, int] | None:
    """Read an image size such as ``224x224`` or ``224``."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(p.isdecimal() and int(p) > 0 for p in parts):
        raise UsageError(f"{option} takes a size such as 224x224, found {text!r}.")
    height, width = int(parts[0]), int(parts[-1])
    return height, width
