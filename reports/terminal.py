"""The report as text for a terminal, or for a file when colours are off."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import StringIO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from audit.schema import Curve, Health, Interval, Point, Report, ThreatResult
from reports import summary
from reports.numbers import (
    NOT_MEASURED,
    Side,
    budget,
    count,
    distance,
    exact,
    mean,
    plain,
    remark,
    seconds,
    share,
    significant,
)

STYLES = {
    "GREEN": "bold green",
    "AMBER": "bold yellow",
    "RED": "bold red",
    "pass": "green",
    "ran": "green",
    "warn": "yellow",
    "inconclusive": "yellow",
    "not_applicable": "dim",
    "fail": "bold red",
    "error": "bold red",
    "none": "dim",
    "waived": "dim",
}

SIDES: tuple[Side, Side] = ("attacked", "certified")

BUDGET = 14
"""Columns of a budget and the space behind it, '112/255' above '(0.43921)'."""

CELL = 14
"""Columns of an interval and the space behind it, '[99.9, 100.0]'."""

LONG_CELL = 20
"""The same with the value before it."""


def render(report: Report, *, width: int = 100, color: bool = False, full: bool = True) -> str:
    """The report as text.

    Args:
        report: what to show.
        width: columns of the terminal.
        color: whether ANSI colours are written; without them the text holds no escape code.
        full: whether to go on, after verdict, tables and warnings, with the details: accuracy
            relative to clean, sensitivity, radii, configuration, environment.
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
        for part in _parts(report, width, full):
            console.print(part)
            console.print()
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines()) + "\n"


def _parts(report: Report, width: int, full: bool) -> Iterable[RenderableType]:
    yield _header(report, full)
    for threat in report.threats:
        yield _accuracies(threat, width)
        yield _attacks(threat)
        if full:
            yield from _details(threat, width)
    if full and report.generator is not None:
        yield _generator(report)
    yield _health(report, full)
    if report.gates:
        yield _gates(report)
    if report.warnings:
        yield Group(_title("Warnings"), *(_item(warning) for warning in report.warnings))
    if full:
        yield from _background(report)
    yield _footer(report)


def _header(report: Report, full: bool) -> Group:
    colour, meaning = summary.reliability_line(report)
    model, data = report.model, report.data
    rows = [
        (
            "model",
            _text(
                (model.path, "bold"),
                f"  {model.format}, {count(model.classes)} classes",
                "" if model.smoothed is None else f", smoothed with sigma {exact(model.smoothed)}",
            ),
        ),
        (
            "data",
            _text(
                data.path,
                f"  {count(data.evaluated)} of {count(data.available)} samples evaluated",
            ),
        ),
        (
            "accuracy",
            _text(
                summary.clean(report),
                f", {summary.confidence(report)} interval {summary.clean_interval(report).ends}",
            ),
        ),
        ("reliability", _text((colour, STYLES[colour]), f"  {meaning}")),
        (
            "gates",
            _text(
                (report.verdict.upper(), STYLES[report.verdict]),
                f"  {summary.VERDICTS[report.verdict]}",
            ),
        ),
    ]
    if report.status != "complete":
        status = _text(
            (report.status.upper(), "bold yellow"), f"  {summary.STATUSES[report.status]}"
        )
        rows.append(("status", status))
    for line in filter(None, map(summary.headline, report.threats)):
        rows.append(
            (
                line.metric,
                _text(
                    f"{summary.order_name(line.order)}, delta {line.budget}: the strongest "
                    "adversary leaves ",
                    (summary.bracket(line), "bold"),
                ),
            )
        )
    grid = _grid(rows)
    return Group(grid, Text(), _text((summary.NO_REPAIR, "dim"))) if full else Group(grid)


def _grid(rows: Iterable[tuple[str, Text]]) -> Table:
    """Two columns without lines: names, and what they name."""
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True, max_width=24)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(_text(name), value)
    return grid


def _accuracies(threat: ThreatResult, width: int) -> Group:
    title = _title(
        f"{threat.metric}: accuracy against the budget", f"delta in {threat.unit}, values in %"
    )
    if not threat.curves:
        return Group(title, _item("no curve was measured"))
    return Group(title, *_curve_tables(threat, width, _accuracy_of))


def _relative(threat: ThreatResult, width: int) -> Group:
    title = _title(
        f"{threat.metric}: share of the clean accuracy kept", "R = accuracy / clean, in %"
    )
    return Group(title, *_curve_tables(threat, width, _robustness_of))


def _accuracy_of(point: Point) -> tuple[Interval, Interval]:
    return point.attacked, point.certified


def _robustness_of(point: Point) -> tuple[Interval, Interval]:
    return point.robustness.attacked, point.robustness.certified


def _curve_tables(
    threat: ThreatResult, width: int, values: Callable[[Point], tuple[Interval, Interval]]
) -> Iterator[Table]:
    """As few tables as the width allows: rows are budgets, columns both ends for each order."""
    per_table = max(1, (width - BUDGET) // (2 * CELL))
    one_line = width >= BUDGET + 2 * len(threat.curves) * LONG_CELL
    for start in range(0, len(threat.curves), per_table):
        curves = threat.curves[start : start + per_table]
        yield _curve_table(threat.metric, curves, values, one_line)


def _curve_table(
    metric: str,
    curves: Sequence[Curve],
    values: Callable[[Point], tuple[Interval, Interval]],
    one_line: bool,
) -> Table:
    table = _table("delta")
    for curve in curves:
        for side in SIDES:
            heading = _text(summary.order_name(curve.order), Text("\n"), side)
            table.add_column(heading, justify="right", no_wrap=True)
    by_delta = [{point.delta: point for point in curve.points} for curve in curves]
    for delta in sorted({delta for points in by_delta for delta in points}):
        row = [_lines(budget(delta, metric), one_line)]
        for points in by_delta:
            if delta not in points:
                row += [_text(("–", "dim"))] * 2
                continue
            for side, interval in zip(SIDES, values(points[delta]), strict=True):
                shown = share(interval, side)
                row.append(_lines(f"{shown.value.removesuffix(' %')} {shown.ends}", one_line))
        table.add_row(*row)
    return table


def _lines(shown: str, one_line: bool) -> Text:
    """A value and what stands in brackets behind it, on one line or two."""
    cut = next((i for i, c in enumerate(shown) if c in "[("), len(shown))
    value, ends = shown[:cut].rstrip(), shown[cut:]
    if not ends:
        return _text((value, "bold"))
    return _text((value, "bold"), Text(" " if one_line else "\n"), ends)


def _attacks(threat: ThreatResult) -> Group:
    table = _table("attack", "status", "broken", "forwards", "gradients", "time", "detail")
    for column in table.columns[2:6]:
        column.justify = "right"
    for attack in threat.attacks:
        table.add_row(
            _text(attack.name),
            _status(attack.status),
            *(
                _text(_dash(shown))
                for shown in (
                    count(attack.broken),
                    count(attack.forwards),
                    count(attack.gradients),
                    seconds(attack.seconds),
                )
            ),
            _text(remark(attack)),
        )
    certifier = threat.certifier
    line = _text(
        ("Certifier ", "dim"),
        f"{certifier.name}: ",
        _status(certifier.status),
        f", {seconds(certifier.seconds)}, failure probability per sample at most "
        f"{significant(certifier.failure_probability, 'up')}",
        f"; {certifier.detail}" if certifier.detail else "",
    )
    return Group(_title(f"{threat.metric}: attacks"), table, Padding(line, (0, 0, 0, 2)))


def _details(threat: ThreatResult, width: int) -> Iterable[RenderableType]:
    if threat.curves:
        yield _relative(threat, width)
    if threat.sensitivity:
        yield _sensitivity(threat)
    if values := summary.values(threat):
        yield _values(threat.metric, values)
    if estimates := summary.estimates(threat):
        yield _estimates(threat.metric, estimates)
    yield _radii(threat)
    if threat.classes:
        yield _classes(threat)
    if threat.soft:
        yield _soft(threat)


def _soft(threat: ThreatResult) -> Group:
    table = _table("delta", *(summary.order_name(curve.order) for curve in threat.soft))
    by_delta: dict[float, list[str]] = {
        point.delta: [] for curve in threat.soft for point in curve.points
    }
    for curve in threat.soft:
        for point in curve.points:
            by_delta[point.delta].append(str(share(point.certified, "certified")))
    for delta, shown in sorted(by_delta.items()):
        table.add_row(_text(budget(delta, threat.metric)), *(_text(cell) for cell in shown))
    return Group(_title(f"{threat.metric}: soft accuracy, at least", summary.SOFT), table)


def _classes(threat: ThreatResult) -> Group:
    table = _table("class", "samples", "clean", "delta", "attacked", "certified")
    shown = summary.classes(threat)
    for entry in shown:
        first = (
            summary.class_name(entry),
            count(entry.samples),
            str(share(entry.clean, "certified")),
        )
        for point in entry.points:
            table.add_row(
                *(
                    _text(cell)
                    for cell in (
                        *first,
                        budget(point.delta, threat.metric),
                        str(share(point.attacked, "attacked")),
                        str(share(point.certified, "certified")),
                    )
                )
            )
            first = ("", "", "")
    left = len(threat.classes) - len(shown)
    note = f"pointwise, worst first{f'; {count(left)} more in report.json' if left else ''}"
    return Group(_title(f"{threat.metric}: by class", note), table)


def _sensitivity(threat: ThreatResult) -> Group:
    table = _table("order", "loss", "Upsilon", "V(0)")
    for entry in threat.sensitivity:
        table.add_row(
            _text(entry.order),
            _text(entry.loss),
            _text(str(mean(entry.upsilon))),
            _text(str(mean(entry.value_at_zero))),
        )
    return Group(
        _title(f"{threat.metric}: sensitivity", "V(delta) = V(0) + delta · Upsilon + o(delta)"),
        table,
    )


def _values(metric: str, values: Sequence[summary.Value]) -> Group:
    table = _table("order", "loss", "delta", "at least", "first order", "at most", "estimate")
    for column in table.columns[3:6]:
        column.justify = "right"
    for entry in values:
        table.add_row(
            _text(entry.order),
            _text(entry.loss),
            _text(budget(entry.delta, metric)),
            _text(entry.attained),
            _text(entry.first_order),
            _text(entry.bounded),
            _text((entry.outside, "yellow" if entry.outside.startswith("too") else "")),
        )
    return Group(
        _title(f"{metric}: the loss V(delta)", "attained, estimated, bounded; on these samples"),
        table,
    )


def _estimates(metric: str, estimates: Sequence[summary.Estimate]) -> Group:
    table = _table("order", "loss", "delta", "upper R^u", "lower R~l", "lower R-l", "violated")
    for column in table.columns[3:6]:
        column.justify = "right"
    for entry in estimates:
        table.add_row(
            _text(entry.order),
            _text(entry.loss),
            _text(budget(entry.delta, metric)),
            _text(entry.upper),
            _text(entry.lower_value),
            _text(entry.lower_slope),
            _text((entry.violated, "yellow")),
        )
    return Group(_title(f"{metric}: first-order estimates of R", "estimates, not bounds"), table)


def _radii(threat: ThreatResult) -> Group:
    table = _table("radius")
    rows = (threat.radii.attacked.quantiles, threat.radii.certified.quantiles)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    for key in keys:
        table.add_column(_text(summary.quantile(key)), justify="right")
    for side, row in zip(SIDES, rows, strict=True):
        found = [
            distance(row[key], side) if row.get(key) is not None else "none found" for key in keys
        ]
        table.add_row(side, *(_text(cell) for cell in found))
    title = _title(f"{threat.metric}: radii, quantiles over all samples", f"in {threat.unit}")
    if threat.radii.histogram is None:
        return Group(title, table)
    bins = _table("radius", ">attacked", ">certified")
    for cells in summary.bins(threat):
        bins.add_row(*map(_text, cells))
    return Group(
        title, table, Text(), _title(f"{threat.metric}: correct samples by radius", "counts"), bins
    )


def _generator(report: Report) -> Group:
    rows = [(name, _text(value)) for name, value in summary.generator(report)]
    return Group(_title("The generator, as it generates", summary.GENERATED), _grid(rows))


def _health(report: Report, full: bool) -> Group:
    worst, passed = summary.trouble(report)
    lines = [_item(_text(_status(h.status), " ", *_check_parts(h, full))) for h in worst]
    lines.append(_item(f"{count(passed)} of {count(len(report.health))} checks passed"))
    if full:
        passes = (h for h in report.health if h.status == "pass")
        lines += [_item(_text(_status(h.status), " ", *_check_parts(h, full))) for h in passes]
    return Group(_title("Health of the evidence"), *lines)


def _check_parts(entry: Health, full: bool) -> list[str | tuple[str, str]]:
    """Title, finding and advice of a check, and its numbers where everything is shown."""
    numbers = summary.check_numbers(entry) if full else ""
    return [
        f"{summary.check_name(entry)}: {summary.check_text(entry)}",
        (f" [{entry.id}{': ' if numbers else ''}{numbers}]", "dim"),
    ]


def _gates(report: Report) -> Group:
    table = _table("gate", "expression", "status", "value", "detail")
    for gate in report.gates:
        table.add_row(
            _text(gate.id),
            _text(gate.expression),
            _status(gate.status),
            _text(exact(gate.value)),
            _text(gate.detail),
        )
    return Group(_title("Gates"), table)


def _background(report: Report) -> Iterable[Group]:
    model, data = report.model, report.data
    shape = " × ".join("any" if size is None else str(size) for size in model.input.shape)
    parity = (
        "not measured"
        if model.parity is None
        else f"largest difference {significant(model.parity.max_abs_difference, 'up')} "
        f"on {count(model.parity.samples)} samples"
    )
    yield _pairs(
        "Model and data",
        {
            "model sha256": model.sha256,
            "input": f"{shape} {model.input.dtype}, layout {plain(model.input.layout)}, "
            f"range [{exact(model.input.low)}, {exact(model.input.high)}]",
            "mean": plain(model.input.mean),
            "std": plain(model.input.std),
            "output": model.output,
            "gradient": model.gradient,
            "parity": parity,
            "data sha256": data.sha256,
        },
    )
    settings = {key: plain(value) for key, value in report.config.items() if key != "command"}
    yield _pairs("Configuration", settings)
    yield _pairs("Environment", {key: plain(value) for key, value in report.environment.items()})
    if report.artifacts.gallery:
        yield _gallery(report)


def _gallery(report: Report) -> Group:
    table = _table("metric", "sample", "label", "prediction", "confidence", "distance", "attack")
    for item in report.artifacts.gallery:
        table.add_row(
            _text(item.metric),
            _text(str(item.index)),
            _text(str(item.label)),
            _text(str(item.prediction)),
            _text(summary.certainty(item).removeprefix("confidence ")),
            _text(distance(item.distance, "attacked")),
            _text(item.attack),
        )
    return Group(_title("Gallery", "pictures are in the HTML report"), table)


def _footer(report: Report) -> Group:
    tool = f"{report.tool.name} {report.tool.version}"
    lines: list[RenderableType] = [_title("Files", f"{tool}, {report.created}")]
    artifacts = report.artifacts
    for path in (artifacts.html, artifacts.samples, artifacts.adversarial):
        if path:
            lines.append(_item(path))
    if repeat := summary.command(report):
        lines += [Text(), _title("Reproduce"), _item(repeat)]
    return Group(*lines)


def _pairs(title: str, pairs: dict[str, str]) -> Group:
    grid = _grid((key, _text(value)) for key, value in pairs.items())
    return Group(_title(title), Padding(grid, (0, 0, 0, 2)))


def _dash(shown: str) -> str:
    """A dash where the status beside it already says why nothing was measured."""
    return "–" if shown == NOT_MEASURED else shown


def _table(*columns: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1),
        collapse_padding=True,
        header_style="bold",
    )
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _title(title: str, note: str = "") -> Text:
    return _text((title, "bold"), (f"   {note}", "dim") if note else "")


def _item(line: str | Text) -> Padding:
    return Padding(_text(line), (0, 0, 0, 2))


def _status(status: str) -> Text:
    return Text(status.replace("_", " "), style=STYLES.get(status, ""))


def _text(*parts: str | Text | tuple[str, str]) -> Text:
    """Styled text in which foreign strings can neither format nor move the cursor."""
    text = Text()
    for part in parts:
        if isinstance(part, Text):
            text.append_text(part)
        elif isinstance(part, tuple):
            text.append(_printable(part[0]), style=part[1])
        else:
            text.append(_printable(part))
    return text


INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, directions, lone surrogates, line breaks


def _printable(text: str) -> str:
    """The text with control, direction and line characters written as escapes."""
    return "".join(f"\\u{ord(c):04x}" if unicodedata.category(c) in INVISIBLE else c for c in text)
