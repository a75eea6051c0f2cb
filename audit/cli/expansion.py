"""Conversion of groups of options into the parameters of a command.

A command is a function whose keyword arguments ``**options`` represent groups of options:

    @command(app, *SCAN)
    def scan(model: Model, data: Data, **options: object) -> None: ...

The decorator replaces them by one flag per option. Every command also takes ``--verbose``.
"""

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Annotated, Any

import typer

from audit.cli.output import log_to_stderr
from audit.options.option import Option, keyword_options, shown_default

GROUPS: dict[str, tuple[type, ...]] = {}
"""Groups of options of every command."""


def default_of(command: str, keyword: str) -> str | None:
    """Return the default of a command's option in words, or None if it does not have one."""
    known = keyword_options(*GROUPS[command])
    return shown_default(*known[keyword]) if keyword in known else None


def command(
    app: typer.Typer, *groups: type, name: str | None = None, epilog: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command, with the options of some groups.

    Args:
        app: the program.
        groups: dataclasses whose fields are declared by `audit.options.option`.
        name: name of the command, if it differs from that of the function.
        epilog: last paragraph of the help text.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        app.command(name, epilog=epilog)(expanded(function, *groups))
        GROUPS[name or function.__name__] = groups
        return function

    return register


def expanded(function: Callable[..., None], *groups: type) -> Callable[..., None]:
    """Return the function with one parameter per option instead of ``**options``."""
    known = keyword_options(*groups)
    own = inspect.signature(function, eval_str=True)
    wants_verbose = "verbose" in own.parameters

    @wraps(function)
    def call(**given: Any) -> None:
        verbose = given["verbose"] if wants_verbose else given.pop("verbose")
        log_to_stderr(verbose)
        # Options that were not given are left to the group, which defines their defaults.
        options = {key: given.pop(key) for key in known}
        function(**given, **{key: value for key, value in options.items() if value is not None})

    first: list[inspect.Parameter] = []
    rest: list[inspect.Parameter] = []
    for parameter in own.parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:
            required = parameter.default is parameter.empty
            (first if required else rest).append(parameter)
    if not wants_verbose:
        rest.append(_named("verbose", Verbose, False))
    parameters = [
        parameter.replace(kind=parameter.KEYWORD_ONLY)
        for parameter in (*first, *_flags(known), *rest)
    ]
    call.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del call.__wrapped__
    return call


Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        is_eager=True,
        callback=lambda value: log_to_stderr(value) or value,
        help="Show all details, and the traceback of an internal error.",
    ),
]


def _named(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _flags(known: dict[str, tuple[Option, Any]]) -> Iterator[inspect.Parameter]:
    """Yield one parameter per option."""
    for keyword, (option, default) in known.items():
        if isinstance(default, bool):
            flag = typer.Option(*option.flags, help=option.help)
            yield _named(keyword, Annotated[bool, flag], default)
            continue
        flag = typer.Option(
            *option.flags,
            metavar=option.metavar,
            help=help_text(option, default),
            parser=reader(option),
            autocompletion=completion(option.choices) if option.choices else None,
            show_default=False,
        )
        kind: Any = list[Any] if option.several else Any
        yield _named(keyword, Annotated[kind | None, flag], None)


def reader(option: Option) -> Callable[[Any], Any]:
    """Return a function that reads one occurrence of a flag."""

    def read(value: Any) -> Any:
        return option.read(value, option.flags[0])

    return read


def completion(choices: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Return a function that completes the last word of a list separated by commas."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{word}" for word in choices if word.startswith(last)]

    return complete


def help_text(option: Option, default: Any) -> str:
    """Return the help text of an option with its choices and its default."""
    parts = [option.help]
    if option.choices:
        parts.append(f"Choices: {', '.join(option.choices)}.")
    shown = shown_default(option, default)
    if shown is not None:
        parts.append(f"[default: {shown}]")
    return " ".join(parts)
