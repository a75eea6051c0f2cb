"""Tables of one metric for a terminal, narrow enough for 60 columns.

Rows are grouped below the order (or class, or loss) that they share, so the width of a table does
not depend on how many orders, classes or budgets a scan has.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

from rich.console import Group, RenderableType
from rich.text import Text

from audit.schema import Interval, Point, ThreatResult
from reports import threat_rows
from reports.console import (
    GroupedTable,
    WidthDependent,
    columns,
    heading,
    item,
    status_text,
    styled,
)
from reports.numbers import (
    NOT_MEASURED,
    Side,
    budget,
    distance,
    mean,
    proportion,
    remark,
    seconds,
    significant,
    thousands,
)
from reports.summary import order_label

BOTH_SIDES: tuple[Side, Side] = ("attacked", "certified")
BOUNDS = ("attacked (at most)", "certified (at least)")

LONGEST_ATTACK_NAME = 16
"""Columns that a name gets at least in the table of attacks; a longer one may wrap."""

Groups = defaultdict[str, list[list[Text]]]
"""Rows of a table below the title that they share."""


def accuracy_table(threat: ThreatResult) -> Group:
    """Return accuracy against the budget, a group of rows per order."""
    title = heading(
        f"{threat.metric}: accuracy against the budget", f"delta in {threat.unit}, values in %"
    )
    if not threat.curves:
        return Group(title, item("no curve was measured"))
    return _bracket_table(threat, title, lambda point: (point.attacked, point.certified))


def relative_table(threat: ThreatResult) -> Group:
    """Return R_delta, the share of the clean accuracy that remains."""
    title = heading(
        f"{threat.metric}: remaining share of the clean accuracy", "R = accuracy / clean, in %"
    )
    return _bracket_table(
        threat, title, lambda point: (point.robustness.attacked, point.robustness.certified)
    )


def _bracket_table(
    threat: ThreatResult, title: Text, sides: Callable[[Point], tuple[Interval, Interval]]
) -> Group:
    groups = {
        order_label(curve.order): [
            [styled(budget(point.delta, threat.metric)), *_bracket_cells(sides(point))]
            for point in sorted(curve.points, key=lambda point: point.delta)
        ]
        for curve in threat.curves
    }
    return Group(title, GroupedTable(("delta", *BOUNDS), groups))


def _bracket_cells(intervals: tuple[Interval, Interval]) -> list[Text]:
    """Return an attacked and a certified value, decimal points one below the other."""
    cells = []
    for side, interval in zip(BOTH_SIDES, intervals, strict=True):
        shown = proportion(interval, side)
        value = shown.value.removesuffix(" %").rjust(len("100.0"))
        cells.append(styled((value, "bold"), f" {shown.ends}" if shown.ends else ""))
    return cells


def attack_table(threat: ThreatResult) -> Group:
    """Return what each attack broke and cost, with its remarks below the table."""
    certifier = threat.certifier
    certified = styled(
        ("certifier ", "dim"),
        f"{certifier.name}: ",
        status_text(certifier.status),
        f", {seconds(certifier.seconds)}, failure probability per sample at most "
        f"{significant(certifier.failure_probability, 'up')}",
        f"; {certifier.detail}" if certifier.detail else "",
    )
    remarks = [
        item(styled((attack.name, "dim"), f": {said}"))
        for attack in threat.attacks
        if (said := remark(attack))
    ]
    return Group(
        heading(f"{threat.metric}: attacks"), _attack_costs(threat), *remarks, item(certified)
    )


def _attack_costs(threat: ThreatResult) -> WidthDependent:
    """Return a row per attack, or a sentence per attack where the numbers need more columns."""
    names = ("attack", "status", "broken", "forwards", "gradients", "time")
    table = columns(*names[:2], *(f">{name}" for name in names[2:]))
    sentences = []
    widths = [len(name) for name in names]
    for attack in threat.attacks:
        cost = (
            thousands(attack.broken),
            thousands(attack.forwards),
            thousands(attack.gradients),
            seconds(attack.seconds),
        )
        status = status_text(attack.status)
        cells = (styled(attack.name), status, *(styled(_dash(number)) for number in cost))
        table.add_row(*cells)
        widths = [max(width, cell.cell_len) for width, cell in zip(widths, cells, strict=True)]
        measured = [
            number if name == "time" else f"{number} {name}"
            for name, number in zip(names[2:], cost, strict=True)
            if number != NOT_MEASURED
        ]
        sentences.append(item(styled(attack.name, ": ", status, *(f", {m}" for m in measured))))
    widths[0] = min(widths[0], LONGEST_ATTACK_NAME)
    return WidthDependent(sum(widths) + 2 * len(widths) - 2, table, Group(*sentences))


def _dash(shown: str) -> str:
    """Return a dash for a missing number whose status already gives the reason."""
    return "–" if shown == NOT_MEASURED else shown


def detail_tables(threat: ThreatResult) -> Iterable[RenderableType]:
    """Yield all tables of a metric except those of accuracies and attacks."""
    if threat.curves:
        yield relative_table(threat)
    if threat.sensitivity:
        yield _sensitivity_table(threat)
    if losses := threat_rows.loss_bounds(threat):
        yield _loss_table(threat.metric, losses)
    if estimates := threat_rows.estimates(threat):
        yield _estimate_table(threat.metric, estimates)
    yield _quantile_table(threat)
    if threat.radii.histogram is not None:
        yield _histogram_table(threat)
    if threat.classes:
        yield _class_table(threat)
    if threat.soft:
        yield _soft_table(threat)


def _sensitivity_table(threat: ThreatResult) -> Group:
    groups: Groups = defaultdict(list)
    for entry in threat.sensitivity:
        cells = (entry.loss, str(mean(entry.upsilon)), str(mean(entry.value_at_zero)))
        groups[order_label(entry.order)].append([styled(cell) for cell in cells])
    note = "V(delta) = V(0) + delta · Upsilon + o(delta)"
    return Group(
        heading(f"{threat.metric}: sensitivity", note),
        GroupedTable(("loss", "Upsilon", "V(0)"), groups),
    )


def _loss_table(metric: str, losses: Iterable[threat_rows.LossBound]) -> Group:
    groups: Groups = defaultdict(list)
    for entry in losses:
        cells = (
            budget(entry.delta, metric, decimal=False),
            entry.attained,
            entry.first_order,
            entry.bounded,
        )
        refuted = "yellow" if entry.outside.startswith("too") else ""
        groups[f"{order_label(entry.order)}, loss {entry.loss}"].append(
            [*map(styled, cells), styled((entry.outside, refuted))]
        )
    note = "attained, estimated and bounded, on these samples"
    names = ("delta", ">at least", ">first order", ">at most", "estimate")
    return Group(heading(f"{metric}: loss V(delta)", note), GroupedTable(names, groups))


def _estimate_table(metric: str, estimates: Iterable[threat_rows.Estimate]) -> Group:
    groups: Groups = defaultdict(list)
    for entry in estimates:
        cells = (
            budget(entry.delta, metric, decimal=False),
            entry.upper,
            entry.lower_value,
            entry.lower_slope,
        )
        violated = "yellow" if entry.violated == "violated" else ""
        groups[f"{order_label(entry.order)}, loss {entry.loss}"].append(
            [*map(styled, cells), styled((entry.violated, violated))]
        )
    title = heading(f"{metric}: first-order estimates of R", "estimates, not bounds")
    names = ("delta", ">upper R^u", ">lower R~l", ">lower R-l", "violated")
    return Group(title, GroupedTable(names, groups))


def _quantile_table(threat: ThreatResult) -> Group:
    table = columns("quantile", *(f">{bound}" for bound in BOUNDS))
    sides = (threat.radii.attacked.quantiles, threat.radii.certified.quantiles)
    for key in dict.fromkeys(key for quantiles in sides for key in quantiles):
        found = [
            "none found" if quantiles.get(key) is None else distance(quantiles[key], side)
            for side, quantiles in zip(BOTH_SIDES, sides, strict=True)
        ]
        table.add_row(styled(threat_rows.quantile_name(key)), *map(styled, found))
    note = f"quantiles over all samples, in {threat.unit}"
    return Group(heading(f"{threat.metric}: radii", note), table)


def _histogram_table(threat: ThreatResult) -> Group:
    table = columns("radius", *(f">{bound}" for bound in BOUNDS))
    for cells in threat_rows.histogram_rows(threat):
        table.add_row(*map(styled, cells))
    return Group(heading(f"{threat.metric}: correct samples by radius", "counts"), table)


def _class_table(threat: ThreatResult) -> Group:
    shown = threat_rows.worst_classes(threat)
    groups = {
        f"class {threat_rows.class_name(entry)}: {thousands(entry.samples)} samples, "
        f"clean {proportion(entry.clean, 'certified')}": [
            [
                styled(budget(point.delta, threat.metric)),
                *_bracket_cells((point.attacked, point.certified)),
            ]
            for point in entry.points
        ]
        for entry in shown
    }
    left = len(threat.classes) - len(shown)
    note = "order inf, worst first, in %" + (
        f"; {thousands(left)} more in report.json" if left else ""
    )
    return Group(
        heading(f"{threat.metric}: by class", note), GroupedTable(("delta", *BOUNDS), groups)
    )


def _soft_table(threat: ThreatResult) -> Group:
    groups = {
        order_label(curve.order): [
            [
                styled(budget(point.delta, threat.metric)),
                *map(styled, threat_rows.soft_bounds(point.certified)),
            ]
            for point in curve.points
        ]
        for curve in threat.soft
    }
    names = ("delta", ">on the samples", ">lower confidence limit")
    return Group(
        heading(f"{threat.metric}: soft accuracy", threat_rows.SOFT), GroupedTable(names, groups)
    )
