"""The comparison of two reports as text, Markdown, one HTML file, or JSON."""

from collections.abc import Callable
from dataclasses import dataclass

from audit.schema import Comparison, Interval, ThreatChange
from reports.markdown import text as escaped
from reports.numbers import NOT_MEASURED, budget, count, percent, significant
from reports.pages import environment, text_of
from reports.summary import file_name, order_name

VERDICTS = {
    "pass": "no attacked accuracy is shown to have fallen by more than the limit",
    "fail": "an attacked accuracy fell by more than the limit, beyond its interval",
    "inconclusive": "a scan did not run to its end, so whether an attacked accuracy fell is open",
    "none": "no limit was set",
}


def points(found: Interval) -> str:
    """A difference of shares in percentage points, with its interval."""
    ends = (found.low, found.value, found.high)
    if all(end is None for end in ends):
        return NOT_MEASURED
    low, value, high = (NOT_MEASURED if v is None else f"{100 * v:+.1f}" for v in ends)
    return f"{value} [{low}, {high}]"


def verdict(found: Comparison) -> str:
    """What the limit says."""
    limit = "" if found.limit is None else f" ({percent(found.limit, 'nearest')})"
    return f"{found.status}: {VERDICTS[found.status]}{limit}"


def rows(found: Comparison) -> list[tuple[str, ...]]:
    """A row per threat, order and budget."""
    return [_row(change) for change in found.changes]


def _row(change: ThreatChange) -> tuple[str, ...]:
    return (
        change.metric,
        order_name(change.order),
        budget(change.delta, change.metric),
        points(change.attacked),
        points(change.certified),
    )


HEAD = ("metric", "order", "delta", "attacked", "certified")


def clean(found: Comparison) -> str:
    """Clean accuracy before and after, and the test."""
    return (
        f"{percent(found.clean.before, 'down')} -> {percent(found.clean.after, 'down')}, "
        f"{points(found.clean.difference)} points, p {significant(found.clean.p_value, 'up')}"
    )


def text(found: Comparison) -> str:
    """For a terminal."""
    table = [HEAD, *rows(found)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEAD))]
    lines = [
        f"{found.old} -> {found.new}, {count(found.samples)} samples, in pairs",
        f"clean accuracy {clean(found)}",
        "differences in percentage points, with intervals",
        *(_aligned(row, widths) for row in table),
        *(f"note: {note}" for note in found.notes),
        verdict(found),
    ]
    return "\n".join(lines) + "\n"


def _aligned(row: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()


def markdown(found: Comparison) -> str:
    """For the summary of a job."""
    lines = [
        f"## {escaped(found.old)} → {escaped(found.new)}",
        "",
        f"**{found.status.upper()}**: {escaped(VERDICTS[found.status])}. Clean accuracy "
        f"{escaped(clean(found))}; {count(found.samples)} samples, in pairs.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|---" * len(HEAD) + "|",
        *("| " + " | ".join(map(escaped, row)) + " |" for row in rows(found)),
    ]
    if found.notes:
        lines += ["", *(f"- {escaped(note)}" for note in found.notes)]
    return "\n".join(lines) + "\n"


def json(found: Comparison) -> str:
    """For programs."""
    return found.model_dump_json(indent=2) + "\n"


@dataclass(frozen=True)
class Mark:
    """An interval on an axis from -reach to +reach points, as percentages of its width."""

    left: float
    width: float
    value: float
    shown: str


def html(found: Comparison) -> str:
    """For people: a self-contained page without a script."""
    from markupsafe import Markup

    ends = [
        abs(end)
        for change in found.changes
        for side in (change.attacked, change.certified)
        for end in (side.low, side.high)
        if end is not None
    ]
    reach = max([0.01, found.limit or 0, *ends])

    def mark(interval: Interval) -> Mark | None:
        if interval.low is None or interval.value is None or interval.high is None:
            return None
        low, value, high = (
            50 + 50 * end / reach for end in (interval.low, interval.value, interval.high)
        )
        return Mark(low, high - low, value, points(interval))

    threats = {
        metric: [
            (order_name(c.order), budget(c.delta, metric), mark(c.attacked), mark(c.certified))
            for c in found.changes
            if c.metric == metric
        ]
        for metric in dict.fromkeys(change.metric for change in found.changes)
    }
    return (
        environment()
        .get_template("comparison.html.j2")
        .render(
            found=found,
            old=file_name(found.old),
            new=file_name(found.new),
            css=Markup(text_of("report.css")),
            threats=threats,
            points=points,
            meaning=VERDICTS[found.status],
            reach=f"{100 * reach:.3g}",
            limit=None if found.limit is None else 50 - 50 * found.limit / reach,
        )
    )


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "text": text,
    "markdown": markdown,
    "html": html,
    "json": json,
}
"""By name."""
