"""Numbers of the report, computed from radii: curves with intervals, the bracket, quantiles."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from attackers.geometry import Metric
from audit.schema import (
    Attack,
    Certifier,
    Clean,
    Curve,
    Histogram,
    Interval,
    Point,
    Quantiles,
    Radii,
    Robustness,
    Sensitivity,
    ThreatResult,
)
from audit.statistics.by_class import by_class
from audit.statistics.confidence import (
    Booleans,
    ConfidenceInterval,
    Floats,
    clopper_pearson,
    dkw,
    ratio,
)
from audit.statistics.first_order import as_first_order, mark_violations, primary
from audit.statistics.judged import Judged, Scope
from audit.statistics.knapsack import adversarial_accuracy
from audit.statistics.soft import Soft, soft_curves
from audit.statistics.value import Envelope, bracketed
from audit.values import order_name

QUANTILES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)


@dataclass(frozen=True)
class Findings:
    """Records of attacks and certificates, and their results about the loss.

    Attributes:
        certifier: the method behind the certified radii.
        attacks: attacks that ran or were skipped.
        sensitivity: first-order quantities, still without violations and the bracket of the loss.
        losses: (N,) values at the samples of each loss of ``sensitivity``, by name.
        envelope: bounds of the cross-entropy around every sample, if available.
        soft: bounds of the probability of the label under noise, if available.
    """

    certifier: Certifier
    attacks: list[Attack] = field(default_factory=list)
    sensitivity: list[Sensitivity] = field(default_factory=list)
    losses: dict[str, Floats] = field(default_factory=dict)
    envelope: Envelope | None = None
    soft: Soft | None = None


def clean(correct: Booleans, confidence: float) -> Clean:
    """Return the clean accuracy and its Clopper-Pearson interval; ``correct``: (N,) bool."""
    count, n = int(correct.sum()), len(correct)
    low, high = clopper_pearson(count, n, confidence)
    return Clean(value=count / n, low=low, high=high, confidence=confidence)


def summarise(metric: Metric, judged: Judged, findings: Findings, scope: Scope) -> ThreatResult:
    """Return the part of a report about one metric."""
    brackets = {
        order: (
            accuracy(judged.attacked, ~judged.correct, scope.deltas, order),
            accuracy(judged.certified, ~judged.correct, scope.deltas, order),
        )
        for order in scope.orders
    }
    sensitivity = _sensitivity(judged, findings, scope, brackets)
    clean_bounds = clopper_pearson(
        int(judged.correct.sum()), len(judged.correct), _half_error(scope.confidence)
    )
    return ThreatResult(
        metric=metric.name,
        unit=metric.unit,
        attacks=findings.attacks,
        certifier=findings.certifier,
        sensitivity=sensitivity,
        curves=[
            _curve(order, brackets[order], sensitivity, judged, scope, clean_bounds)
            for order in brackets
        ],
        radii=Radii(
            attacked=_quantiles(judged.attacked),
            certified=_quantiles(judged.certified),
            histogram=histogram(judged.attacked[judged.correct], judged.certified[judged.correct]),
        ),
        soft=soft_curves(
            findings.soft,
            orders=scope.orders,
            deltas=scope.deltas,
            confidence=scope.confidence,
            failure=judged.failure * len(judged.correct),
        ),
        classes=by_class(judged, scope),
    )


def _sensitivity(
    judged: Judged,
    findings: Findings,
    scope: Scope,
    brackets: Mapping[float, tuple[Floats, Floats]],
) -> list[Sensitivity]:
    """Return the first-order quantities, with violations by attacks and brackets of the loss."""
    by_name = {order_name(order): order for order in scope.orders}

    def attacked_robustness(order: str, delta: float) -> float | None:
        if order not in by_name or not judged.accuracy:
            return None
        attacked, _ = brackets[by_name[order]]
        return float(attacked[scope.deltas.index(delta)]) / judged.accuracy

    return [
        bracketed(
            entry,
            findings.losses[entry.loss],
            judged.attacked,
            findings.envelope,
            by_name[entry.order],
        )
        for entry in mark_violations(findings.sensitivity, attacked_robustness)
    ]


def _curve(
    order: float,
    bracket: tuple[Floats, Floats],
    sensitivity: list[Sensitivity],
    judged: Judged,
    scope: Scope,
    clean_bounds: ConfidenceInterval,
) -> Curve:
    """Return both ends of the bracket of one order, with intervals, at every budget."""
    n, confidence = len(judged.correct), scope.confidence
    failure = judged.failure * n

    def share_of_clean(value: float, failure: float = 0.0) -> Interval:
        if not judged.accuracy:
            return Interval(value=None, low=None, high=None)  # no clean accuracy to divide by
        bounds = _accuracy_bounds(value, n, order, _half_error(confidence), failure)
        low, high = ratio(bounds, clean_bounds)
        share = value / judged.accuracy
        return Interval(value=share, low=min(low, share), high=max(high, share))

    return Curve(
        order=order_name(order),
        points=[
            Point(
                delta=delta,
                attacked=accuracy_interval(float(above), n, order, confidence),
                certified=accuracy_interval(float(below), n, order, confidence, failure),
                robustness=Robustness(
                    attacked=share_of_clean(float(above)),
                    certified=share_of_clean(float(below), failure),
                ),
                first_order=as_first_order(primary(sensitivity, order_name(order), delta)),
            )
            for delta, above, below in zip(scope.deltas, *bracket, strict=True)
        ],
    )


def _half_error(confidence: float) -> float:
    """Return the confidence of each of the two intervals of a ratio: half of the error is spent."""
    return 1 - (1 - confidence) / 2


def accuracy(
    radii: Floats,
    wrong: Booleans,
    deltas: tuple[float, ...],
    order: float,
) -> Floats:
    """Return A_delta on the samples; at delta = 0 it is the clean accuracy, whatever the radii.

    A certified radius of 0 on a correct sample means that nothing is known, and without a budget
    an adversary cannot change anything.
    """
    budgets = np.asarray(deltas, dtype=np.float64)
    values = adversarial_accuracy(radii, budgets, order)
    return np.where(budgets > 0, values, np.count_nonzero(~wrong) / len(wrong))


def accuracy_interval(
    value: float, n: int, order: float, confidence: float, failure: float = 0.0
) -> Interval:
    """Return an accuracy of ``n`` samples with its interval, valid for one order and budget.

    For finite orders the interval is valid at all budgets and orders simultaneously.
    """
    low, high = _accuracy_bounds(value, n, order, confidence, failure)
    return Interval(value=value, low=low, high=high)


def _accuracy_bounds(
    value: float, n: int, order: float, confidence: float, failure: float
) -> ConfidenceInterval:
    """Return exact binomial bounds for order inf, and DKW bounds for all other orders.

    The DKW bounds are uniform in delta and order. ``failure`` bounds the probability that any
    certified radius exceeds the true radius r. If none does, the accuracy by r on these samples is
    at least the value by the certified radii, at every delta and order; and the accuracy by r
    exceeds the population's by the slack of an error e with probability at most e. So

        P(A_delta(P) < low) <= failure + e,    e = (1 - confidence)/2 - failure,

    and the lower end spends the same error as that of a certificate that cannot fail.
    """

    def two_sided(confidence: float) -> ConfidenceInterval:
        if math.isinf(order):
            return clopper_pearson(round(value * n), n, confidence)
        return dkw(value, n, confidence)

    low, high = two_sided(confidence)
    if failure > 0:
        narrower = confidence + 2 * failure
        low = two_sided(narrower).low if narrower < 1 else 0.0
    return ConfidenceInterval(low, high)


def _quantiles(radii: Floats) -> Quantiles:
    """Return empirical quantiles without interpolation, so that each is some sample's radius."""
    values = np.quantile(radii, QUANTILES, method="inverted_cdf")
    return Quantiles(
        quantiles={
            f"{q:g}": float(value) if math.isfinite(value) else None
            for q, value in zip(QUANTILES, values, strict=True)
        }
    )


BINS = 20
"""Number of bins up to the largest radius of a histogram, before their width is rounded up."""


def histogram(attacked: Floats, certified: Floats) -> Histogram | None:
    """Count radii in bins of one round width.

    Args:
        attacked: (N,) radii, ``inf`` where no adversarial example was found.
        certified: (N,) radii.

    Returns:
        The histogram, or None if no radius is positive and finite.
    """
    both = np.concatenate([attacked, certified])
    both = both[np.isfinite(both) & (both > 0)]
    if not both.size:
        return None
    width = _round_up(float(both.max()) / BINS)
    bins = math.floor(float(both.max()) / width) + 1
    # Round multiples of the width to the usual decimal: 0.3, not 0.30000000000000004.
    edges = np.array([float(f"{k * width:.12g}") for k in range(bins + 1)])

    def counts(radii: Floats) -> tuple[list[int], int]:
        beyond = int((radii >= edges[-1]).sum())
        place = np.searchsorted(edges, radii[radii < edges[-1]], side="right") - 1
        return np.bincount(place, minlength=bins).tolist(), beyond

    (above, unbroken), (below, unbounded) = counts(attacked), counts(certified)
    return Histogram(
        edges=edges.tolist(),
        attacked=above,
        certified=below,
        attacked_beyond=unbroken,
        certified_beyond=unbounded,
    )


def _round_up(width: float) -> float:
    """Round up to the next 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(width))
    return float(f"{next(s for s in (1, 2, 2.5, 5, 10) if s * power >= width) * power:.12g}")
