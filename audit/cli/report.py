"""`audit report`."""

from typing import Annotated

import typer

import audit
from audit.cli.app import app
from audit.cli.expansion import command
from audit.cli.output import print_or_write
from audit.cli.parameters import OutFile, ReportFile


@command(app)
def report(
    file: ReportFile,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help="Choices: html, text, json, markdown, junit, sarif.",
        ),
    ] = "text",
    out: OutFile = None,
) -> None:
    """Render a saved report in another format, without the model."""
    print_or_write(audit.Report.read(file).render(format), out, format)
