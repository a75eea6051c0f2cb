"""The command line: the only place that reads options, prints, and turns errors into exit codes."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audit import __version__, console
from audit.arguments import (
    DATA_HELP,
    MODEL_HELP,
    POLICY_HELP,
    REPORT_HELP,
    AllowDomain,
    Attacks,
    ClassMap,
    Deltas,
    Device,
    EffortName,
    ExitZero,
    Gates,
    GeneratorFile,
    High,
    HtmlFile,
    JsonFile,
    Judged,
    JunitFile,
    Layout,
    Low,
    MarkdownFile,
    Mean,
    Orders,
    Out,
    Outputs,
    Quiet,
    Reading,
    Regression,
    Resize,
    SarifFile,
    Seed,
    Smooth,
    Std,
    Strict,
    Taught,
    Threats,
    TrainData,
    Trust,
    Verbose,
    config_of,
    loading_of,
    regression_of,
)
from audit.errors import AuditError, Interrupted, UsageError
from audit.files import check_writable, replacing
from audit.interrupts import heard
from audit.memory import keep_freed_pages

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from audit.compare import Radii
    from audit.config import ScanConfig
    from audit.generators import Trained
    from audit.harden.loop import Entry
    from audit.harden.session import HardenConfig
    from audit.models import Classifier, LoadOptions
    from audit.report import Comparison, Report
    from audit.scan import Load
    from audit.settings import Option, Settings
    from audit.state import Scan
    from audit.training import TrainConfig

EXIT_CODES = """
Exit codes: 0 done and every gate passed; 1 a gate failed; 2 usage, model or data is wrong;
3 internal error; 4 inconclusive (a health check failed, or under --strict a warning or an interval
that straddles its gate); 5 nothing to evaluate; 130 interrupted, a partial report is written.
"""

HARDEN_CODES = """
Exit codes: 0 done; 1 no weights kept the clean accuracy of --min-clean; 2 usage, model or data is
wrong; 3 internal error; 130 interrupted, the best weights so far are written.
"""

app = typer.Typer(
    name="audit",
    help="How much accuracy can an adversary take from a served classifier, and how sure are we?",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


GENERATOR_FILE = "generator.safetensors"
"""Where a generator that was trained within a scan is kept, beside the report."""

CHECKPOINT_FILE, WEIGHTS_FILE = "checkpoint.safetensors", "weights.safetensors"
"""Beside a hardened model: where training is, and its weights by name."""

EXIT_INTERRUPTED = 130
"""Exit status of a scan that was stopped: its report covers what ran before."""

SPIN_COUNT = "10000"
"""How long an idle OpenMP thread spins before it sleeps, read when torch is first imported.

GNU's default is to spin on; beside other work on the machine that made scans a hundred times slower
(measured: 2.4 s against 0.02 s for the same gradients), and this costs nothing on an idle one.
"""


def main() -> None:
    """Entry point of ``audit``: run a command, report an error in one sentence, exit."""
    console.prepare()
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    keep_freed_pages()
    try:
        with heard():
            app(prog_name="audit", default_map=_settings().options, auto_envvar_prefix="AUDIT")
    except AuditError as error:
        typer.echo(f"audit: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        if "-v" in sys.argv or "--verbose" in sys.argv:
            raise
        typer.echo(
            f"audit: internal error ({type(error).__name__}: {error}). This is a bug: run again "
            "with --verbose for the traceback and report it with the model.",
            err=True,
        )
        sys.exit(3)


def _settings() -> "Settings":
    """The settings of the working folder."""
    from audit.settings import find

    return find(Path.cwd(), _options())


def _options() -> dict[str, dict[str, "Option"]]:
    """The options of every command; what a command is about is none."""
    from audit.settings import Option

    return {
        name: {
            parameter.opts[0].removeprefix("--"): Option(
                str(parameter.name), bool(getattr(parameter, "multiple", False))
            )
            for parameter in command.params
            if parameter.param_type_name == "option" and parameter.name not in ("help", "data")
        }
        for name, command in typer.main.get_group(app).commands.items()
    }


@contextmanager
def _interruptible(stage: str) -> Iterator[None]:
    """Turn Ctrl-C into a sentence; the command framework would exit without a word."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted {stage}.") from None


FOR_PROGRAMS = ("html", "json", "junit", "sarif")
"""Formats that are UTF-8 on stdout too, whatever the console's encoding."""


def _print(text: str, format: str = "text") -> None:
    """Write to stdout; a reader that has gone (``audit … | head``) changes no exit code."""
    try:
        console.write(text, utf8=format in FOR_PROGRAMS)
    except BrokenPipeError:
        # What is still buffered must not fail once more when the interpreter flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _log_to_stderr(verbose: bool) -> None:
    """Write the tracebacks of what stopped on an error to stderr, where that is asked for."""
    if verbose:
        log = logging.getLogger("audit")
        log.setLevel(logging.DEBUG)
        log.addHandler(logging.StreamHandler())


def _version(shown: bool) -> None:
    if shown:
        typer.echo(f"audit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    del version


@app.command(epilog=EXIT_CODES)
@_interruptible("before there was anything to report")
def scan(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help=MODEL_HELP),
    ],
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="DATA",
            help=DATA_HELP,
        ),
    ],
    threat: Threats = None,
    order: Orders = None,
    delta: Deltas = None,
    attack: Attacks = None,
    generator: GeneratorFile = None,
    train_data: TrainData = None,
    effort: EffortName = "standard",
    certify: Annotated[
        str,
        typer.Option(
            "--certify",
            metavar="HOW",
            help="Accuracy no attack takes: auto, simplex, crown, crown-ibp, none.",
        ),
    ] = "auto",
    smooth: Smooth = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples", "-n", metavar="N", help="Size of a random subset. [default: all]"
        ),
    ] = None,
    seed: Seed = 0,
    confidence: Annotated[
        float, typer.Option("--confidence", metavar="C", help="Of every interval.")
    ] = 0.95,
    trust_model: Trust = False,
    device: Device = "auto",
    batch_size: Annotated[
        str,
        typer.Option(
            "--batch-size",
            metavar="N",
            help="Samples attacked together: auto or a number; never changes a result on the CPU.",
        ),
    ] = "auto",
    layout: Layout = None,
    mean: Mean = None,
    std: Std = None,
    low: Low = "0",
    high: High = "1",
    resize: Resize = None,
    class_map: ClassMap = None,
    allow_domain: AllowDomain = None,
    fail_under: Annotated[
        str | None,
        typer.Option(
            "--fail-under",
            metavar="X",
            help="Fail (exit 1) unless every attacked accuracy at --delta is at least X, from 0 to "
            "1, at the low end of its interval.",
        ),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", metavar="FILE", help=POLICY_HELP)
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", metavar="REPORT", help="A report to compare with, in pairs."),
    ] = None,
    max_regression: Regression = None,
    strict: Strict = False,
    exit_zero: ExitZero = False,
    out: Out = Path("audit-report"),
    html: HtmlFile = None,
    json: JsonFile = None,
    junit: JunitFile = None,
    sarif: SarifFile = None,
    markdown: MarkdownFile = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Attack a served model and write a report of what is left."""
    from audit import options

    _log_to_stderr(verbose)

    if fail_under is not None and not delta:
        raise UsageError("--fail-under needs --delta: say at which budgets accuracy is required.")
    minimum = None if fail_under is None else options.number(fail_under, "--fail-under")
    if minimum is not None and not 0 <= minimum <= 1:
        raise UsageError(f"--fail-under is a share from 0 to 1 such as 0.5, found {minimum:g}.")
    config = config_of(threat, order, delta, attack, effort, certify, smooth, samples, seed,
                       confidence, batch_size, low, high)  # fmt: skip
    loading = loading_of(trust_model, device, layout, mean, std, low, high, allow_domain)
    reading = Reading(resize, class_map)
    taught = Taught(generator, train_data)
    taught.check(config)
    # Read once and before the scan: a mistake in these files, or a change of them while the scan
    # runs, must not cost the scan.
    gates = Gates.read(minimum, policy, strict=strict)
    before = None if baseline is None else _read_baseline(baseline)
    limit = regression_of(max_regression)
    if limit is not None and baseline is None:
        raise UsageError("--max-regression needs --baseline: say what to compare with.")
    outcome = _scan(model, data, config, loading, out, reading, taught, quiet=quiet)
    report = _write(outcome, out, loading, reading, taught, gates)
    _write_others(report, Outputs(html, json, junit, sarif, markdown))
    _show(report, out, quiet=quiet, verbose=verbose)
    code = _exit_code(report, strict=strict)
    if code == EXIT_INTERRUPTED:
        raise typer.Exit(code)
    if before is not None:
        found = _compared(before, report, out, limit)
        code = code or _regression_code(found)
    raise typer.Exit(0 if exit_zero else code)


@app.command(epilog=EXIT_CODES)
@_interruptible("before there was anything to report")
def demo(
    out: Out = Path("audit-report"),
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Scan the small Fashion-MNIST model that is shipped."""
    from audit.config import ScanConfig
    from audit.demo import data_path, model_path
    from audit.models import LoadOptions

    config, loading = ScanConfig(), LoadOptions()
    outcome = _scan(
        model_path(), data_path(), config, loading, out, Reading(), Taught(), quiet=quiet
    )
    report = _write(outcome, out, loading, Reading(), Taught(), Gates())
    _show(report, out, quiet=quiet, verbose=verbose)
    if not quiet:
        _print(f"Open {out / 'report.html'} in a browser to see the whole report.\n")
    raise typer.Exit(_exit_code(report, strict=False))


@app.command()
@_interruptible("before the inspection was done")
def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    data: Annotated[Path | None, typer.Option("--data", metavar="DATA", help=DATA_HELP)] = None,
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
) -> None:
    """Show what a model file holds and how to scan it."""
    from audit import inspection
    from audit.models.files import identify

    loading = loading_of(trust_model, device, layout, mean, std, low, high, allow_domain)
    identify(model)
    dataset = None
    if data is not None:
        dataset = Reading(resize, class_map).open(data, loading.low, loading.high)
    found = inspection.inspect(model, dataset, loading, data)
    for name, value in found.facts:
        _print(f"{name:<16}{value}\n")
    if found.command is not None:
        _print(f"\nScan it with:\n  {found.command}\n")


@app.command("train-attacker")
@_interruptible("before the first step of training")
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
        bool, typer.Option("--resume", help="Go on where an interrupted run of the same stopped.")
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
    from audit import options
    from audit.training import TrainConfig

    loading = loading_of(trust_model, device, layout, mean, std, low, high, allow_domain)
    config = TrainConfig(
        variant=variant,
        head=head,
        radius=options.number(radius, "--radius"),
        epochs=epochs,
        batch=batch_size,
        samples=samples,
        seed=seed,
        paper=paper,
        average=None if average is None else options.number(average, "--average"),
        low=loading.low,
        high=loading.high,
    )
    reading = Reading(resize, class_map)
    _train_attacker(model, data, config, loading, out, reading, resume=resume, quiet=quiet)


@app.command(epilog=HARDEN_CODES)
@_interruptible("before the first step of training")
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
    from audit import options
    from audit.harden.session import HardenConfig

    loading = loading_of(trust_model, device, layout, mean, std, low, high, allow_domain)
    budget = None if time_budget is None else options.number(time_budget, "--time-budget")
    config = HardenConfig(
        method=method,
        metrics=options.names(threat, "--threat") or HardenConfig.metrics,
        radii=options.numbers(radius, "--radius") or HardenConfig.radii,
        order=options.number(order, "--order"),
        epochs=epochs,
        batch=batch_size,
        rate=None if rate is None else options.number(rate, "--rate"),
        schedule=schedule,
        average=options.number(average, "--average"),
        steps=steps,
        beta=options.number(beta, "--beta"),
        clean=options.number(clean, "--clean"),
        refresh=refresh,
        min_clean=options.number(min_clean, "--min-clean"),
        freeze=options.split(freeze),
        samples=samples,
        seconds=budget,
        seed=seed,
        low=loading.low,
        high=loading.high,
    )
    judged = Judged(eval_samples, options.numbers(delta, "--delta"), effort, certify)
    reading = Reading(resize, class_map)
    _harden(model, data, evaluation, config, judged, loading, out, reading, generator,
            resume=resume, quiet=quiet)  # fmt: skip


@app.command()
def report(
    file: Annotated[Path, typer.Argument(metavar="REPORT", help=REPORT_HELP)],
    format: Annotated[
        str,
        typer.Option(
            "--format", "-f", metavar="KIND", help="html, text, json, markdown, junit or sarif."
        ),
    ] = "text",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="File to write. [default: stdout]"),
    ] = None,
) -> None:
    """Render a saved report again, without the model."""
    from reports import RENDERERS

    if format not in RENDERERS:
        raise UsageError(f"Unknown format {format!r}: choose from {', '.join(RENDERERS)}.")
    rendered = RENDERERS[format](_read_report(file))
    if out is None:
        _print(rendered, format)
    else:
        _write_text(out, rendered)


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

    from audit.gate import exit_code, verdict
    from audit.policy import judge, read_policy
    from audit.report import reliability

    found = _read_report(file)
    gates = judge(found, read_policy(policy), date.today(), strict=strict)
    judged = found.model_copy(
        update={"gates": gates, "verdict": verdict(gates, reliability(found))}
    )
    _write_others(judged, Outputs(html, json, junit, sarif, markdown))
    for entry in gates:
        value = "" if entry.value is None else f" (measured {entry.value:.6g})"
        _print(f"{entry.status:<13}{entry.expression}{value} {entry.detail}".rstrip() + "\n")
    _print(f"verdict {judged.verdict}, reliability {reliability(found)}\n")
    raise typer.Exit(0 if exit_zero else exit_code(judged, strict=strict))


@app.command()
def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help=REPORT_HELP)],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The same, later.")],
    max_regression: Regression = None,
    format: Annotated[
        str, typer.Option("--format", "-f", metavar="KIND", help="text, markdown, html or json.")
    ] = "text",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="File to write. [default: stdout]"),
    ] = None,
) -> None:
    """Compare two reports of the same samples, in pairs."""
    from audit import compare as comparing
    from reports.comparison import FORMATS

    if format not in FORMATS:
        raise UsageError(f"Unknown format {format!r}: choose from {', '.join(FORMATS)}.")
    limit = regression_of(max_regression)
    (first, first_radii), (second, second_radii) = _read_baseline(old), _read_baseline(new)
    found = comparing.compare(first, second, first_radii, second_radii, limit=limit)
    rendered = FORMATS[format](found)
    if out is None:
        _print(rendered, format)
    else:
        _write_text(out, rendered)
    raise typer.Exit(_regression_code(found))


@app.command()
def config(
    command: Annotated[
        str, typer.Argument(metavar="COMMAND", help="Whose settings to show.")
    ] = "scan",
) -> None:
    """Show the settings of a command and where each is from."""
    known = _options()
    if command not in known:
        raise UsageError(f"Unknown command {command!r}: choose from {', '.join(known)}.")
    settings = _settings()
    chosen = settings.options.get(command, {})
    defaults = {p.name: p.default for p in typer.main.get_group(app).commands[command].params}
    for option, inside in known[command].items():
        name = inside.name
        variable = f"AUDIT_{command}_{name}".upper().replace("-", "_")
        value: object = defaults[name]
        source = "default"
        if variable in os.environ:
            value, source = os.environ[variable], variable
        elif name in chosen:
            value, source = chosen[name], str(settings.path)
        _print(f"{option:<16}{'not set' if value is None else value!s:<32}{source}\n")


def _read_report(file: Path) -> "Report":
    from reports.json import parse

    try:
        return parse(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(
            f"{file} cannot be read as a report ({reason}): name a report.json."
        ) from error


def _read_baseline(file: Path) -> "tuple[Report, Radii]":
    """A report and the radii of its samples, which lie beside it."""
    from audit.compare import read_radii

    found = _read_report(file)
    return found, read_radii(found, file.parent)


def _compared(
    before: "tuple[Report, Radii]", report: "Report", out: Path, limit: float | None
) -> "Comparison":
    """Compare a fresh report with a baseline; the result lies beside the report."""
    from audit import compare as comparing
    from reports.comparison import FORMATS

    old, radii = before
    found = comparing.compare(old, report, radii, comparing.read_radii(report, out), limit=limit)
    _write_text(out / "comparison.html", FORMATS["html"](found))
    _write_text(out / "comparison.md", FORMATS["markdown"](found))
    _write_text(out / "comparison.json", FORMATS["json"](found))
    _print(FORMATS["text"](found))
    return found


def _regression_code(found: "Comparison") -> int:
    """Exit status of a comparison: 1 where accuracy was lost, 4 where that is open."""
    return {"fail": 1, "inconclusive": 4}.get(found.status, 0)


def _write_others(report: "Report", outputs: Outputs) -> None:
    """Write the formats that were asked for, and the summary of a GitHub job where there is one."""
    from reports import RENDERERS

    for name, path in outputs.asked:
        _write_text(path, RENDERERS[name](report))
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        try:
            with open(summary, "a", encoding="utf-8") as file:
                file.write(RENDERERS["markdown"](report))
        except OSError as error:
            raise UsageError(
                f"GITHUB_STEP_SUMMARY names {summary}, which cannot be written ({error.strerror})."
            ) from error


def _scan(
    model: Path,
    data: Path,
    config: "ScanConfig",
    loading: "LoadOptions",
    out: Path,
    reading: Reading,
    taught: Taught,
    *,
    quiet: bool,
) -> "Scan":
    from audit import generators
    from audit.models import load_classifier, pick_device
    from audit.models.files import identify
    from audit.progress import bar
    from audit.scan import prepare, run

    # The cheap checks first: nothing is read or computed for a typing mistake.
    device = pick_device(loading.device)
    check_writable(out)
    identify(model)
    trained = None if taught.file is None else generators.read(taught.file, device)
    dataset = reading.open(data, config.low, config.high)
    if trained is not None:
        generators.check_fits(trained, dataset.shape, config.low, config.high)

    def load(x: "Tensor", classes: int) -> "Classifier":
        return load_classifier(model, x, loading, label_classes=classes)

    prepared = prepare(dataset, config, load)
    if taught.data is not None:
        trained = _teach(taught.data, config, load, out / GENERATOR_FILE, reading, device, quiet)
    prepared.generator = trained
    return run(prepared, bar(quiet))


def _teach(
    data: Path,
    config: "ScanConfig",
    load: "Load",
    file: Path,
    reading: Reading,
    device: "torch.device",
    quiet: bool,
) -> "Trained":
    """Train a generator within the scan's effort; it stays beside the report."""
    from audit import generators, training
    from audit.progress import bar

    lesson = training.prepare(
        reading.open(data, config.low, config.high), training.within(config), load
    )
    course = training.train(lesson, training.begin(lesson), None, bar(quiet))
    with _written(file) as path:
        path.write_bytes(training.finished(lesson, course))
    return generators.read(file, device)


def _train_attacker(
    model: Path,
    data: Path,
    config: "TrainConfig",
    loading: "LoadOptions",
    out: Path,
    reading: Reading,
    *,
    resume: bool,
    quiet: bool,
) -> None:
    from audit import training
    from audit.models import load_classifier, pick_device
    from audit.models.files import identify
    from audit.progress import bar

    pick_device(loading.device)
    check_writable(out.parent)
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder: name a file such as generator.safetensors.")
    identify(model)
    lesson = training.prepare(
        reading.open(data, config.low, config.high),
        config,
        lambda x, classes: load_classifier(model, x, loading, label_classes=classes),
    )
    checkpoint = out.with_name(f"{out.name}.checkpoint")
    if resume and not checkpoint.exists():
        raise UsageError(f"There is no {checkpoint} to go on from: leave --resume out.")
    course = training.resumed(lesson, checkpoint) if resume else training.begin(lesson)
    try:
        training.train(lesson, course, checkpoint, bar(quiet))
    except KeyboardInterrupt:
        raise Interrupted(
            f"Interrupted after {course.state.number} steps, which {checkpoint} keeps: go on with "
            "--resume."
        ) from None
    with _written(out) as path:
        path.write_bytes(training.finished(lesson, course))
    checkpoint.unlink(missing_ok=True)
    last = min(course.history, key=lambda entry: entry["judged"])
    if not quiet:
        _print(
            f"{out}: accuracy on {len(lesson.held_out)} samples kept out {last['clean']:.1%}, "
            f"{last['generated']:.1%} as generated, {last['judged']:.1%} as judged under "
            f"wasserstein at {config.radius:g}\n"
        )


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
    from audit import generators
    from audit.harden import loop, outcome, session
    from audit.models import load_classifier, pick_device
    from audit.models.files import identify
    from audit.progress import bar

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
    trained = None if generator is None else generators.read(generator, device)
    train = reading.open(data, config.low, config.high)
    test = reading.open(evaluation, config.low, config.high)
    if trained is not None:
        generators.check_fits(trained, train.shape, config.low, config.high)

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
        with _written(path) as temporary:
            temporary.write_bytes(content)
    if interrupted:
        raise Interrupted(
            f"Interrupted after {at.number} steps: {hardened} has the weights of epoch "
            f"{at.best_epoch}, the best so far, and was not scanned. Go on with --resume."
        )

    def teach(file: Path, scan: "ScanConfig", name: str) -> "Trained | None":
        # Against a model that was trained on a generator, a new one has to be tried.
        if config.method != "wagan":
            return None
        kept = out / name / GENERATOR_FILE
        return _teach(data, scan, load(file), kept, reading, device, quiet)

    report = outcome.judge(
        opened, at, model, hardened, test, config, scans, load, progress,
        lambda scan, name: _write(
            scan, out / name, loading, reading, Taught(), Gates()
        ),
        teach,
    )  # fmt: skip
    from reports import harden as renderer

    _write_text(out / "harden.html", renderer.html(report))
    _write_text(out / "harden.json", report.model_dump_json(indent=1) + "\n")
    checkpoint.unlink(missing_ok=True)
    _print(renderer.text(report) if not quiet else f"{hardened}\n")


def _say_epoch(entry: "Entry", quiet: bool) -> None:
    if not quiet:
        typer.echo(
            f"epoch {entry['epoch']}: loss {entry['loss']:.4g}, kept out: clean "
            f"{entry['clean']:.1%}, attacked {entry['attacked']:.1%}; evaluation clean "
            f"{entry['evaluation']:.1%}{'' if entry['accepted'] else ' (below --min-clean)'}",
            err=True,
        )


def _write(
    outcome: "Scan",
    out: Path,
    loading: "LoadOptions",
    reading: Reading,
    taught: Taught,
    gates: Gates,
) -> "Report":
    """Write all files of a report, each under a temporary name first, the JSON last."""
    import numpy

    from audit import artifacts, assemble
    from reports import RENDERERS

    record = assemble.record(
        outcome,
        loading,
        {
            "generator": None if taught.file is None else str(taught.file),
            "train_data": None if taught.data is None else str(taught.data),
            "resize": reading.resize,
            "class_map": None if reading.class_map is None else str(reading.class_map),
            "fail_under": gates.minimum,
            "policy": None if gates.file is None else str(gates.file),
            "strict": gates.strict,
            "out": str(out),
        },
    )
    report = assemble.report_of(outcome, config=record, gates=gates.judged)
    with _interruptible(f"while the report was written: {out} is incomplete"):
        _write_text(out / assemble.SAMPLES_FILE, artifacts.samples_csv(outcome))
        with _written(out / assemble.ADVERSARIAL_FILE) as path, path.open("wb") as file:
            arrays = artifacts.adversarial_arrays(outcome)
            numpy.savez_compressed(file, allow_pickle=False, **arrays)
        _write_text(out / assemble.HTML_FILE, RENDERERS["html"](report))
        _write_text(out / "report.json", RENDERERS["json"](report))
    return report


def _write_text(path: Path, text: str) -> None:
    with _written(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """A temporary name that becomes ``path``; a file that cannot be written is a usage error."""
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror}): choose another --out."
        ) from error


def _show(report: "Report", out: Path, *, quiet: bool, verbose: bool) -> None:
    from audit.report import reliability

    if quiet:
        gates = f"verdict {report.verdict}" if report.gates else "no gates were set"
        _print(f"{gates}, reliability {reliability(report)}, report in {out}\n")
        return
    from rich.console import Console

    from reports import terminal

    screen = Console()
    text = terminal.render(
        report,
        width=min(screen.width, 120) if screen.is_terminal else 100,
        # Without colour there is no bold or dim either: NO_COLOR is set for plain text.
        color=screen.is_terminal and screen.color_system is not None and not screen.no_color,
        full=verbose,
    )
    _print(f"{text}Report: {out / 'report.html'}, {out / 'report.json'}\n")


def _exit_code(report: "Report", *, strict: bool) -> int:
    """Exit status of a scan: that it was stopped, or what its gates and its evidence say."""
    from audit.gate import exit_code

    if report.status == "interrupted":
        return EXIT_INTERRUPTED
    return exit_code(report, strict=strict)
