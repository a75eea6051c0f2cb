"""A report in a notebook: its headline, its accuracies and its warnings, as a small HTML table."""

from collections.abc import Iterator
from html import escape

from audit.schema import Report, reliability
from reports.numbers import budget, share

CELL = "text-align:left;padding:2px 10px"
"""Style of a cell of the table."""

TITLES = ("threat", "order", "budget", "attacked", "certified")
"""Titles of the columns."""


def render(report: Report) -> str:
    """Return HTML that needs neither scripts nor style sheets."""
    clean = share(report.clean, "estimate")
    head = "".join(f'<th style="{CELL}">{title}</th>' for title in TITLES)
    body = "".join(
        "<tr>" + "".join(f'<td style="{CELL}">{escape(cell)}</td>' for cell in row) + "</tr>"
        for row in _rows(report)
    )
    warnings = "".join(f"<li>{escape(text)}</li>" for text in report.warnings)
    return (
        f"<p><b>{escape(report.model.path)}</b>: clean accuracy {clean} on "
        f"{report.data.evaluated:,} samples; reliability {reliability(report)}, verdict "
        f"{report.verdict}, status {report.status}.</p><table><tr>{head}</tr>{body}</table>"
        + (f"<ul>{warnings}</ul>" if warnings else "")
    )


def _rows(report: Report) -> Iterator[tuple[str, ...]]:
    for threat in report.threats:
        for curve in threat.curves:
            for point in curve.points:
                yield (
                    threat.metric,
                    curve.order,
                    f"{budget(point.delta, threat.metric)} {threat.unit}",
                    str(share(point.attacked, "attacked")),
                    str(share(point.certified, "certified")),
                )
