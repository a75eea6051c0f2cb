"""From radii to the report's numbers: curves with intervals, the bracket, quantiles."""

import math

import numpy as np

from attackers.geometry import Metric
from audit.certify import Certified
from audit.evidence.samples import Samples
from audit.scanning.config import order_name
from audit.scanning.sensitivity import as_first_order, mark_violations, primary
from audit.schema import (
    Attack,
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
from audit.statistics.confidence import Bounds, Floats, clopper_pearson, dkw, ratio
from audit.statistics.knapsack import adversarial_accuracy
from audit.statistics.soft import soft_curves
from audit.statistics.value import bracketed

QUANTILES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)


def clean(samples: Samples, confidence: float) -> Clean:
    """Clean accuracy with its Clopper-Pearson interval."""
    low, high = clopper_pearson(int(samples.correct.sum()), len(samples), confidence)
    return Clean(value=samples.accuracy, low=low, high=high, confidence=confidence)


def summarise(
    samples: Samples,
    *,
    metric: Metric,
    attacked: Floats,
    certified: Certified,
    attacks: list[Attack],
    sensitivity: list[Sensitivity],
    losses: dict[str, Floats],
    orders: tuple[float, ...],
    deltas: tuple[float, ...],
    confidence: float,
    names: tuple[str, ...] | None = None,
) -> ThreatResult:
    """Assemble everything known about one metric.

    Args:
        samples: the audited samples.
        metric: the geometry.
        attacked: (N,) verified adversarial distances; 0 where wrong, ``inf`` where unbroken.
        certified: certified radii.
        attacks: what ran.
        sensitivity: first-order quantities, violations and the loss's bracket not yet known.
        losses: (N,) each of its losses at the samples, by name.
        orders: of the curves.
        deltas: of the points.
        confidence: of every interval.
        names: of the classes, where the data has them.
    """
    lower = certified.radius.numpy()
    failure = certified.certifier.failure_probability * len(samples)
    right = samples.correct.numpy()
    brackets = {
        order: (
            accuracy(attacked, ~right, deltas, order),
            accuracy(lower, ~right, deltas, order),
        )
        for order in orders
    }
    clean_bounds = clopper_pearson(
        int(samples.correct.sum()), len(samples), 1 - (1 - confidence) / 2
    )

    def relative(value: float, order: float, failure: float = 0.0) -> Interval:
        above = _bounds(value, len(samples), order, 1 - (1 - confidence) / 2, failure)
        low, high = ratio(above, clean_bounds)
        if not samples.accuracy:
            return Interval(value=None, low=None, high=None)  # a share of nothing
        share = value / samples.accuracy
        return Interval(value=share, low=min(low, share), high=max(high, share))

    def attacked_robustness(order: str, delta: float) -> float | None:
        for candidate in orders:
            if order_name(candidate) == order and samples.accuracy:
                value = brackets[candidate][0][deltas.index(delta)]
                return float(value) / samples.accuracy
        return None

    by_name = {order_name(order): order for order in orders}
    marked = [
        bracketed(entry, losses[entry.loss], attacked, certified.envelope, by_name[entry.order])
        for entry in mark_violations(sensitivity, attacked_robustness)
    ]
    curves = [
        Curve(
            order=order_name(order),
            points=[
                Point(
                    delta=delta,
                    attacked=_interval(float(above), len(samples), order, confidence),
                    certified=_interval(float(below), len(samples), order, confidence, failure),
                    robustness=Robustness(
                        attacked=relative(float(above), order),
                        certified=relative(float(below), order, failure),
                    ),
                    first_order=as_first_order(primary(marked, order_name(order), delta)),
                )
                for delta, above, below in zip(deltas, *brackets[order], strict=True)
            ],
        )
        for order in orders
    ]
    return ThreatResult(
        metric=metric.name,
        unit=metric.unit,
        attacks=attacks,
        certifier=certified.certifier,
        sensitivity=marked,
        curves=curves,
        radii=Radii(
            attacked=_quantiles(attacked),
            certified=_quantiles(lower),
            histogram=histogram(attacked[right], lower[right]),
        ),
        soft=soft_curves(
            certified.soft, orders=orders, deltas=deltas, confidence=confidence, failure=failure
        ),
        classes=by_class(samples, attacked, lower, deltas, confidence, names, failure),
    )


def accuracy(
    radii: Floats,
    wrong: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
    deltas: tuple[float, ...],
    order: float,
) -> Floats:
    """A_delta on the samples; at delta = 0 it is the clean accuracy, whatever the radii say.

    A certified radius of 0 on a correct sample means 'nothing is known', and without a budget
    nothing can be taken.
    """
    budgets = np.asarray(deltas, dtype=np.float64)
    values = adversarial_accuracy(radii, budgets, order)
    return np.where(budgets > 0, values, np.count_nonzero(~wrong) / len(wrong))


def _interval(
    value: float, n: int, order: float, confidence: float, failure: float = 0.0
) -> Interval:
    low, high = _bounds(value, n, order, confidence, failure)
    return Interval(value=value, low=low, high=high)


def _bounds(value: float, n: int, order: float, confidence: float, failure: float) -> Bounds:
    """Exact binomial for the pointwise threat, DKW (uniform in delta and order) for the others.

    ``failure`` bounds the probability that any of the radii is not the lower bound it is said to
    be. Where none fails, the accuracy by the true radii r is on these samples at least the value by
    the certified ones, at every delta and order; and by r it exceeds the population's by the slack
    of an error e with probability at most e. So

        P(A_delta(P) < low) <= failure + e,    e = (1 - confidence)/2 - failure,

    and the lower end spends the same error as that of a certificate which cannot fail.
    """

    def two_sided(confidence: float) -> Bounds:
        if math.isinf(order):
            return clopper_pearson(round(value * n), n, confidence)
        return dkw(value, n, confidence)

    low, high = two_sided(confidence)
    if failure > 0:
        narrower = confidence + 2 * failure
        low = two_sided(narrower).low if narrower < 1 else 0.0
    return Bounds(low, high)


def _quantiles(radii: Floats) -> Quantiles:
    """Empirical quantiles without interpolation, so that each is some sample's radius."""
    values = np.quantile(radii, QUANTILES, method="inverted_cdf")
    return Quantiles(
        quantiles={
            f"{q:g}": float(value) if math.isfinite(value) else None
            for q, value in zip(QUANTILES, values, strict=True)
        }
    )


BINS = 20
"""Of a histogram, at most."""


def histogram(attacked: Floats, certified: Floats) -> Histogram | None:
    """Count radii in bins of one round width.

    Args:
        attacked: (N,) radii, ``inf`` where nothing was found.
        certified: (N,) radii.

    Returns:
        None where no radius is positive and finite.
    """
    both = np.concatenate([attacked, certified])
    both = both[np.isfinite(both) & (both > 0)]
    if not both.size:
        return None
    width = _round_up(float(both.max()) / BINS)
    bins = math.floor(float(both.max()) / width) + 1
    # Multiples of a decimal, each as people write it: 0.3, and not 0.30000000000000004.
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
    """The next of 1, 2, 2.5 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(width))
    return float(f"{next(s for s in (1, 2, 2.5, 5, 10) if s * power >= width) * power:.12g}")
