"""The report as one HTML file that needs no network: charts, tables, pictures, advice.

The charting library travels inside the file, compressed; the browser inflates it when the page
opens. Where it cannot, only the charts are lost: every number also stands in a table.
"""

import base64
import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from audit.schema import Curve, GalleryItem, Interval, Point, Report, ThreatResult
from reports import summary
from reports.numbers import Side, budget, share, steps_of_255
from reports.pages import environment, text_of

GALLERY_BYTES = 2_000_000
"""Pictures beyond this much text are left out, and the page says how many."""

PNG = re.compile(r"data:image/png;base64,[A-Za-z0-9+/]+={0,2}")

ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
"""Inside a script element, JSON may hold none of these as they are."""


def render(report: Report) -> str:
    """The report as a self-contained HTML page."""
    from markupsafe import Markup

    script = text_of("report.js")
    pictures, left_out = _pictures(report.artifacts.gallery)
    worst, _ = summary.trouble(report)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            name=summary.file_name(report.model.path),
            reliability=summary.reliability_line(report),
            health=worst + [entry for entry in report.health if entry.status == "pass"],
            tally=Counter(entry.status for entry in report.health),
            headlines=[line for line in map(summary.headline, report.threats) if line],
            pictures=pictures,
            left_out=left_out,
            css=Markup(text_of("report.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            charts=Markup(_embed(charts(report))),
            library=_library()
            if any(t.curves or t.radii.histogram for t in report.threats)
            else "",
            summary=summary,
        )
    )


def charts(report: Report) -> list[dict[str, Any]]:
    """What the page's script draws: per metric and order, values in percent and their labels."""
    clean = summary.clean_interval(report)
    return [
        {
            "metric": threat.metric,
            "unit": threat.unit,
            "suffix": "/255" if _scale(threat) == 255 else "",
            "clean": _percents([report.clean.value])[0],
            "cleanLabel": str(clean),
            "orders": [_chart(threat, curve, report.clean) for curve in threat.curves],
            "histogram": _histogram(threat),
        }
        for threat in report.threats
    ]


def _chart(threat: ThreatResult, curve: Curve, clean: Interval) -> dict[str, Any]:
    points = sorted(curve.points, key=lambda point: point.delta)
    scale = _scale(threat)
    return {
        "order": curve.order,
        "name": summary.order_name(curve.order),
        "delta": [round(scale * point.delta, 9) for point in points],
        "budget": [budget(point.delta, threat.metric) for point in points],
        "attacked": _side([point.attacked for point in points], "attacked"),
        "certified": _side([point.certified for point in points], "certified"),
        "estimates": _estimates(points, clean.value),
    }


def _histogram(threat: ThreatResult) -> dict[str, Any] | None:
    """The bins of the radii, in the unit of the threat."""
    found = threat.radii.histogram
    if found is None:
        return None
    return {
        "edges": found.edges,
        "names": [name for name, _, _ in summary.bins(threat)],
        "attacked": [*found.attacked, found.attacked_beyond],
        "certified": [*found.certified, found.certified_beyond],
    }


def _scale(threat: ThreatResult) -> int:
    """255 where every budget of the metric is a whole number of 1/255, else 1."""
    deltas = [point.delta for curve in threat.curves for point in curve.points]
    return 255 if threat.metric == "linf" and deltas and steps_of_255(deltas) else 1


def _side(intervals: Sequence[Interval], side: Side) -> dict[str, Any]:
    return {
        "value": _percents([interval.value for interval in intervals]),
        "low": _percents([interval.low for interval in intervals]),
        "high": _percents([interval.high for interval in intervals]),
        "label": [str(share(interval, side)) for interval in intervals],
    }


def _estimates(points: Sequence[Point], clean: float | None) -> dict[str, Any] | None:
    """First-order estimates of R, as accuracies: times the clean accuracy."""
    found = [point.first_order for point in points]
    if clean is None or not any(found):
        return None

    def accuracies(field: str) -> list[float | None]:
        kept = [None if entry is None else getattr(entry, field) for entry in found]
        return _percents([None if share is None else share * clean for share in kept])

    return {
        "loss": next(entry.loss for entry in found if entry is not None),
        "upper": accuracies("upper"),
        "value": accuracies("lower_value"),
        "slope": accuracies("lower_slope"),
        "violated": [bool(entry and entry.violated) for entry in found],
    }


def _percents(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else 100 * value for value in values]


def _embed(data: Any) -> str:
    """JSON that is safe inside a script element."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False).translate(ESCAPES)


@dataclass(frozen=True)
class Picture:
    """A gallery entry whose pictures are known to be pictures."""

    item: GalleryItem
    images: tuple[tuple[str, str], ...]


def _pictures(gallery: Sequence[GalleryItem]) -> tuple[list[Picture], int]:
    """The entries that fit, and how many do not; an image that is no PNG data URI is dropped."""
    pictures: list[Picture] = []
    size = 0
    for item in gallery:
        names = ("original", "adversarial", "difference", "flow")
        images = [(name, uri) for name in names if (uri := getattr(item, name)) is not None]
        size += sum(len(uri) for _, uri in images)
        if size > GALLERY_BYTES:
            break
        valid = tuple((name, uri if PNG.fullmatch(uri) else "") for name, uri in images)
        pictures.append(Picture(item, valid))
    return pictures, len(gallery) - len(pictures)


@lru_cache(maxsize=1)
def _library() -> str:
    """plotly.js, gzip and base64: the same text on every call."""
    source = files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(source, 9, mtime=0)).decode()
