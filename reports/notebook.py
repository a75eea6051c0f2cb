"""A report in a notebook: its headline, its accuracies and its warnings, as a small HTML table."""

from collections.abc import Iterator
from html import escape

from audit.schema import ScanReport, reliability
from reports.numbers import budget, proportion

NOTEBOOK_CELL = "text-align:left;padding:2px 10px"
"""Style of a cell of the table."""

TITLES = ("threat", "order", "budget", "attacked", "certified")
"""Titles of the columns."""


def render(report: ScanReport) -> str:
    """Return HTML that needs neither scripts nor style sheets."""
    clean = proportion(report.clean, "estimate")
    head = "".join(f'<th style="{NOTEBOOK_CELL}">{title}</th>' for title in TITLES)
    body = "".join(
        "<tr>"
        + "".join(f'<td style="{NOTEBOOK_CELL}">{escape(cell)}</td>' for cell in row)
        + "</tr>"
        for row in _rows(report)
    )
    warnings = "".join(f"<li>{escape(text)}</li>" for text in report.warnings)
    return (
        f"<p><b>{escape(report.model.path)}</b>: clean accuracy {clean} on "
        f"{report.data.evaluated:,} samples; reliability {reliability(report)}, verdict "
        f"{report.verdict}, status {report.status}.</p><table><tr>{head}</tr>{body}</table>"
        + (f"<ul>{warnings}</ul>" if warnings else "")
    )


def _cells(row: tuple[str, ...]) -> str:
    return "".join(f'<td style="{NOTEBOOK_CELL}">{escape(cell)}</td>' for cell in row)


def _rows(report: ScanReport) -> Iterator[tuple[str, ...]]:
    for threat in report.threats:
        for curve in threat.curves:
            for point in curve.points:
                yield (
                    threat.metric,
                    curve.order,
                    f"{budget(point.delta, threat.metric)} {threat.unit}",
                    str(proportion(point.attacked, "attacked")),
                    str(proportion(point.certified, "certified")),
                )
