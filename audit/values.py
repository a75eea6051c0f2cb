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
    word = text.strip().lower()
    if word in ("inf", "infinity"):
        return math.inf
    try:
        # A fraction would compute 1e999999999 digit by digit; a float overflows at once.
        value = float(Fraction(word)) if "/" in word else float(word)
    except (ValueError, ZeroDivisionError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(
            f"{option} takes numbers or fractions such as 0.1 or 8/255, found {text!r}."
        )
    return value


def names(values: Sequence[str] | None, option: str) -> tuple[str, ...] | None:
    """Read a list of names, each once; None where the option was not given.

    Raises:
        UsageError: the option was given without a value, as an unset shell variable does.
    """
    found = tuple(dict.fromkeys(split(values)))
    if not all(split([value]) for value in values or ()):
        raise UsageError(f"{option} was given without a value: give one, or leave it out.")
    return found or None


def numbers(values: Sequence[str] | None, option: str) -> tuple[float, ...] | None:
    """Read a list of numbers; None where the option was not given."""
    names(values, option)
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


def order_name(order: float) -> str:
    """Write an order as the report does: ``inf``, ``2``, ``1.5``; all its digits."""
    return repr(order).removesuffix(".0")
