"""`audit scan`."""

from pathlib import Path
from typing import Annotated, Any

import typer

import audit
from audit.cli.app import EXIT_CODES, app
from audit.cli.expansion import Verbose, command
from audit.cli.output import print_text, show, write_others
from audit.cli.parameters import (
    DataFile,
    ExitZero,
    HtmlFile,
    JsonFile,
    JunitFile,
    MarkdownFile,
    ModelFile,
    OutFolder,
    Outputs,
    Quiet,
    Regression,
    SarifFile,
)
from audit.errors import UsageError, interruptible
from audit.options import SCAN
from audit.runtime.atomic_files import write_text
from audit.values import share


@command(app, *SCAN, epilog=EXIT_CODES)
@interruptible("before there was anything to report")
def scan(
    model: ModelFile,
    data: DataFile,
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline", metavar="REPORT", help="Report to compare with, sample by sample."
        ),
    ] = None,
    max_regression: Regression = None,
    exit_zero: ExitZero = False,
    out: OutFolder = Path("audit-report"),
    html: HtmlFile = None,
    json: JsonFile = None,
    junit: JunitFile = None,
    sarif: SarifFile = None,
    markdown: MarkdownFile = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> None:
    """Attack and certify a served model, and write a report."""
    limit = None if max_regression is None else share(max_regression, "--max-regression")
    if limit is not None and baseline is None:
        raise UsageError("--max-regression needs --baseline: name a report to compare with.")
    # The baseline is read first, so that neither an error in this file nor a change to it during
    # the scan wastes the scan.
    before = None if baseline is None else audit.Report.read(baseline).loaded()
    report = audit.scan(model, data, out=out, progress=not quiet, **options)
    write_others(report, Outputs(html, json, junit, sarif, markdown))
    show(report, out, quiet=quiet, verbose=verbose)
    code = report.exit_code(strict=bool(options.get("strict")))
    if report.record.status == "interrupted":
        raise typer.Exit(code)
    if before is not None:
        compared = _compare(before, report, out, limit)
        code = code or compared
    raise typer.Exit(0 if exit_zero else code)


def _compare(before: "audit.Report", report: "audit.Report", out: Path, limit: float | None) -> int:
    """Compare a report with a baseline, write the result next to it, and return the exit code."""
    from reports.comparison import COMPARISON_RENDERERS

    found = audit.compare(before, report, max_regression=limit)
    for name, file in (("html", "html"), ("markdown", "md"), ("json", "json")):
        write_text(out / f"comparison.{file}", COMPARISON_RENDERERS[name](found))
    print_text(COMPARISON_RENDERERS["text"](found))
    return regression_code(found.status)


def regression_code(status: str) -> int:
    """Return the exit status of a comparison: 1 if accuracy was lost, 4 if it is inconclusive."""
    return {"fail": 1, "inconclusive": 4}.get(status, 0)
