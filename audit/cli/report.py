"""`audit report`."""

from pathlib import Path
from typing import Annotated

import typer

from audit.cli.app import app
from audit.cli.arguments import (
    REPORT_HELP,
)
from audit.cli.output import print_text, read_report, write_text
from audit.errors import UsageError


@app.command()
def report(
    file: Annotated[Path, typer.Argument(metavar="REPORT", help=REPORT_HELP)],
    format: Annotated[
        str,
        typer.Option(
            "--format", "-f", metavar="KIND", help="html, text, json, markdown, junit or sarif."
        ),
    ] = "text",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="File to write. [default: stdout]"),
    ] = None,
) -> None:
    """Render a saved report again, without the model."""
    from reports import RENDERERS

    if format not in RENDERERS:
        raise UsageError(f"Unknown format {format!r}: choose from {', '.join(RENDERERS)}.")
    rendered = RENDERERS[format](read_report(file))
    if out is None:
        print_text(rendered, format)
    else:
        write_text(out, rendered)
