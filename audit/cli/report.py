"""`audit report`."""

from typing import Annotated

import typer

import audit
from audit.cli.app import app
from audit.cli.expansion import command
from audit.cli.output import print_or_write
from audit.cli.parameters import OutFile, ReportFile
from audit.errors import UsageError
from audit.options import suggestion

REPORT_FORMATS = ("html", "json", "text", "markdown", "junit", "sarif")
"""Names of `reports.RENDERERS`."""


@command(app)
def report(
    file: ReportFile,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help=f"Choices: {', '.join(REPORT_FORMATS)}.",
        ),
    ] = "text",
    out: OutFile = None,
) -> None:
    """Show a saved report in another format, without the model."""
    if format not in REPORT_FORMATS:
        raise UsageError(f"Unknown format {format!r}{suggestion(format, REPORT_FORMATS)}")
    print_or_write(audit.Report.read(file).render(format), out, format)
