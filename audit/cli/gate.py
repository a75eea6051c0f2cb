"""`audit gate`."""

from pathlib import Path
from typing import Annotated

import typer

import audit
from audit.cli.app import EXIT_CODES, app
from audit.cli.expansion import command
from audit.cli.output import print_text, write_others
from audit.cli.parameters import (
    ExitZero,
    HtmlFile,
    JsonFile,
    JunitFile,
    MarkdownFile,
    Outputs,
    ReportFile,
    SarifFile,
)
from audit.options.verdict import POLICY_HELP


@command(app, epilog=EXIT_CODES)
def gate(
    file: ReportFile,
    policy: Annotated[Path, typer.Option("--policy", metavar="FILE", help=POLICY_HELP)],
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Treat doubtful evidence as inconclusive (exit 4)."),
    ] = False,
    exit_zero: ExitZero = False,
    html: HtmlFile = None,
    json: JsonFile = None,
    junit: JunitFile = None,
    sarif: SarifFile = None,
    markdown: MarkdownFile = None,
) -> None:
    """Evaluate the gates of a policy on a saved report."""
    judged = audit.judge(file, policy, strict=strict)
    write_others(judged, Outputs(html, json, junit, sarif, markdown))
    for entry in judged.record.gates:
        value = "" if entry.value is None else f" (measured {entry.value:.6g})"
        print_text(f"{entry.status:<13}{entry.expression}{value} {entry.detail}".rstrip() + "\n")
    print_text(f"verdict {judged.verdict}, reliability {judged.reliability}\n")
    raise typer.Exit(0 if exit_zero else judged.exit_code(strict=strict))
