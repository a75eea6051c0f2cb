"""What the script of the HTML page draws: curves, intervals and histograms as plain data."""

from collections.abc import Sequence
from typing import Any

from audit.schema import Curve, Interval, Point, ScanReport, ThreatResult
from reports import summary, threat_rows
from reports.numbers import Side, budget, proportion, steps_of_255


def chart_data(report: ScanReport) -> list[dict[str, Any]]:
    """Return, by metric and order, the values in percent and their labels."""
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
        "name": summary.order_label(curve.order),
        "delta": [round(scale * point.delta, 9) for point in points],
        "budget": [budget(point.delta, threat.metric) for point in points],
        "attacked": _side([point.attacked for point in points], "attacked"),
        "certified": _side([point.certified for point in points], "certified"),
        "estimates": _estimate_series(points, clean.value),
    }


def _histogram(threat: ThreatResult) -> dict[str, Any] | None:
    """Return the bins of the radii, in the unit of the threat."""
    found = threat.radii.histogram
    if found is None:
        return None
    return {
        "edges": found.edges,
        "names": [name for name, _, _ in threat_rows.histogram_rows(threat)],
        "attacked": [*found.attacked, found.attacked_beyond],
        "certified": [*found.certified, found.certified_beyond],
    }


def _scale(threat: ThreatResult) -> int:
    """Return 255 where every budget of the metric is a multiple of 1/255, else 1."""
    deltas = [point.delta for curve in threat.curves for point in curve.points]
    return 255 if threat.metric == "linf" and deltas and steps_of_255(deltas) else 1


def _side(intervals: Sequence[Interval], side: Side) -> dict[str, Any]:
    return {
        "value": _percents([interval.value for interval in intervals]),
        "low": _percents([interval.low for interval in intervals]),
        "high": _percents([interval.high for interval in intervals]),
        "label": [str(proportion(interval, side)) for interval in intervals],
    }


def _estimate_series(points: Sequence[Point], clean: float | None) -> dict[str, Any] | None:
    """Return first-order estimates of R times the clean accuracy, in percent."""
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
