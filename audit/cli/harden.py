"""`audit harden`."""

from pathlib import Path
from typing import Annotated, Any

import typer

import audit
from audit.cli.app import HARDEN_CODES, app
from audit.cli.expansion import command
from audit.cli.output import print_text
from audit.cli.parameters import ModelFile, OutFolder, Quiet, Resume, TrainData
from audit.errors import interruptible
from audit.options import HARDEN


@command(app, *HARDEN, epilog=HARDEN_CODES)
@interruptible("before the first step of training")
def harden(
    model: ModelFile,
    data: TrainData,
    evaluation: Annotated[
        Path,
        typer.Option(
            "--eval", metavar="EVAL", help="Other data, for the scans before and after hardening."
        ),
    ],
    resume: Resume = False,
    out: OutFolder = Path("audit-hardened"),
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Fine-tune a model against an adversary, in its own format."""
    from reports.hardening import hardening_text

    report = audit.harden(
        model,
        data,
        evaluation,
        out=out,
        resume=resume,
        progress=not quiet,
        on_epoch=None if quiet else print_epoch,
        **options,
    )
    print_text(f"{out / model.name}\n" if quiet else hardening_text(report))


def print_epoch(entry: dict[str, Any]) -> None:
    """Print the measurements of an epoch to stderr."""
    accepted = "" if entry["accepted"] else " (below --min-clean)"
    typer.echo(
        f"epoch {entry['epoch']}: loss {entry['loss']:.4g}; held-out set: clean "
        f"{entry['clean']:.1%}, attacked {entry['attacked']:.1%}; evaluation data: clean "
        f"{entry['evaluation']:.1%}{accepted}",
        err=True,
    )
