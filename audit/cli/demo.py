"""`audit demo`."""

from pathlib import Path

import typer

import audit
from audit.cli.app import EXIT_CODES, app
from audit.cli.expansion import Verbose, command
from audit.cli.output import print_text, show
from audit.cli.parameters import OutFolder, Quiet
from audit.errors import interruptible


@command(app, epilog=EXIT_CODES)
@interruptible("before there was anything to report")
def demo(
    out: OutFolder = Path("audit-report"), quiet: Quiet = False, verbose: Verbose = False
) -> None:
    """Scan the small Fashion-MNIST model that is included."""
    from audit.demo import data_path, model_path

    report = audit.scan(model_path(), data_path(), out=out, progress=not quiet)
    show(report, out, quiet=quiet, verbose=verbose)
    if not quiet:
        print_text(f"Open {out / 'report.html'} in a browser to see the whole report.\n")
    raise typer.Exit(report.exit_code())
