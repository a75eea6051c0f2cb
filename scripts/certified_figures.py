"""Make the figures of docs/certified-robustness.md from the report of a scan.

    audit demo && python scripts/certified_figures.py audit-report/report.json docs

They show, for linf and order 2: first-order estimates of R beside the attacked and certified ends
of the bracket, and the first-order estimate of the loss beside what is attained and what is proven.
Needs `chromium` on the path, or its place in the environment variable CHROMIUM.
"""

import sys
import tempfile
from pathlib import Path

import plotly.graph_objects as go
from PIL import Image
from screenshot import photograph

from audit.schema import ScanReport, ThreatResult

METRIC, ORDER = "linf", "2"
WIDTH, HEIGHT = 900, 460
UP_TO = 0.07
"""Budgets that are drawn."""


def estimates(threat: ThreatResult) -> go.Figure:
    """R_delta: both ends of the bracket, and the two lower estimates."""
    curve = next(curve for curve in threat.curves if curve.order == ORDER)
    points = [point for point in curve.points if point.delta <= UP_TO]
    x = [0.0, *(point.delta for point in points)]
    figure = go.Figure()
    sides = (
        ("attacked: R is at most this", [p.robustness.attacked.value for p in points], "#1d4fa8"),
        (
            "certified: R is at least this",
            [p.robustness.certified.value for p in points],
            "#3d8f5f",
        ),
    )
    for name, y, colour in sides:
        figure.add_scatter(x=x, y=[1.0, *y], name=name, line={"color": colour, "width": 3})
    found = [p.first_order for p in points if p.first_order is not None]
    for name, y, dash in (
        ("estimate by slope", [f.lower_slope for f in found], "dash"),
        ("estimate by value", [f.lower_value for f in found], "dot"),
    ):
        figure.add_scatter(x=x, y=[1.0, *y], name=name, line={"dash": dash, "color": "#b4530a"})
    crossed = [
        (point.delta, max(e for e in (f.lower_slope, f.lower_value) if e is not None))
        for point, f in zip(points, found, strict=True)
        if f.violated
    ]
    figure.add_scatter(
        x=[delta for delta, _ in crossed],
        y=[value for _, value in crossed],
        mode="markers",
        name="an attack is below",
        marker={"symbol": "x", "size": 11, "color": "#a01c1c"},
    )
    figure.update_yaxes(title="share of the clean accuracy kept", range=[0, 1.03])
    return figure


def losses(threat: ThreatResult) -> go.Figure:
    """V(delta) of the cross-entropy: attained, estimated, proven."""
    entry = next(e for e in threat.sensitivity if e.order == ORDER and e.loss == "ce")
    points = [point for point in entry.value if point.delta <= UP_TO]
    start = entry.value_at_zero.value
    x = [0.0, *(point.delta for point in points)]
    figure = go.Figure()
    for name, y, line in (
        ("proven: at most", [p.bounded for p in points], {"color": "#3d8f5f", "width": 3}),
        (
            "V(0) + delta·Upsilon, an estimate",
            [p.first_order for p in points],
            {"color": "#b4530a", "dash": "dash"},
        ),
        ("attained: at least", [p.attained for p in points], {"color": "#1d4fa8", "width": 3}),
    ):
        figure.add_scatter(x=x, y=[start, *y], name=name, line=line)
    figure.update_yaxes(title="mean cross-entropy", type="log")
    return figure


def main() -> None:
    """Draw both, and photograph them."""
    report = ScanReport.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    threat = next(threat for threat in report.threats if threat.metric == METRIC)
    for name, figure in (("first-order", estimates(threat)), ("loss", losses(threat))):
        figure.update_xaxes(title=f"delta ({METRIC}, order {ORDER})", rangemode="tozero")
        figure.update_layout(
            template="plotly_white", width=WIDTH, height=HEIGHT, margin={"t": 20, "r": 20}
        )
        picture = Path(sys.argv[2]) / f"{name}.png"
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "figure.html"
            figure.write_html(page, include_plotlyjs=True, config={"displayModeBar": False})
            photograph(page, picture, WIDTH + 20, HEIGHT + 20)
        Image.open(picture).convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(
            picture, optimize=True
        )


if __name__ == "__main__":
    main()
