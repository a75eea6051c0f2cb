"""Readers of option values (words, lists, fractions, sizes), from text or from Python values.

Each function takes a value as a user gave it and the name of the option, for the message, and
raises `UsageError` if the value cannot be read.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from audit.errors import UsageError


def split(values: Any) -> tuple[Any, ...]:
    """Return a flat list of values given with commas, repeatedly, or both; None is empty."""
    return tuple(_parts(values))


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, str):
        yield from filter(None, map(str.strip, value.split(",")))
    elif isinstance(value, Iterable):
        for part in value:
            yield from _parts(part)
    elif value is not None:
        yield value


def number(value: Any, option: str) -> float:
    """Read a number, a fraction such as ``8/255``, or ``inf``."""
    found = math.nan
    if isinstance(value, str):
        word = value.strip().lower()
        if word in ("inf", "infinity"):
            return math.inf
        try:
            # Fraction would compute 1e999999999 digit by digit; float overflows immediately.
            found = float(Fraction(word)) if "/" in word else float(word)
        except (ValueError, ZeroDivisionError, OverflowError):
            found = math.nan
    elif hasattr(value, "__float__") and not isinstance(value, bool):
        found = float(value)
        if found == math.inf:
            return found
    if not math.isfinite(found):
        raise UsageError(
            f"{option} takes numbers or fractions such as 0.1 or 8/255, found {value!r}."
        )
    return found


def names(values: Any, option: str) -> tuple[str, ...] | None:
    """Read a list of names and drop repetitions; None if the option was not given.

    Raises:
        UsageError: the option has an empty value, for example from an unset shell variable.
    """
    found = tuple(dict.fromkeys(map(str, _filled(values, option))))
    return found or None


def numbers(values: Any, option: str) -> tuple[float, ...] | None:
    """Read a list of numbers; None if the option was not given."""
    return tuple(number(value, option) for value in _filled(values, option)) or None


def distinct_numbers(values: Any, option: str) -> tuple[float, ...] | None:
    """Read a list of numbers and drop repetitions; None if the option was not given."""
    return tuple(dict.fromkeys(numbers(values, option) or ())) or None


def _filled(values: Any, option: str) -> tuple[Any, ...]:
    """Flatten a list; raise `UsageError` if an entry is empty."""
    entries: Sequence[Any] = values if isinstance(values, list | tuple) else [values]
    for entry in entries:
        if entry is not None and not split(entry):
            raise UsageError(f"{option} was given without a value: give one, or leave it out.")
    return split(values)


def integer(value: Any, option: str) -> int:
    """Read a whole number."""
    try:
        if isinstance(value, bool) or (not isinstance(value, str) and value != int(value)):
            raise ValueError
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{option} takes a whole number, found {value!r}.") from None


def count(value: Any, option: str) -> int | None:
    """Read a positive whole number, or ``auto`` (None)."""
    if value == "auto":
        return None
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{option} takes auto or a positive whole number, found {value!r}.")
    return int(text)


def size(value: Any, option: str) -> tuple[int, int] | None:
    """Read an image size such as ``224x224``, ``224`` or ``(224, 224)``."""
    if value is None:
        return None
    parts = (
        list(map(str, value)) if isinstance(value, list | tuple) else str(value).lower().split("x")
    )
    if len(parts) not in (1, 2) or not all(p.isdecimal() and int(p) > 0 for p in parts):
        raise UsageError(f"{option} takes a size such as 224x224, found {value!r}.")
    height, width = int(parts[0]), int(parts[-1])
    return height, width


def word(value: Any, option: str) -> str:
    """Read a word."""
    if not isinstance(value, str):
        raise UsageError(f"{option} takes a word, found {value!r}.")
    return value


def switch(value: Any, option: str) -> bool:
    """Read whether a switch is on."""
    if not isinstance(value, bool):
        raise UsageError(f"{option} takes true or false, found {value!r}.")
    return value


def path_of(value: Any, option: str) -> Path:
    """Read a path."""
    if not isinstance(value, str | Path):
        raise UsageError(f"{option} takes a path, found {value!r}.")
    return Path(value)


def share(value: Any, option: str) -> float:
    """Read a number from 0 to 1."""
    found = number(value, option)
    if not 0 <= found <= 1:
        raise UsageError(f"{option} takes a share from 0 to 1 such as 0.5, found {value}.")
    return found


def order_name(order: float) -> str:
    """Return an order with all its digits as the report writes it: ``inf``, ``2``, ``1.5``."""
    return repr(order).removesuffix(".0")
