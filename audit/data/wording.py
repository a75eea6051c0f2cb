"""Text of one-line messages: untrusted text is cleaned and cut, long lists are shortened."""

from collections.abc import Callable, Sequence
from typing import TypeVar

Entry = TypeVar("Entry")

BRIEF_LENGTH = 120


def brief(text: object, longest: int = BRIEF_LENGTH) -> str:
    """Return the text on one line of printable characters, cut to `longest` of them."""
    line = " ".join(str(text).split())
    shown = "".join(character if character.isprintable() else "?" for character in line)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def shortened(entries: Sequence[Entry], most: int, write: Callable[[Entry], str] = str) -> str:
    """Return a list as text, separated by commas; a long list keeps its first and last entries.

    Args:
        entries: the entries of the list.
        most: number of entries before the last one, if there are more than ``most`` + 1.
        write: function from an entry to its text.
    """
    if len(entries) <= most + 1:
        return ", ".join(map(write, entries))
    return ", ".join([*map(write, entries[:most]), "…", write(entries[-1])])
