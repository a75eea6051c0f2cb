"""`audit compare`."""

from pathlib import Path
from typing import Annotated

import typer

from audit.cli.app import app
from audit.cli.arguments import (
    REPORT_HELP,
    Regression,
    regression_of,
)
from audit.cli.output import print_text, read_baseline, write_text
from audit.cli.scan import regression_code
from audit.errors import UsageError


@app.command()
def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help=REPORT_HELP)],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The same, later.")],
    max_regression: Regression = None,
    format: Annotated[
        str, typer.Option("--format", "-f", metavar="KIND", help="text, markdown, html or json.")
    ] = "text",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="File to write. [default: stdout]"),
    ] = None,
) -> None:
    """Compare two reports of the same samples, in pairs."""
    from audit import comparison as comparing
    from reports.comparison import COMPARISON_RENDERERS

    if format not in COMPARISON_RENDERERS:
        raise UsageError(
            f"Unknown format {format!r}: choose from {', '.join(COMPARISON_RENDERERS)}."
        )
    limit = regression_of(max_regression)
    (first, first_radii), (second, second_radii) = read_baseline(old), read_baseline(new)
    found = comparing.compare(first, second, first_radii, second_radii, limit=limit)
    rendered = COMPARISON_RENDERERS[format](found)
    if out is None:
        print_text(rendered, format)
    else:
        write_text(out, rendered)
    raise typer.Exit(regression_code(found))
