"""Entry point of the program: the typer application, its settings, and the exit codes of errors."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audit.cli import console
from audit.cli.output import debugging, stop_logging
from audit.errors import AuditError
from audit.runtime.interrupts import heard
from audit.runtime.memory import keep_freed_pages
from audit.version import __version__

if TYPE_CHECKING:
    from audit.cli.settings import Setting, Settings

EXIT_CODES = """
Exit codes: 0 done and every gate passed; 1 a gate failed; 2 an option, the model or the data is
invalid; 3 internal error; 4 inconclusive (a health check failed, or under --strict a warning or an
interval that contains its bound); 5 nothing to evaluate; 130 interrupted, a partial report is
written.
"""


HARDEN_CODES = """
Exit codes: 0 done; 1 no weights reached the clean accuracy of --min-clean; 2 an option, the model
or the data is invalid; 3 internal error; 130 interrupted, the best weights so far are written.
"""


app = typer.Typer(
    name="audit",
    help="How much accuracy can an adversary take from a served classifier, and how sure are we?",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


SPIN_COUNT = "10000"
"""Spin count of an idle OpenMP thread before it sleeps, read when torch is first imported.

GNU's default is to keep spinning. With other work on the machine, that made scans a hundred times
slower (measured: 2.4 s against 0.02 s for the same gradients); on an idle machine it costs nothing.
"""


def main() -> None:
    """Run a command of ``audit``, report an error in one sentence, and exit."""
    console.prepare_console()
    stop_logging()
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    keep_freed_pages()
    try:
        with heard():
            app(prog_name="audit", default_map=read_settings().options, auto_envvar_prefix="AUDIT")
    except AuditError as error:
        typer.echo(f"audit: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        if debugging():
            raise
        typer.echo(
            f"audit: internal error ({type(error).__name__}: {error}). This is a bug: run again "
            "with --verbose to get the traceback, and report it with the model.",
            err=True,
        )
        sys.exit(3)


def read_settings() -> "Settings":
    """Read the settings of the working folder."""
    from audit.cli.settings import find

    return find(Path.cwd(), settable())


def settable() -> dict[str, dict[str, "Setting"]]:
    """Return the options of every command that a file may set: all but model and data."""
    from audit.cli.settings import Setting

    return {
        name: {
            parameter.opts[0].removeprefix("--"): Setting(
                parameter.name, bool(getattr(parameter, "multiple", False))
            )
            for parameter in command.params
            if parameter.param_type_name == "option" and parameter.name not in ("help", "data")
        }
        for name, command in commands().items()
    }


def commands() -> dict[str, Any]:
    """Return every command by its name."""
    return dict(typer.main.get_group(app).commands)


def _version(shown: bool) -> None:
    if shown:
        typer.echo(f"audit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    del version
