"""`audit config`."""

from typing import Annotated, Any

import typer

from audit.cli.app import app, commands, read_settings
from audit.cli.expansion import command as register
from audit.cli.expansion import default_of
from audit.cli.output import print_text
from audit.errors import UsageError
from audit.options.option import suggestion, words_of


@register(app)
def config(
    command: Annotated[
        str, typer.Argument(metavar="COMMAND", help="Command whose options are shown.")
    ] = "scan",
) -> None:
    """Show the options of a command and the source of each value."""
    known = commands()
    if command not in known:
        raise UsageError(f"Unknown command {command!r}{suggestion(command, known)}")
    settings = read_settings()
    # The command line is empty, so values come from environment, settings and defaults.
    context = known[command].make_context(
        command,
        [],
        resilient_parsing=True,
        default_map=dict(settings.options.get(command, {})),
        auto_envvar_prefix=f"AUDIT_{command}".upper().replace("-", "_"),
    )
    for parameter in known[command].params:
        if parameter.param_type_name != "option" or parameter.name in ("help", "data"):
            continue
        value = context.params[parameter.name]
        shown = words_of(value) if value not in (None, [], ()) else None
        shown = shown or default_of(command, parameter.name)
        places = {
            "ENVIRONMENT": f"{context.auto_envvar_prefix}_{parameter.name}".upper(),
            "DEFAULT_MAP": str(settings.path),
        }
        source: Any = context.get_parameter_source(parameter.name)
        option = parameter.opts[0].removeprefix("--")
        place = "default" if source is None else places.get(source.name, "default")
        print_text(f"{option:<16}{shown or 'not set':<32}{place}\n")
