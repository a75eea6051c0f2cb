"""`audit scan`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audit.cli.app import EXIT_CODES, app
from audit.cli.arguments import (
    DATA_HELP,
    MODEL_HELP,
    POLICY_HELP,
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
from audit.cli.output import (
    interruptible,
    log_to_stderr,
    print_text,
    read_baseline,
    write_others,
    write_text,
)
from audit.cli.scans import EXIT_INTERRUPTED, exit_code_of, run_scan, show, write_report
from audit.errors import UsageError

if TYPE_CHECKING:
    from audit.comparison import Radii
    from audit.schema import Comparison, Report


@app.command(epilog=EXIT_CODES)
@interruptible("before there was anything to report")
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
    from audit import values

    log_to_stderr(verbose)

    if fail_under is not None and not delta:
        raise UsageError("--fail-under needs --delta: say at which budgets accuracy is required.")
    minimum = None if fail_under is None else values.number(fail_under, "--fail-under")
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
    before = None if baseline is None else read_baseline(baseline)
    limit = regression_of(max_regression)
    if limit is not None and baseline is None:
        raise UsageError("--max-regression needs --baseline: say what to compare with.")
    outcome = run_scan(model, data, config, loading, out, reading, taught, quiet=quiet)
    report = write_report(outcome, out, loading, reading, taught, gates)
    write_others(report, Outputs(html, json, junit, sarif, markdown))
    show(report, out, quiet=quiet, verbose=verbose)
    code = exit_code_of(report, strict=strict)
    if code == EXIT_INTERRUPTED:
        raise typer.Exit(code)
    if before is not None:
        found = _compared(before, report, out, limit)
        code = code or regression_code(found)
    raise typer.Exit(0 if exit_zero else code)


def _compared(
    before: "tuple[Report, Radii]", report: "Report", out: Path, limit: float | None
) -> "Comparison":
    """Compare a fresh report with a baseline; the result lies beside the report."""
    from audit import comparison as comparing
    from reports.comparison import COMPARISON_RENDERERS

    old, radii = before
    found = comparing.compare(old, report, radii, comparing.read_radii(report, out), limit=limit)
    write_text(out / "comparison.html", COMPARISON_RENDERERS["html"](found))
    write_text(out / "comparison.md", COMPARISON_RENDERERS["markdown"](found))
    write_text(out / "comparison.json", COMPARISON_RENDERERS["json"](found))
    print_text(COMPARISON_RENDERERS["text"](found))
    return found


def regression_code(found: "Comparison") -> int:
    """Exit status of a comparison: 1 where accuracy was lost, 4 where that is open."""
    return {"fail": 1, "inconclusive": 4}.get(found.status, 0)
