"""A report in a notebook: its headline, its accuracies and its warnings, as a small HTML table."""

from html import escape

from audit.schema import Report, reliability

STYLE = "text-align:left;padding:2px 10px"


def render(report: Report) -> str:
    """Return HTML that needs no script."""
    clean = report.clean
    rows = [
        _row(
            f"{escape(threat.metric)}, order {escape(curve.order)}",
            f"{point.delta:.6g} {escape(threat.unit)}",
            _interval(point.attacked.value, point.attacked.low, point.attacked.high),
            _interval(point.certified.value, point.certified.low, point.certified.high),
        )
        for threat in report.threats
        for curve in threat.curves
        for point in curve.points
    ]
    head = "".join(
        f'<th style="{STYLE}">{title}</th>' for title in ("threat", "budget", "attacked", "certified")
    )
    warnings = "".join(f"<li>{escape(text)}</li>" for text in report.warnings)
    return (
        f"<p><b>{escape(report.model.path)}</b>: clean accuracy "
        f"{_interval(clean.value, clean.low, clean.high)} on {report.data.evaluated} samples; "
        f"reliability {reliability(report)}, verdict {escape(report.verdict)}, "
        f"status {escape(report.status)}.</p>"
        f"<table><tr>{head}</tr>{''.join(rows)}</table>"
        + (f"<ul>{warnings}</ul>" if warnings else "")
    )


def _row(*cells: str) -> str:
    return "<tr>" + "".join(f'<td style="{STYLE}">{cell}</td>' for cell in cells) + "</tr>"


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    """Write an accuracy in percent with its interval."""
    if value is None or low is None or high is None:
        return "not measured"
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
