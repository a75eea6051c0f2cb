"""Comparison of two models on the same samples: paired counts, exact tests, intervals.

Of n samples, b remain correct only after the change and c only before it; the others do not show
which model is better. Given b + c, b is binomial, so with [l, h] the Clopper-Pearson interval of
b / (b + c)

    difference in [(2·l - 1)·(b + c)/n, (2·h - 1)·(b + c)/n],

and the two-sided binomial test of one half is McNemar's exact test (McNemar 1947).
"""

from scipy import stats

from audit.schema import Interval, Paired, PairedPoint
from audit.statistics.confidence import Booleans, Floats, clopper_pearson


def paired(before: Booleans, after: Booleans, confidence: float) -> Paired:
    """Compare which samples remain correct, ``(N,)`` bool each, in the same order.

    Raises:
        ValueError: there are no samples, or their numbers differ.
    """
    if before.shape != after.shape or not before.size:
        raise ValueError(
            f"expected two equally long, non-empty arrays, got {before.shape} and {after.shape}"
        )
    n = before.size
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    changed = gained + lost
    low, high = clopper_pearson(gained, changed, confidence) if changed else (0.5, 0.5)
    test = stats.binomtest(gained, changed, 0.5).pvalue if changed else 1.0
    return Paired(
        before=float(before.mean()),
        after=float(after.mean()),
        gained=gained,
        lost=lost,
        difference=Interval(
            value=(gained - lost) / n,
            low=(2 * low - 1) * changed / n,
            high=(2 * high - 1) * changed / n,
        ),
        p_value=float(test),
    )


def paired_points(
    before: tuple[Floats, Floats],
    after: tuple[Floats, Floats],
    deltas: tuple[float, ...],
    confidence: float,
) -> list[PairedPoint]:
    """Compare attacked and certified radii, ``(N,)`` each, at every budget of order inf."""
    return [
        PairedPoint(
            delta=delta,
            attacked=paired(before[0] > delta, after[0] > delta, confidence),
            certified=paired(before[1] > delta, after[1] > delta, confidence),
        )
        for delta in deltas
        if delta > 0
    ]
