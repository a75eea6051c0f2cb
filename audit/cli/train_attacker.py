"""`audit train-attacker`."""

from pathlib import Path
from typing import Annotated

import typer

from audit.cli.app import app
from audit.cli.arguments import (
    DATA_HELP,
    MODEL_HELP,
    AllowDomain,
    ClassMap,
    Device,
    High,
    Layout,
    Low,
    Mean,
    Quiet,
    Reading,
    Resize,
    Seed,
    Std,
    Trust,
    loading_of,
)
from audit.cli.output import interruptible, print_text


@app.command("train-attacker")
@interruptible("before the first step of training")
def train_attacker(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    data: Annotated[Path, typer.Option("--data", metavar="TRAIN", help=DATA_HELP)],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="The generator: .safetensors.")
    ],
    variant: Annotated[
        str,
        typer.Option(
            "--variant",
            metavar="NAME",
            help="advgan, wagan, wagan-beta-minus, wagan-beta-plus.",
        ),
    ] = "wagan",
    head: Annotated[
        str | None,
        typer.Option(
            "--head",
            metavar="NAME",
            help="flow moves mass within any radius; image adds a perturbation, as published. "
            "[default: flow; image for advgan and --paper]",
        ),
    ] = None,
    radius: Annotated[
        str,
        typer.Option(
            "--radius", metavar="R", help="Largest, in pixels × fraction of the image's mass."
        ),
    ] = "0.3",
    paper: Annotated[
        bool, typer.Option("--paper", help="The published constants, literally.")
    ] = False,
    epochs: Annotated[
        int, typer.Option("--epochs", metavar="N", help="Passes over the data.")
    ] = 60,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", help="Images per step.")
    ] = 128,
    average: Annotated[
        str | None,
        typer.Option(
            "--average",
            metavar="DECAY",
            help="Keep a running mean of the weights, e.g. 0.999. [default: the last weights]",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples", "-n", metavar="N", help="Size of a random subset. [default: all]"
        ),
    ] = None,
    seed: Seed = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume an interrupted run with the same options.")
    ] = False,
    trust_model: Trust = False,
    device: Device = "auto",
    layout: Layout = None,
    mean: Mean = None,
    std: Std = None,
    low: Low = "0",
    high: High = "1",
    resize: Resize = None,
    class_map: ClassMap = None,
    allow_domain: AllowDomain = None,
    quiet: Quiet = False,
) -> None:
    """Train a generator that attacks a model in one pass."""
    from audit import values
    from audit.cli.progress import bar
    from audit.generators.config import TrainConfig
    from audit.generators.train import TrainAttackerRequest
    from audit.generators.train import train_attacker as train

    loading = loading_of(trust_model, device, layout, mean, std, low, high, allow_domain)
    config = TrainConfig(
        variant=variant,
        head=head,
        radius=values.number(radius, "--radius"),
        epochs=epochs,
        batch=batch_size,
        samples=samples,
        seed=seed,
        paper=paper,
        average=None if average is None else values.number(average, "--average"),
        low=loading.low,
        high=loading.high,
    )
    reading = Reading(resize, class_map)
    trained = train(
        TrainAttackerRequest(
            model=model,
            data=lambda: reading.open(data, config.low, config.high),
            config=config,
            loading=loading,
            out=out,
            resume=resume,
        ),
        bar(quiet),
    )
    if not quiet:
        print_text(
            f"{out}: accuracy on {trained.held_out} held-out samples {trained.clean:.1%}, "
            f"{trained.generated:.1%} as generated, {trained.judged:.1%} as judged under "
            f"wasserstein at {trained.radius:g}\n"
        )
