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
from audit.cli.output import interruptible, print_text, write_text, written
from audit.cli.scans import GENERATOR_FILE, teach, write_report
from audit.errors import Interrupted, UsageError
from audit.runtime.atomic_files import check_writable

if TYPE_CHECKING:
    from audit.generators.generator_files import Trained
    from audit.hardening.loop import Entry
    from audit.hardening.session import HardenConfig
    from audit.models import LoadOptions
    from audit.models.classifier import Load
    from audit.scanning.config import ScanConfig

CHECKPOINT_FILE, WEIGHTS_FILE = "checkpoint.safetensors", "weights.safetensors"
"""Beside a hardened model: where training is, and its weights by name."""


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
            "--refresh", metavar="N", help="Of wagan: epochs between a generator's lessons."
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
    from audit.hardening.session import HardenConfig

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
    _harden(model, data, evaluation, config, judged, loading, out, reading, generator,
            resume=resume, quiet=quiet)  # fmt: skip


def _harden(
    model: Path,
    data: Path,
    evaluation: Path,
    config: "HardenConfig",
    judged: Judged,
    loading: "LoadOptions",
    out: Path,
    reading: Reading,
    generator: Path | None,
    *,
    resume: bool,
    quiet: bool,
) -> None:
    """Train, write the hardened file, scan before and after, and report."""
    from audit.cli.progress import bar
    from audit.generators import generator_files
    from audit.hardening import loop, outcome, session
    from audit.models import load_classifier, pick_device
    from audit.models.files import identify

    device = pick_device(loading.device)
    check_writable(out)
    identify(model)
    scans = judged.scans(config)
    hardened = out / model.name
    if hardened.exists() and hardened.samefile(model):
        raise UsageError(f"--out {out} is where {model.name} lies: name another folder.")
    checkpoint = out / CHECKPOINT_FILE
    if resume and not checkpoint.exists():
        raise UsageError(f"There is no {checkpoint} to go on from: leave --resume out.")
    trained = None if generator is None else generator_files.read(generator, device)
    train = reading.open(data, config.low, config.high)
    test = reading.open(evaluation, config.low, config.high)
    if trained is not None:
        generator_files.check_fits(trained, train.shape, config.low, config.high)

    def load(file: Path) -> "Load":
        return lambda x, classes: load_classifier(file, x, loading, label_classes=classes)

    opened = session.prepare(model, train, test, config, loading, load(model), trained)
    training, progress = opened.training, bar(quiet)
    at = loop.load(training, checkpoint) if resume else loop.Progressed.of(training.model)
    interrupted = False
    try:
        with progress("hardening", config.epochs * training.each) as tick:
            loop.run(training, at, checkpoint, tick, lambda entry: _say_epoch(entry, quiet))
    except KeyboardInterrupt:
        interrupted = True
    if not at.best:
        raise outcome.nothing_kept(at, config, interrupted, checkpoint)
    training.model.load(at.best)
    for path, content in (
        (hardened, training.model.file()),
        (out / WEIGHTS_FILE, outcome.weights_file(training.model)),
    ):
        with written(path) as temporary:
            temporary.write_bytes(content)
    if interrupted:
        raise Interrupted(
            f"Interrupted after {at.number} steps: {hardened} has the weights of epoch "
            f"{at.best_epoch}, the best so far, and was not scanned. Go on with --resume."
        )

    def train_again(file: Path, scan: "ScanConfig", name: str) -> "Trained | None":
        # Against a model that was trained on a generator, a new one has to be tried.
        if config.method != "wagan":
            return None
        kept = out / name / GENERATOR_FILE
        return teach(data, scan, load(file), kept, reading, device, quiet)

    report = outcome.judge(
        opened, at, model, hardened, test, config, scans, load, progress,
        lambda scan, name: write_report(
            scan, out / name, loading, reading, Taught(), Gates()
        ),
        train_again,
    )  # fmt: skip
    from reports.hardening import hardening_html, hardening_text

    write_text(out / "harden.html", hardening_html(report))
    write_text(out / "harden.json", report.model_dump_json(indent=1) + "\n")
    checkpoint.unlink(missing_ok=True)
    print_text(hardening_text(report) if not quiet else f"{hardened}\n")


def _say_epoch(entry: "Entry", quiet: bool) -> None:
    if not quiet:
        typer.echo(
            f"epoch {entry['epoch']}: loss {entry['loss']:.4g}, kept out: clean "
            f"{entry['clean']:.1%}, attacked {entry['attacked']:.1%}; evaluation clean "
            f"{entry['evaluation']:.1%}{'' if entry['accepted'] else ' (below --min-clean)'}",
            err=True,
        )
