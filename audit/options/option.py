"""Options of commands: their flags, their help texts, and how their values are read.

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
"""Function that reads a value as a user gave it (text, number, list); it also takes the flag."""


@dataclass(frozen=True)
class Option:
    """Option of a command.

    Attributes:
        flags: names on the command line, the long one first.
        help: effect of the option, in one or two sentences.
        read: converts a value as the user gave it into the value of the field; raises `UsageError`.
        metavar: placeholder of the value in the help text; None for a switch.
        several: whether the option may be repeated and takes a list.
        choices: words that the option accepts, if they are a fixed list.
        fallback: description of the default, if it is a rule and not a value.
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
        help: effect of the option.
        read: reads the value.
        default: value of the field if the option is not given.
        metavar: placeholder of the value; None for a switch.
        several: whether the option may be repeated.
        choices: a ``Literal`` type of the words that the option accepts.
        kind: noun for such a word in messages, if it is not the name of the flag.
        fallback: the default in words, if it is a rule.
        keyword: name of the keyword argument, if it differs from the flag.
    """
    words = () if choices is None else get_args(choices)
    if words:
        read = partial(_chosen, words, kind or flag.removeprefix("--"), read)
    name = keyword or flag.removeprefix("--").replace("-", "_")
    made = Option((flag, *aliases), help, read, metavar, several, words, fallback, name)
    return field(default=default, metadata={"option": made})


def keyword_options(*groups: type) -> dict[str, tuple[Option, Any]]:
    """Return the options of some groups by keyword, each with its default."""
    return {
        made.keyword: (made, entry.default)
        for group in groups
        for entry in fields(group)
        if (made := entry.metadata.get("option")) is not None
    }


def options_from(groups: Sequence[type], given: Mapping[str, Any], caller: str) -> tuple[Any, ...]:
    """Return groups of options built from keyword arguments.

    Args:
        groups: dataclasses whose fields are declared by `option`.
        given: values by keyword, as a user wrote them; None selects the default.
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
    """Return the default of an option as text for the help, or None if there is none to show."""
    if made.fallback is not None or default is None or default is MISSING:
        return made.fallback
    if isinstance(default, bool):
        return None
    return words_of(default) or None


def words_of(value: Any) -> str:
    """Return a value of an option as a user would write it."""
    if isinstance(value, tuple | frozenset | list):
        return ",".join(map(words_of, value))
    return order_name(value) if isinstance(value, float) else str(value)


def suggestion(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """Return the end of a message on an unknown word: the closest known word, and all choices."""
    near = difflib.get_close_matches(word, list(known), n=1)
    if near:
        return f". Did you mean {near[0]!r}? Choose from {', '.join(known)}."
    return f": choose from {', '.join(known)}."


def check_choices(group: Any, *, open: Sequence[str] = ()) -> None:
    """Raise `UsageError` if a field of a group has a value that its option does not accept.

    Groups are also built by programs, whose values did not pass through a reader.

    Args:
        group: an instance of a group.
        open: names of fields that also accept other words, which are checked when they are used.
    """
    for entry in fields(group):
        made, value = entry.metadata.get("option"), getattr(group, entry.name)
        if made is not None and made.choices and value is not None and entry.name not in open:
            made.read(value, made.flags[0])


def _chosen(words: tuple[str, ...], kind: str, read: Reader, value: Any, flag: str) -> Any:
    """Read a value; raise `UsageError` if a word is not on the list."""
    found = read(value, flag)
    entries = found if isinstance(found, tuple) else (found,)
    for entry in filter(None, entries):
        if entry not in words:
            raise UsageError(f"Unknown {kind} {entry!r}{suggestion(entry, words)}")
    return found
