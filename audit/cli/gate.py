"""`audit gate`."""

from pathlib import Path
from typing import Annotated

import typer

from audit.cli.app import EXIT_CODES, app
from audit.cli.arguments import (
    POLICY_HELP,
    REPORT_HELP,
    ExitZero,
    HtmlFile,
    JsonFile,
    JunitFile,
    MarkdownFile,
    Outputs,
    SarifFile,
    Strict,
)
from audit.cli.output import print_text, read_report, write_others


@app.command(epilog=EXIT_CODES)
def gate(
    file: Annotated[Path, typer.Argument(metavar="REPORT", help=REPORT_HELP)],
    policy: Annotated[Path, typer.Option("--policy", metavar="FILE", help=POLICY_HELP)],
    strict: Strict = False,
    exit_zero: ExitZero = False,
    html: HtmlFile = None,
    json: JsonFile = None,
    junit: JunitFile = None,
    sarif: SarifFile = None,
    markdown: MarkdownFile = None,
) -> None:
    """Judge a saved report by the gates of a file."""
    from datetime import date

    from audit.gates.policy import judge, read_policy
    from audit.gates.verdict import exit_code, verdict
    from audit.schema import reliability

    found = read_report(file)
    gates = judge(found, read_policy(policy), date.today(), strict=strict)
    judged = found.model_copy(
        update={"gates": gates, "verdict": verdict(gates, reliability(found))}
    )
    write_others(judged, Outputs(html, json, junit, sarif, markdown))
    for entry in gates:
        value = "" if entry.value is None else f" (measured {entry.value:.6g})"
        print_text(f"{entry.status:<13}{entry.expression}{value} {entry.detail}".rstrip() + "\n")
    print_text(f"verdict {judged.verdict}, reliability {reliability(found)}\n")
    raise typer.Exit(0 if exit_zero else exit_code(judged, strict=strict))
