"""Comparison of two reports of the same samples: the changes, and whether they are significant.

At order inf each sample is either robust or broken, so the scans are paired sample by sample
(McNemar's exact test). A finite order shares the budget between samples: there the difference of
the curves is resampled over samples, with the same draws for both (paired bootstrap, Efron 1979).
"""

import csv
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from audit.errors import UsageError
from audit.schema import Comparison, Interval, ScanReport, ThreatChange, certificate_tried
from audit.statistics.confidence import bootstrap_indices
from audit.statistics.knapsack import adversarial_accuracy
from audit.statistics.pairs import paired

UNKNOWN = Interval(value=None, low=None, high=None)
"""Difference where one of the two reports has no measurement."""


@dataclass(frozen=True)
class SampleRadii:
    """Contents of `samples.csv`: indices, correctness, and columns with a radius per sample."""

    index: NDArray[np.int64]
    correct: NDArray[np.bool_]
    columns: dict[str, NDArray[np.float64]]


def radii_of(report: ScanReport, table: str) -> SampleRadii:
    """Read the radii of a report's samples.

    Args:
        report: the report.
        table: contents of its ``samples.csv``.

    Raises:
        UsageError: the table does not belong to the report.
    """
    path = report.artifacts.samples or "samples.csv"
    rows = list(csv.DictReader(table.splitlines()))
    if len(rows) != report.data.evaluated:
        raise UsageError(
            f"{path} has {len(rows)} samples and its report has {report.data.evaluated}: they do "
            "not belong together. Name a folder as a scan wrote it."
        )
    try:
        names = [n for n in rows[0] if n.endswith(("_attacked", "_certified"))]
        return SampleRadii(
            np.array([int(row["index"]) for row in rows]),
            np.array([row["correct"] == "true" for row in rows]),
            {n: np.array([float(row[n] or math.inf) for row in rows]) for n in names},
        )
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"{path} is not the samples.csv of a scan ({error}): scan the model again."
        ) from error


def compare_reports(
    old: ScanReport,
    new: ScanReport,
    old_radii: SampleRadii,
    new_radii: SampleRadii,
    *,
    limit: float | None = None,
) -> Comparison:
    """Compare two reports.

    Args:
        old: the report before the change.
        new: the report after the change.
        old_radii: radii of the old report's samples.
        new_radii: radii of the new report's samples.
        limit: largest accepted loss of attacked accuracy, or None.

    Raises:
        UsageError: the reports have different samples or threats; the message names which.
    """
    _check_comparable(old, new, old_radii, new_radii)
    confidence = old.clean.confidence
    changes = _changes(old, new, old_radii, new_radii, confidence)
    worst = min((c.attacked.low for c in changes if c.attacked.low is not None), default=None)
    status: Literal["pass", "fail", "inconclusive", "none"] = "none"
    if limit is not None:
        # A regression counts only if its whole interval lies beyond the limit.
        shown = [c for c in changes if c.attacked.high is not None and c.attacked.high < -limit]
        status = "fail" if shown else "pass"
        # The rest of an unfinished scan may lower its accuracy. If that scan is the old one, a loss
        # may vanish; if it is the new one, a loss may appear.
        if old.status != "complete" or (new.status != "complete" and status == "pass"):
            status = "inconclusive"
    return Comparison(
        old=old.model.path,
        new=new.model.path,
        confidence=confidence,
        samples=old.data.evaluated,
        clean=paired(old_radii.correct, new_radii.correct, confidence),
        changes=changes,
        limit=limit,
        status=status,
        worst=worst,
        notes=_differences_of_settings(old, new),
    )


def _check_comparable(
    old: ScanReport, new: ScanReport, old_radii: SampleRadii, new_radii: SampleRadii
) -> None:
    if old.data.sha256 != new.data.sha256:
        raise UsageError(
            f"The reports are about different data: {old.data.path} ({old.data.sha256[:12]}…) and "
            f"{new.data.path} ({new.data.sha256[:12]}…). Scan both models on the same file."
        )
    if not np.array_equal(old_radii.index, new_radii.index):
        raise UsageError(
            "The reports are about different samples of the data: use the same --samples and "
            "--seed."
        )
    for name in ("low", "high"):
        first, second = (getattr(report.model.input, name) for report in (old, new))
        if first != second:
            raise UsageError(
                f"--{name} differs: {first:g} and {second:g}. Scan both with the "
                "same range of inputs."
            )
    smoothed = (old.model.smoothed, new.model.smoothed)
    if smoothed[0] != smoothed[1]:
        raise UsageError(
            f"--smooth differs: {smoothed[0]} and {smoothed[1]}. Scan both with the same noise."
        )
    if not {t.metric for t in old.threats} & {t.metric for t in new.threats}:
        raise UsageError(
            "The reports share no threat: "
            f"{', '.join(t.metric for t in old.threats) or 'none'} and "
            f"{', '.join(t.metric for t in new.threats) or 'none'}. "
            "Scan both with the same --threat."
        )
    missing = _budgets(old) - _budgets(new)
    if missing:
        metric, order, delta = min(missing)
        raise UsageError(
            f"The new report lacks {len(missing)} of the budgets of the old one, for example "
            f"{metric} at order {order}, delta {delta:g}: a loss there would not be noticed. Scan "
            "both with the same --threat, --order and --delta."
        )


def _budgets(report: ScanReport) -> set[tuple[str, str, float]]:
    """Return every metric, order and positive budget of a report."""
    return {
        (threat.metric, curve.order, point.delta)
        for threat in report.threats
        for curve in threat.curves
        for point in curve.points
        if point.delta > 0
    }


SETTINGS = ("attack", "effort", "certify", "confidence", "seed")
"""Settings, other than the model, that affect the strength of attacks and certificates."""


def _differences_of_settings(old: ScanReport, new: ScanReport) -> list[str]:
    """Return a sentence for each setting in which the scans differ."""
    sentences = [
        f"--{name} was {first if first is not None else 'not set'} before and is "
        f"{second if second is not None else 'not set'} now"
        for name in SETTINGS
        if (first := old.config.get(name)) != (second := new.config.get(name))
    ]
    if old.tool.version != new.tool.version:
        sentences.append(
            f"the old report was made with version {old.tool.version}, the new one with "
            f"{new.tool.version}"
        )
    sentences += [
        f"the {when} scan is {report.status}: {what}"
        for when, report in (("old", old), ("new", new))
        for what in [
            "samples that it did not reach count as not broken"
            if report.status == "interrupted"
            else "part of it stopped on an error"
        ]
        if report.status != "complete"
    ]
    return sentences


def _changes(
    old: ScanReport,
    new: ScanReport,
    old_radii: SampleRadii,
    new_radii: SampleRadii,
    confidence: float,
) -> list[ThreatChange]:
    found = []
    news = {threat.metric: threat for threat in new.threats}
    for threat in old.threats:
        other = news.get(threat.metric)
        if other is None:
            continue
        curves = {curve.order: {p.delta for p in curve.points} for curve in other.curves}
        both = certificate_tried(threat) and certificate_tried(other)
        measured = ("attacked", "certified") if both else ("attacked",)
        for curve in threat.curves:
            for point in curve.points:
                if point.delta > 0 and point.delta in curves.get(curve.order, ()):
                    sides = {
                        side: _difference(
                            old_radii.columns[f"{threat.metric}_{side}"],
                            new_radii.columns[f"{threat.metric}_{side}"],
                            point.delta,
                            float(curve.order),
                            confidence,
                        )
                        for side in measured
                    }
                    found.append(
                        ThreatChange(
                            metric=threat.metric,
                            order=curve.order,
                            delta=point.delta,
                            attacked=sides["attacked"],
                            certified=sides.get("certified", UNKNOWN),
                        )
                    )
    if not found:
        raise UsageError(
            "The reports share no budget: scan both with the same --delta and --order."
        )
    return found


def _difference(
    old: NDArray[np.float64],
    new: NDArray[np.float64],
    delta: float,
    order: float,
    confidence: float,
) -> Interval:
    """Return new minus old accuracy at a budget, with its interval."""
    if math.isinf(order):
        return paired(old > delta, new > delta, confidence).difference

    def value(rows: NDArray[np.int64]) -> float:
        budgets = np.array([delta])
        first, second = (adversarial_accuracy(radii[rows], budgets, order) for radii in (old, new))
        return float(second[0] - first[0])

    everything = np.arange(len(old))
    drawn = [value(rows) for rows in bootstrap_indices(len(old), draws=999, seed=0)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    middle = value(everything)
    return Interval(value=middle, low=min(float(low), middle), high=max(float(high), middle))
