"""`audit config`."""

import os
from typing import Annotated

import typer

from audit.cli.app import app, options_of_commands, read_settings
from audit.cli.output import print_text
from audit.errors import UsageError


@app.command()
def config(
    command: Annotated[
        str, typer.Argument(metavar="COMMAND", help="Whose settings to show.")
    ] = "scan",
) -> None:
    """Show the settings of a command and where each is from."""
    known = options_of_commands()
    if command not in known:
        raise UsageError(f"Unknown command {command!r}: choose from {', '.join(known)}.")
    settings = read_settings()
    chosen = settings.options.get(command, {})
    defaults = {p.name: p.default for p in typer.main.get_group(app).commands[command].params}
    for option, inside in known[command].items():
        name = inside.name
        variable = f"AUDIT_{command}_{name}".upper().replace("-", "_")
        value: object = defaults[name]
        source = "default"
        if variable in os.environ:
            value, source = os.environ[variable], variable
        elif name in chosen:
            value, source = chosen[name], str(settings.path)
        print_text(f"{option:<16}{'not set' if value is None else value!s:<32}{source}\n")
