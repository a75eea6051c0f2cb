"""`audit train-attacker`."""

from pathlib import Path
from typing import Annotated, Any

import typer

import audit
from audit.cli.app import app
from audit.cli.expansion import command
from audit.cli.output import print_text
from audit.cli.parameters import ModelFile, Quiet, Resume, TrainData
from audit.errors import interruptible
from audit.options import TRAIN


@command(app, *TRAIN, name="train-attacker")
@interruptible("before the first step of training")
def train_attacker(
    model: ModelFile,
    data: TrainData,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="FILE", help="Generator to write: .safetensors."),
    ],
    resume: Resume = False,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Train a generator that attacks a model in one pass."""
    trained = audit.train_attacker(
        model, data, out=out, resume=resume, progress=not quiet, **options
    )
    if not quiet:
        print_text(
            f"{out}: accuracy on {trained.held_out} held-out samples {trained.clean:.1%}, "
            f"{trained.generated:.1%} on the generated images, {trained.judged:.1%} as judged "
            f"under wasserstein at {trained.radius:g}\n"
        )
