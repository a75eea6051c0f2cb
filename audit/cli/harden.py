"""`audit harden`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audit.cli.app import HARDEN_CODES, app
from audit.cli.arguments import (
    DATA_HELP,
    MODEL_HELP,
    AllowDomain,
    ClassMap,
    Deltas,
    Device,
    EffortName,
    Gates,
    GeneratorFile,
    High,
    Judged,
    Layout,
    Low,
    Mean,
    Out,
    Quiet,
    Reading,
    Resize,
    Seed,
    Std,
    Taught,
    Trust,
    loading_of,
)
from audit.cli.output import interruptible, print_text, write_text
from audit.cli.scans import write_report

if TYPE_CHECKING:
    from audit.hardening.plan import Entry
    from audit.schema import HardenReport


@app.command(epilog=HARDEN_CODES)
@interruptible("before the first step of training")
def harden(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    data: Annotated[Path, typer.Option("--data", metavar="TRAIN", help=DATA_HELP)],
    evaluation: Annotated[
        Path,
        typer.Option("--eval", metavar="EVAL", help="Other data, for before and after."),
    ],
    method: Annotated[
        str,
        typer.Option("--with", metavar="METHOD", help="pgd, trades, wagan, wdro or mixed."),
    ] = "pgd",
    threat: Annotated[
        list[str] | None,
        typer.Option("--threat", "-t", metavar="METRIC", help="Several for mixed. [default: linf]"),
    ] = None,
    radius: Annotated[
        list[str] | None,
        typer.Option("--radius", metavar="R", help="One per threat, also as 8/255. [default: 0.1]"),
    ] = None,
    order: Annotated[
        str, typer.Option("--order", metavar="P", help="Of wdro: 2, inf, any above 1.")
    ] = "2",
    epochs: Annotated[
        int, typer.Option("--epochs", metavar="N", help="Passes over the data.")
    ] = 10,
    time_budget: Annotated[
        str | None,
        typer.Option("--time-budget", metavar="SECONDS", help="Of training. [default: none]"),
    ] = None,
    min_clean: Annotated[
        str,
        typer.Option(
            "--min-clean",
            metavar="X",
            help="Keep no weights with less clean accuracy on EVAL (exit 1 where none has it).",
        ),
    ] = "0",
    rate: Annotated[
        str | None,
        typer.Option("--rate", metavar="V", help="Adam's, at its highest. [default: 0.001]"),
    ] = None,
    schedule: Annotated[
        str, typer.Option("--schedule", metavar="NAME", help="cosine, step or constant.")
    ] = "cosine",
    steps: Annotated[
        int, typer.Option("--steps", metavar="N", help="Gradients of the inner attack.")
    ] = 8,
    beta: Annotated[
        str, typer.Option("--beta", metavar="V", help="Of trades: weight of the divergence.")
    ] = "6",
    clean: Annotated[
        str, typer.Option("--clean", metavar="V", help="Share of the originals in the loss.")
    ] = "0",
    average: Annotated[
        str, typer.Option("--average", metavar="DECAY", help="Of the running mean of weights.")
    ] = "0.995",
    freeze: Annotated[
        list[str] | None,
        typer.Option("--freeze", metavar="PATTERN", help="Weights that stay, as 'conv1.*'."),
    ] = None,
    generator: GeneratorFile = None,
    refresh: Annotated[
        int,
        typer.Option(
            "--refresh", metavar="N", help="Epochs between trainings of the generator (wagan only)."
        ),
    ] = 1,
    samples: Annotated[
        int | None,
        typer.Option("--samples", "-n", metavar="N", help="Of TRAIN. [default: all]"),
    ] = None,
    eval_samples: Annotated[
        int, typer.Option("--eval-samples", metavar="N", help="Of EVAL, before and after.")
    ] = 1000,
    delta: Deltas = None,
    effort: EffortName = "standard",
    certify: Annotated[
        str, typer.Option("--certify", metavar="HOW", help="As in a scan; none saves time.")
    ] = "auto",
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", help="Images per step.")
    ] = 128,
    seed: Seed = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a stopped or killed run was.")
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
    out: Out = Path("audit-hardened"),
    quiet: Quiet = False,
) -> None:
    """Fine-tune a model against an adversary, in its own format."""
    from audit import values
    from audit.cli.progress import bar
    from audit.hardening.config import HardenConfig
    from audit.hardening.request import HardenRequest
    from audit.hardening.run import harden as run
    from reports import harden as renderer

    loading = loading_of(trust_model, device, layout, mean, std, low, high, allow_domain)
    budget = None if time_budget is None else values.number(time_budget, "--time-budget")
    config = HardenConfig(
        method=method,
        metrics=values.names(threat, "--threat") or HardenConfig.metrics,
        radii=values.numbers(radius, "--radius") or HardenConfig.radii,
        order=values.number(order, "--order"),
        epochs=epochs,
        batch=batch_size,
        rate=None if rate is None else values.number(rate, "--rate"),
        schedule=schedule,
        average=values.number(average, "--average"),
        steps=steps,
        beta=values.number(beta, "--beta"),
        clean=values.number(clean, "--clean"),
        refresh=refresh,
        min_clean=values.number(min_clean, "--min-clean"),
        freeze=values.split(freeze),
        samples=samples,
        seconds=budget,
        seed=seed,
        low=loading.low,
        high=loading.high,
    )
    judged = Judged(eval_samples, values.numbers(delta, "--delta"), effort, certify)
    reading = Reading(resize, class_map)
    request = HardenRequest(
        model=model,
        train=lambda: reading.open(data, config.low, config.high),
        evaluation=lambda: reading.open(evaluation, config.low, config.high),
        config=config,
        scans=judged.scans(config),
        loading=loading,
        out=out,
        write_scan=lambda scan, name: write_report(
            scan, out / name, loading, reading, Taught(), Gates()
        ),
        write_report=lambda report: _write_report(report, out),
        generator=generator,
        resume=resume,
    )
    report = run(request, bar(quiet), lambda entry: _say_epoch(entry, quiet))
    print_text(renderer.text(report) if not quiet else f"{request.hardened}\n")


def _write_report(report: "HardenReport", out: Path) -> None:
    from reports import harden as renderer

    write_text(out / "harden.html", renderer.html(report))
    write_text(out / "harden.json", report.model_dump_json(indent=1) + "\n")


def _say_epoch(entry: "Entry", quiet: bool) -> None:
    if not quiet:
        typer.echo(
            f"epoch {entry['epoch']}: loss {entry['loss']:.4g}, held out: clean "
            f"{entry['clean']:.1%}, attacked {entry['attacked']:.1%}; evaluation clean "
            f"{entry['evaluation']:.1%}{'' if entry['accepted'] else ' (below --min-clean)'}",
            err=True,
        )
