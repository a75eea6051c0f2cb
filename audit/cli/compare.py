"""`audit compare`."""

from pathlib import Path
from typing import Annotated

import typer

import audit
from audit.cli.app import app
from audit.cli.expansion import command
from audit.cli.output import print_or_write
from audit.cli.parameters import OutFile, Regression
from audit.cli.scan import regression_code
from audit.errors import UsageError


@command(app)
def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A report.json that a scan wrote.")],
    new: Annotated[
        Path,
        typer.Argument(metavar="NEW", help="The report.json of a later scan of the same samples."),
    ],
    max_regression: Regression = None,
    format: Annotated[
        str,
        typer.Option(
            "--format", "-f", metavar="FORMAT", help="Choices: text, markdown, html, json."
        ),
    ] = "text",
    out: OutFile = None,
) -> None:
    """Compare two reports of the same samples, sample by sample."""
    from reports.comparison import FORMATS

    if format not in FORMATS:
        raise UsageError(f"Unknown format {format!r}: choose from {', '.join(FORMATS)}.")
    found = audit.compare(old, new, max_regression=max_regression)
    print_or_write(FORMATS[format](found), out, format)
    raise typer.Exit(regression_code(found.status))
