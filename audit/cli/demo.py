"""`audit demo`."""

from pathlib import Path

import typer

from audit.cli.app import EXIT_CODES, app
from audit.cli.arguments import (
    Gates,
    Out,
    Quiet,
    Reading,
    Taught,
    Verbose,
)
from audit.cli.output import interruptible, print_text
from audit.cli.scans import exit_code_of, run_scan, show, write_report


@app.command(epilog=EXIT_CODES)
@interruptible("before there was anything to report")
def demo(
    out: Out = Path("audit-report"),
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Scan the small Fashion-MNIST model that is shipped."""
    from audit.demo import data_path, model_path
    from audit.models import LoadOptions
    from audit.options import ScanConfig

    config, loading = ScanConfig(), LoadOptions()
    outcome = run_scan(
        model_path(), data_path(), config, loading, out, Reading(), Taught(), quiet=quiet
    )
    report = write_report(outcome, out, loading, Reading(), Taught(), Gates())
    show(report, out, quiet=quiet, verbose=verbose)
    if not quiet:
        print_text(f"Open {out / 'report.html'} in a browser to see the whole report.\n")
    raise typer.Exit(exit_code_of(report, strict=False))
