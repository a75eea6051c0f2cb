"""A hardening as text and as one HTML file: before and after, threat by threat, epoch by epoch."""

from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files

from audit.schema import (
    Epoch,
    HardenedThreat,
    HardenReport,
    Paired,
    ThreatResult,
    certificate_tried,
)
from reports.numbers import budget, count, percent, significant
from reports.pages import environment, text_of
from reports.summary import file_name, order_name

COLOURS = {"before": "#b07d2b", "after": "#4a7fe0", "certified": "#3fa36b"}
NEUTRAL, FAINT = "#7d838c", "rgba(128, 128, 128, 0.25)"
"""Shades that can be read on a light and on a dark page."""


def points(value: float | None, sign: bool = True) -> str:
    """A difference of shares in percentage points."""
    if value is None:
        return "not measured"
    return f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"


def change(found: Paired) -> str:
    """The difference with its interval, and the test."""
    span = f"[{points(found.difference.low)}, {points(found.difference.high)}]"
    return (
        f"{points(found.difference.value)} {span} points; {count(found.gained)} gained, "
        f"{count(found.lost)} lost, p {significant(found.p_value, 'up', digits=2)}"
    )


def rows(threat: HardenedThreat) -> Iterator[tuple[str, str, str, str, str, str]]:
    """A row per budget of order inf: both ends before and after, and what changed."""
    for point in threat.paired:
        yield (
            budget(point.delta, threat.before.metric),
            percent(point.attacked.before, "up"),
            percent(point.attacked.after, "up"),
            change(point.attacked),
            _proven(threat.before, _certified(threat.before, point.delta)),
            _proven(threat.after, _certified(threat.after, point.delta)),
        )


def _certified(threat: ThreatResult, delta: float) -> float | None:
    """Return the certified accuracy of order inf at a budget, or None where it was not measured."""
    points = (p for curve in threat.curves if curve.order == "inf" for p in curve.points)
    return next((point.certified.value for point in points if point.delta == delta), None)


def _proven(threat: ThreatResult, value: float | None) -> str:
    """A certified accuracy; 0 is a bound, but where nothing was tried it is no finding."""
    return percent(value if certificate_tried(threat) else None, "down")


def finite_orders(threat: HardenedThreat) -> Iterator[tuple[str, str, str, str, str, str]]:
    """The same for orders that share the budget: values alone, they do not pair by sample."""
    for before, after in zip(threat.before.curves, threat.after.curves, strict=True):
        if before.order == "inf":
            continue
        for old, new in zip(before.points, after.points, strict=True):
            if old.delta > 0:
                yield (
                    order_name(before.order),
                    budget(old.delta, threat.before.metric),
                    percent(old.attacked.value, "up"),
                    percent(new.attacked.value, "up"),
                    _proven(threat.before, old.certified.value),
                    _proven(threat.after, new.certified.value),
                )


def text(report: HardenReport) -> str:
    """What a terminal shows."""
    lines = [
        f"{report.model} -> {report.hardened}  {report.format}, {report.method}",
        f"clean accuracy  {percent(report.clean.before, 'down')} -> "
        f"{percent(report.clean.after, 'down')}  ({change(report.clean)})",
    ]
    for threat in report.threats:
        lines.append(f"{threat.before.metric}, order inf, {count(report.samples)} samples:")
        for delta, before, after, changed, proven, proven_after in rows(threat):
            lines.append(
                f"  {delta:>12}  attacked {before} -> {after}  ({changed});  certified {proven} "
                f"-> {proven_after}"
            )
    lines += [f"warning: {warning}" for warning in report.warnings]
    return "\n".join(lines) + "\n"


def html(report: HardenReport) -> str:
    """The report as a self-contained page."""
    from markupsafe import Markup

    figures = [_training(report.epochs), *(_curves(threat) for threat in report.threats)]
    template = environment().get_template("harden.html.j2")
    return template.render(
        report=report,
        name=file_name(report.model),
        css=Markup(text_of("report.css")),
        library=Markup(_library()),
        training=Markup(figures[0]),
        curves=[Markup(figure) for figure in figures[1:]],
        rows=rows,
        finite_orders=finite_orders,
        change=change,
    )


def _training(epochs: list[Epoch]) -> str:
    """Accuracies of the samples kept out, and the loss, by epoch."""
    import plotly.graph_objects as go

    x = [entry.epoch for entry in epochs]
    figure = go.Figure()
    for name, y, colour in (
        ("clean", [entry.clean for entry in epochs], COLOURS["certified"]),
        ("under a short attack", [entry.attacked for entry in epochs], COLOURS["after"]),
        ("clean, evaluation data", [entry.evaluation for entry in epochs], COLOURS["before"]),
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
    return _drawn(figure, "training")


def _curves(threat: HardenedThreat) -> str:
    """Both ends of the bracket before and after, order inf."""
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
                else _certified(side, point.delta)
                for point in threat.paired
            ]
            first = start[when] if threat.before.curves[0].points[0].delta == 0 else None
            figure.add_scatter(
                x=x if first is not None else x[1:],
                y=[first, *y] if first is not None else y,
                name=f"{end}, {when}",
                mode="lines+markers",
                line={"color": COLOURS[when], "dash": dash},
            )
    figure.update_xaxes(title=f"delta ({threat.before.unit})", rangemode="tozero")
    figure.update_yaxes(title="accuracy", tickformat=".0%", range=[0, 1.02])
    return _drawn(figure, f"curves-{threat.before.metric}")


def _drawn(figure: object, name: str) -> str:
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


@lru_cache(maxsize=1)
def _library() -> str:
    return files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
