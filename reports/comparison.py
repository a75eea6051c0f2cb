"""The comparison of two reports as text, Markdown or JSON."""

from collections.abc import Callable

from audit.report import Comparison, Interval, ThreatChange
from reports.markdown import text as escaped
from reports.numbers import budget, count, percent, significant
from reports.summary import order_name

VERDICTS = {
    "pass": "no attacked accuracy is shown to have fallen by more than the limit",
    "fail": "an attacked accuracy fell by more than the limit, beyond its interval",
    "none": "no limit was set",
}


def points(found: Interval) -> str:
    """A difference of shares in percentage points, with its interval."""
    low, value, high = (
        "?" if v is None else f"{100 * v:+.1f}" for v in (found.low, found.value, found.high)
    )
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
        *(
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
            for row in table
        ),
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
    return "\n".join(lines) + "\n"


def json(found: Comparison) -> str:
    """For programs."""
    return found.model_dump_json(indent=2) + "\n"


FORMATS: dict[str, Callable[[Comparison], str]] = {"text": text, "markdown": markdown, "json": json}
"""By name."""
