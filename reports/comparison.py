"""The comparison of two reports as text, Markdown, one HTML file, or JSON."""

from collections.abc import Callable
from dataclasses import dataclass

from audit.schema import Comparison, Interval, ThreatChange
from reports.escaping import escape_markdown
from reports.numbers import (
    NOT_MEASURED,
    budget,
    percent,
    percentage_points,
    significant,
    thousands,
)
from reports.pages import template_text, templates
from reports.summary import file_name, order_label

LIMIT_OUTCOMES = {
    "pass": "no attacked accuracy is shown to have fallen by more than the limit",
    "fail": "an attacked accuracy fell by more than the limit, beyond its interval",
    "inconclusive": "a scan did not run to its end, so a fall of attacked accuracy is undecided",
    "none": "no limit was set",
}

COLUMN_NAMES = ("metric", "order", "delta", "attacked", "certified")


def points_with_interval(found: Interval) -> str:
    """Return a difference of shares in percentage points, with its interval."""
    ends = (found.low, found.value, found.high)
    if all(end is None for end in ends):
        return NOT_MEASURED
    low, value, high = map(percentage_points, ends)
    return f"{value} [{low}, {high}]"


def clean_change(found: Comparison) -> str:
    """Return the clean accuracy before and after, and the test of the difference."""
    return (
        f"{percent(found.clean.before, 'down')} -> {percent(found.clean.after, 'down')}, "
        f"{points_with_interval(found.clean.difference)} points, "
        f"p {significant(found.clean.p_value, 'up')}"
    )


def _change_row(change: ThreatChange) -> tuple[str, ...]:
    return (
        change.metric,
        order_label(change.order),
        budget(change.delta, change.metric),
        points_with_interval(change.attacked),
        points_with_interval(change.certified),
    )


def comparison_text(found: Comparison) -> str:
    """Return the comparison for a terminal."""
    limit = "" if found.limit is None else f" ({percent(found.limit, 'nearest')})"
    table = [COLUMN_NAMES, *map(_change_row, found.changes)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        f"{found.old} -> {found.new}, {thousands(found.samples)} paired samples",
        f"clean accuracy {clean_change(found)}",
        "differences (new minus old) in percentage points, with intervals",
        *(_aligned(row, widths) for row in table),
        *(f"note: {note}" for note in found.notes),
        f"{found.status}: {LIMIT_OUTCOMES[found.status]}{limit}",
    ]
    return "\n".join(lines) + "\n"


def _aligned(row: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()


def comparison_markdown(found: Comparison) -> str:
    """Return the comparison for the summary of a job."""
    rows = [map(escape_markdown, _change_row(change)) for change in found.changes]
    lines = [
        f"## {escape_markdown(found.old)} → {escape_markdown(found.new)}",
        "",
        f"**{found.status.upper()}**: {escape_markdown(LIMIT_OUTCOMES[found.status])}. Clean "
        f"accuracy {escape_markdown(clean_change(found))}; {thousands(found.samples)} paired "
        "samples.",
        "",
        "| " + " | ".join(COLUMN_NAMES) + " |",
        "|---" * len(COLUMN_NAMES) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    if found.notes:
        lines += ["", *(f"- {escape_markdown(note)}" for note in found.notes)]
    return "\n".join(lines) + "\n"


def comparison_json(found: Comparison) -> str:
    """Return the comparison as JSON."""
    return found.model_dump_json(indent=2) + "\n"


@dataclass(frozen=True)
class Mark:
    """An interval on an axis that is symmetric around 0, in percent of the axis' length."""

    left: float
    width: float
    value: float
    shown: str


def comparison_html(found: Comparison) -> str:
    """Return the comparison as a self-contained page without a script."""
    from markupsafe import Markup

    ends = [
        abs(end)
        for change in found.changes
        for side in (change.attacked, change.certified)
        for end in (side.low, side.high)
        if end is not None
    ]
    half_axis = max([0.01, found.limit or 0, *ends])
    threats = {
        metric: [
            (
                order_label(c.order),
                budget(c.delta, metric),
                _mark(c.attacked, half_axis),
                _mark(c.certified, half_axis),
            )
            for c in found.changes
            if c.metric == metric
        ]
        for metric in dict.fromkeys(change.metric for change in found.changes)
    }
    return (
        templates()
        .get_template("comparison.html.j2")
        .render(
            found=found,
            old=file_name(found.old),
            new=file_name(found.new),
            css=Markup(template_text("report.css")),
            threats=threats,
            points_with_interval=points_with_interval,
            meaning=LIMIT_OUTCOMES[found.status],
            half_axis=f"{100 * half_axis:.3g}",
            limit=None if found.limit is None else 50 - 50 * found.limit / half_axis,
        )
    )


def _mark(interval: Interval, half_axis: float) -> Mark | None:
    """Return the mark of an interval, or None where it was not measured."""
    if interval.low is None or interval.value is None or interval.high is None:
        return None
    low, value, high = (
        50 + 50 * end / half_axis for end in (interval.low, interval.value, interval.high)
    )
    return Mark(low, high - low, value, points_with_interval(interval))


COMPARISON_RENDERERS: dict[str, Callable[[Comparison], str]] = {
    "text": comparison_text,
    "markdown": comparison_markdown,
    "html": comparison_html,
    "json": comparison_json,
}
"""What ``audit compare --format`` accepts."""
