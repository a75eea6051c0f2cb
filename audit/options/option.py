"""An option of a command: its flags, its help text, and how its value is read.

A group of options is a frozen dataclass whose fields carry an `Option` in their metadata:

    threat: tuple[str, ...] = option("--threat", "-t", read=names, default=("linf",), help="…")

`options_from` builds groups from keyword arguments; the command line turns the same fields into
flags (`audit.cli.expansion`). A field without an `Option` is set by the program.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
from typing import Any, get_args

from audit.errors import UsageError
from audit.values import order_name

Reader = Callable[[Any, str], Any]
"""Reads a value as a user gives it (text, number, list); the second argument is the flag."""


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        flags: names on the command line, the long one first.
        help: what it does, in one or two sentences.
        read: turns what a user gave into the value of the field; raises `UsageError`.
        metavar: placeholder of the value in the help text; None for a switch.
        several: whether it may be repeated, and takes a list.
        choices: the words that it takes, if they are a fixed list.
        fallback: what the default is, where that is not a value but a rule.
        keyword: name of the keyword argument.
    """

    flags: tuple[str, ...]
    help: str
    read: Reader
    metavar: str | None
    several: bool
    choices: tuple[str, ...]
    fallback: str | None
    keyword: str


def option(
    flag: str,
    *aliases: str,
    help: str,
    read: Reader,
    default: Any,
    metavar: str | None = None,
    several: bool = False,
    choices: Any = None,
    kind: str | None = None,
    fallback: str | None = None,
    keyword: str | None = None,
) -> Any:
    """Declare a field of a group as an option.

    Args:
        flag: long name, such as ``--threat``.
        aliases: further names, such as ``-t``.
        help: what it does.
        read: reads the value.
        default: value of the field where the option is not given.
        metavar: placeholder of the value; None for a switch.
        several: whether it may be repeated.
        choices: a ``Literal`` type of the words that it takes.
        kind: what such a word is called in messages, where that is not the flag.
        fallback: the default in words, where it is a rule.
        keyword: name of the keyword argument, where it differs from the flag.
    """
    words = () if choices is None else get_args(choices)
    if words:
        read = partial(_chosen, words, kind or flag.removeprefix("--"), read)
    name = keyword or flag.removeprefix("--").replace("-", "_")
    made = Option((flag, *aliases), help, read, metavar, several, words, fallback, name)
    return field(default=default, metadata={"option": made})


def keyword_options(*groups: type) -> dict[str, tuple[Option, Any]]:
    """Options of some groups by keyword, each with its default."""
    return {
        made.keyword: (made, entry.default)
        for group in groups
        for entry in fields(group)
        if (made := entry.metadata.get("option")) is not None
    }


def options_from(groups: Sequence[type], given: Mapping[str, Any], caller: str) -> tuple[Any, ...]:
    """Build groups of options from keyword arguments.

    Args:
        groups: dataclasses whose fields are declared by `option`.
        given: values by keyword, as a user wrote them; None stands for the default.
        caller: name of the function or command, for the message.

    Returns:
        One instance per group, in the same order.

    Raises:
        UsageError: a keyword is unknown, or a value cannot be read.
    """
    known = keyword_options(*groups)
    for keyword in given:
        if keyword not in known:
            raise UsageError(f"{caller} has no option {keyword!r}{suggestion(keyword, known)}")
    return tuple(_build(group, given) for group in groups)


def _build(group: type, given: Mapping[str, Any]) -> Any:
    values = {}
    for entry in fields(group):
        made = entry.metadata.get("option")
        if made is not None and given.get(made.keyword) is not None:
            value = made.read(given[made.keyword], made.flags[0])
            if value is not None:
                values[entry.name] = value
    return group(**values)


def shown_default(made: Option, default: Any) -> str | None:
    """Write the default of an option for the help text, or None where there is nothing to say."""
    if made.fallback is not None or default is None or default is MISSING:
        return made.fallback
    if isinstance(default, bool):
        return None
    return words_of(default) or None


def words_of(value: Any) -> str:
    """Write a value of an option as a user would write it."""
    if isinstance(value, tuple | frozenset | list):
        return ",".join(map(words_of, value))
    return order_name(value) if isinstance(value, float) else str(value)


def suggestion(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """End a message on an unknown word: the one that is probably meant, or all that exist."""
    near = difflib.get_close_matches(word, list(known), n=1)
    if near:
        return f". Did you mean {near[0]!r}? Choose from {', '.join(known)}."
    return f": choose from {', '.join(known)}."


def check_choices(group: Any, *, open: Sequence[str] = ()) -> None:
    """Refuse words of a group that are not on the list of their option.

    Groups are also made by programs, whose values no reader has seen.

    Args:
        group: an instance of a group.
        open: names of fields that also take other words, which are checked where they are used.
    """
    for entry in fields(group):
        made, value = entry.metadata.get("option"), getattr(group, entry.name)
        if made is not None and made.choices and value is not None and entry.name not in open:
            made.read(value, made.flags[0])


def _chosen(words: tuple[str, ...], kind: str, read: Reader, value: Any, flag: str) -> Any:
    """Read a value and refuse a word that is not on the list."""
    found = read(value, flag)
    entries = found if isinstance(found, tuple) else (found,)
    for entry in filter(None, entries):
        if entry not in words:
            raise UsageError(f"Unknown {kind} {entry!r}{suggestion(entry, words)}")
    return found
