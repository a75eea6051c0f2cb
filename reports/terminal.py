"""The report as text for a terminal, or for a file when colours are off."""

from collections import defaultdict
from collections.abc import Iterable
from io import StringIO

from rich.console import Console, Group, RenderableType
from rich.text import Text

from audit.schema import Health, ScanReport
from reports import summary, threat_rows
from reports.console import (
    STYLES,
    GroupedTable,
    grid,
    heading,
    item,
    pairs,
    status_text,
    styled,
)
from reports.numbers import NOT_MEASURED, distance, exact, significant, thousands, value_text
from reports.threat_tables import accuracy_table, attack_table, detail_tables


def render(report: ScanReport, *, width: int = 100, color: bool = False, full: bool = True) -> str:
    """Return the report as text.

    Args:
        report: what to show.
        width: columns of the terminal.
        color: whether ANSI colours are written; without them the text holds no escape code.
        full: whether the details follow verdict, tables and warnings: accuracy relative to clean,
            sensitivity, radii, configuration, environment.
    """
    console = Console(
        file=StringIO(),
        width=width,
        height=50,
        force_terminal=color,
        force_jupyter=False,
        no_color=not color,
        color_system="standard" if color else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    with console.capture() as capture:
        for part in _sections(report, full):
            console.print(part)
            console.print()
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines()) + "\n"


def _sections(report: ScanReport, full: bool) -> Iterable[RenderableType]:
    yield _header(report, full)
    for threat in report.threats:
        yield accuracy_table(threat)
        yield attack_table(threat)
        if full:
            yield from detail_tables(threat)
    if full and report.generator is not None:
        rows = grid((name, styled(value)) for name, value in threat_rows.generator_rows(report))
        yield Group(heading("Generator", threat_rows.GENERATED), rows)
    yield _health_list(report, full)
    if report.gates:
        yield _gate_list(report)
    if report.warnings:
        yield Group(heading("Warnings"), *(item(warning) for warning in report.warnings))
    if full:
        yield from _background(report)
    yield _footer(report)


def _header(report: ScanReport, full: bool) -> Group:
    colour, meaning = summary.reliability_line(report)
    model, data = report.model, report.data
    smoothed = "" if model.smoothed is None else f", smoothed with sigma {exact(model.smoothed)}"
    accuracy = (
        f"{summary.clean_sentence(report)}, {summary.confidence(report)} interval "
        f"{summary.clean_interval(report).ends}"
    )
    facts = f"  {model.format}, {thousands(model.classes)} classes"
    evaluated = f"{thousands(data.evaluated)} of {thousands(data.available)} samples evaluated"
    verdict = (report.verdict.upper(), STYLES[report.verdict])
    rows = [
        ("model", styled((model.path, "bold"), facts, smoothed)),
        ("data", styled(data.path, f"  {evaluated}")),
        ("accuracy", styled(accuracy)),
        ("reliability", styled((colour, STYLES[colour]), f"  {meaning}")),
        ("gates", styled(verdict, f"  {summary.VERDICTS[report.verdict]}")),
    ]
    if report.status != "complete":
        status = (report.status.upper(), "bold yellow")
        rows.append(("status", styled(status, f"  {summary.STATUSES[report.status]}")))
    for line in filter(None, map(summary.headline, report.threats)):
        where = f"{summary.order_label(line.order)}, delta {line.budget}: "
        bracket = (summary.bracket_sentence(line), "bold")
        rows.append((line.metric, styled(where, "the strongest adversary leaves ", bracket)))
    facts_grid = grid(rows)
    if not full:
        return Group(facts_grid)
    return Group(facts_grid, Text(), styled((summary.BOUNDS_EXPLAINED, "dim")))


def _health_list(report: ScanReport, full: bool) -> Group:
    worst, passed = summary.troubled_checks(report)
    lines = [item(styled(status_text(h.status), " ", *_check_parts(h, full))) for h in worst]
    lines.append(item(f"{thousands(passed)} of {thousands(len(report.health))} checks passed"))
    if full:
        passes = (h for h in report.health if h.status == "pass")
        lines += [item(styled(status_text(h.status), " ", *_check_parts(h, full))) for h in passes]
    return Group(heading("Health of the evidence"), *lines)


def _check_parts(entry: Health, full: bool) -> list[str | tuple[str, str]]:
    """Return title, finding, advice and id of a check; with ``full`` also its numbers."""
    numbers = summary.check_numbers(entry) if full else ""
    return [
        f"{summary.check_name(entry)}: {entry.text}",
        (f" [{entry.id}{': ' if numbers else ''}{numbers}]", "dim"),
    ]


def _gate_list(report: ScanReport) -> Group:
    lines = [
        item(
            styled(
                status_text(gate.status),
                f" {gate.expression}",
                "" if gate.value is None else f"; measured {exact(gate.value)}",
                f"; {gate.detail}" if gate.detail else "",
            )
        )
        for gate in report.gates
    ]
    return Group(heading("Gates"), *lines)


def _background(report: ScanReport) -> Iterable[Group]:
    model, data = report.model, report.data
    shape = " × ".join("any" if size is None else str(size) for size in model.input.shape)
    parity = (
        NOT_MEASURED
        if model.parity is None
        else f"largest difference {significant(model.parity.max_abs_difference, 'up')} "
        f"on {thousands(model.parity.samples)} samples"
    )
    yield pairs(
        "Model and data",
        {
            # A Python function has no bytes to hash.
            **({"model sha256": model.sha256} if model.sha256 else {}),
            "input": f"{shape} {model.input.dtype}, layout {value_text(model.input.layout)}, "
            f"range [{exact(model.input.low)}, {exact(model.input.high)}]",
            "mean": value_text(model.input.mean),
            "std": value_text(model.input.std),
            "output": model.output,
            "gradient": model.gradient,
            "parity": parity,
            "data sha256": data.sha256,
        },
    )
    settings = {key: value_text(v) for key, v in report.config.items() if key != "command"}
    yield pairs("Configuration", settings)
    yield pairs("Environment", {key: value_text(v) for key, v in report.environment.items()})
    if report.artifacts.gallery:
        yield _gallery_table(report)


def _gallery_table(report: ScanReport) -> Group:
    groups: defaultdict[str, list[list[Text]]] = defaultdict(list)
    for entry in report.artifacts.gallery:
        cells = (
            str(entry.index),
            str(entry.label),
            str(entry.prediction),
            threat_rows.model_confidence(entry),
            distance(entry.distance, "attacked"),
            entry.attack,
        )
        groups[entry.metric].append([styled(cell) for cell in cells])
    names = ("sample", "label", "prediction", "confidence", ">distance", "attack")
    return Group(
        heading("Gallery", "the pictures are in the HTML report"), GroupedTable(names, groups)
    )


def _footer(report: ScanReport) -> Group:
    tool = f"{report.tool.name} {report.tool.version}"
    lines: list[RenderableType] = [heading("Files", f"{tool}, {report.created}")]
    artifacts = report.artifacts
    for path in (artifacts.html, artifacts.samples, artifacts.adversarial):
        if path:
            lines.append(item(path))
    if repeat := summary.scan_command(report):
        lines += [Text(), heading("Reproduce"), item(repeat)]
    return Group(*lines)
