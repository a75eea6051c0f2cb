"""The report of a hardening as text and as one HTML file: before and after, threats, epochs."""

from collections.abc import Iterator

from audit.schema import (
    Epoch,
    HardenedThreat,
    HardenReport,
    Paired,
    ThreatResult,
    certificate_tried,
)
from reports.numbers import budget, percent, percentage_points, significant, thousands
from reports.pages import plotly_source, template_text, templates
from reports.summary import file_name, order_label

SERIES_COLOURS = {"before": "#b07d2b", "after": "#4a7fe0", "certified": "#3fa36b"}
NEUTRAL, FAINT = "#7d838c", "rgba(128, 128, 128, 0.25)"
"""Colours that are readable on a light and on a dark page."""


def change_sentence(found: Paired) -> str:
    """Return the difference with its interval, and the test."""
    low, value, high = (
        percentage_points(end)
        for end in (found.difference.low, found.difference.value, found.difference.high)
    )
    return (
        f"{value} [{low}, {high}] points; {thousands(found.gained)} gained, "
        f"{thousands(found.lost)} lost, p {significant(found.p_value, 'up', digits=2)}"
    )


def hardening_rows(threat: HardenedThreat) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Yield a row per budget of order inf: both bounds before and after, and the change."""
    for point in threat.paired:
        yield (
            budget(point.delta, threat.before.metric),
            percent(point.attacked.before, "up"),
            percent(point.attacked.after, "up"),
            change_sentence(point.attacked),
            _certified_share(threat.before, _certified_at_inf(threat.before, point.delta)),
            _certified_share(threat.after, _certified_at_inf(threat.after, point.delta)),
        )


def _certified_at_inf(threat: ThreatResult, delta: float) -> float | None:
    """Return the certified accuracy of order inf at a budget, or None where it was not measured."""
    points = (p for curve in threat.curves if curve.order == "inf" for p in curve.points)
    return next((point.certified.value for point in points if point.delta == delta), None)


def _certified_share(threat: ThreatResult, value: float | None) -> str:
    """Return a certified accuracy; the trivial bound 0 counts as not measured."""
    return percent(value if certificate_tried(threat) else None, "down")


def finite_order_rows(threat: HardenedThreat) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Yield a row per finite order and budget; shared budgets cannot be paired by sample."""
    for before, after in zip(threat.before.curves, threat.after.curves, strict=True):
        if before.order == "inf":
            continue
        for old, new in zip(before.points, after.points, strict=True):
            if old.delta > 0:
                yield (
                    order_label(before.order),
                    budget(old.delta, threat.before.metric),
                    percent(old.attacked.value, "up"),
                    percent(new.attacked.value, "up"),
                    _certified_share(threat.before, old.certified.value),
                    _certified_share(threat.after, new.certified.value),
                )


def hardening_text(report: HardenReport) -> str:
    """Return the report for a terminal."""
    lines = [
        f"{report.model} -> {report.hardened}  {report.format}, {report.method}",
        f"clean accuracy  {percent(report.clean.before, 'down')} -> "
        f"{percent(report.clean.after, 'down')}  ({change_sentence(report.clean)})",
    ]
    for threat in report.threats:
        lines.append(f"{threat.before.metric}, order inf, {thousands(report.samples)} samples:")
        for delta, before, after, changed, proven, proven_after in hardening_rows(threat):
            lines.append(
                f"  {delta:>12}  attacked {before} -> {after}  ({changed});  certified {proven} "
                f"-> {proven_after}"
            )
    lines += [f"warning: {warning}" for warning in report.warnings]
    return "\n".join(lines) + "\n"


def hardening_html(report: HardenReport) -> str:
    """Return the report as a self-contained page."""
    from markupsafe import Markup

    figures = [
        _training_figure(report.epochs),
        *(_accuracy_figure(threat) for threat in report.threats),
    ]
    template = templates().get_template("hardening.html.j2")
    return template.render(
        report=report,
        name=file_name(report.model),
        css=Markup(template_text("report.css")),
        library=Markup(plotly_source()),
        training=Markup(figures[0]),
        curves=[Markup(figure) for figure in figures[1:]],
        hardening_rows=hardening_rows,
        finite_order_rows=finite_order_rows,
        change_sentence=change_sentence,
    )


def _training_figure(epochs: list[Epoch]) -> str:
    """Draw accuracies on the held-out samples, and the loss, by epoch."""
    import plotly.graph_objects as go

    x = [entry.epoch for entry in epochs]
    figure = go.Figure()
    for name, y, colour in (
        ("clean", [entry.clean for entry in epochs], SERIES_COLOURS["certified"]),
        ("under a short attack", [entry.attacked for entry in epochs], SERIES_COLOURS["after"]),
        (
            "clean, evaluation data",
            [entry.evaluation for entry in epochs],
            SERIES_COLOURS["before"],
        ),
    ):
        figure.add_scatter(x=x, y=y, name=name, mode="lines+markers", line={"color": colour})
    figure.add_scatter(
        x=x,
        y=[entry.loss for entry in epochs],
        name="loss",
        yaxis="y2",
        line={"color": NEUTRAL, "dash": "dot"},
    )
    figure.update_layout(yaxis2={"overlaying": "y", "side": "right", "title": "loss"})
    figure.update_xaxes(title="epoch", dtick=1 if len(epochs) < 16 else None)
    figure.update_yaxes(title="accuracy", tickformat=".0%", selector={"overlaying": None})
    return _figure_html(figure, "training")


def _accuracy_figure(threat: HardenedThreat) -> str:
    """Draw both bounds of the accuracy before and after, order inf."""
    import plotly.graph_objects as go

    figure = go.Figure()
    x = [0.0, *(point.delta for point in threat.paired)]
    start = {
        when: next(
            (curve.points[0].attacked.value for curve in side.curves if curve.order == "inf"), None
        )
        for when, side in (("before", threat.before), ("after", threat.after))
    }
    for when in ("before", "after"):
        side = threat.before if when == "before" else threat.after
        ends = [("attacked", "solid")]
        if certificate_tried(side):
            ends.append(("certified", "dash"))
        for end, dash in ends:
            y = [
                getattr(point.attacked, when)
                if end == "attacked"
                else _certified_at_inf(side, point.delta)
                for point in threat.paired
            ]
            first = start[when] if threat.before.curves[0].points[0].delta == 0 else None
            figure.add_scatter(
                x=x if first is not None else x[1:],
                y=[first, *y] if first is not None else y,
                name=f"{end}, {when}",
                mode="lines+markers",
                line={"color": SERIES_COLOURS[when], "dash": dash},
            )
    figure.update_xaxes(title=f"delta ({threat.before.unit})", rangemode="tozero")
    figure.update_yaxes(title="accuracy", tickformat=".0%", range=[0, 1.02])
    return _figure_html(figure, f"curves-{threat.before.metric}")


def _figure_html(figure: object, name: str) -> str:
    import plotly.graph_objects as go
    import plotly.io

    assert isinstance(figure, go.Figure)
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font={"color": NEUTRAL},
        height=420,
        margin={"t": 20, "r": 60, "b": 50},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )
    figure.update_xaxes(gridcolor=FAINT, zerolinecolor=FAINT, linecolor=FAINT)
    figure.update_yaxes(gridcolor=FAINT, zerolinecolor=FAINT, linecolor=FAINT)
    drawn: str = plotly.io.to_html(
        figure,
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        config={"displayModeBar": False, "responsive": True},
    )
    return drawn
