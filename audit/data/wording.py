"""Texts for one-line messages: foreign text cleaned and cut, long lists shortened."""

from collections.abc import Callable, Sequence
from typing import TypeVar

Entry = TypeVar("Entry")

BRIEF_LENGTH = 120


def brief(text: object, longest: int = BRIEF_LENGTH) -> str:
    """The text on one line of printable characters, cut to `longest` of them."""
    line = " ".join(str(text).split())
    shown = "".join(character if character.isprintable() else "?" for character in line)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def shortened(entries: Sequence[Entry], most: int, write: Callable[[Entry], str] = str) -> str:
    """Write a list, separated by commas; of more than ``most`` + 1 entries the first and last.

    Args:
        entries: what is listed.
        most: how many are written before the last one, if some are left out.
        write: writes one entry.
    """
    if len(entries) <= most + 1:
        return ", ".join(map(write, entries))
    return ", ".join([*map(write, entries[:most]), "…", write(entries[-1])])
