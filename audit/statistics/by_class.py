"""Accuracy of every class under attack: both ends of the bracket for every label, at order inf.

The worst class is selected after looking at all classes, and a separate interval would hold only
for a class chosen beforehand. So the intervals of all classes hold together (Bonferroni).
"""

import numpy as np

from audit.schema import ClassPoint, ClassResult, Interval
from audit.statistics.confidence import Booleans, clopper_pearson
from audit.statistics.judged import Judged, Scope


def by_class(judged: Judged, scope: Scope) -> list[ClassResult]:
    """Return the accuracy of every label that occurs, clean and at each budget.

    Args:
        judged: the audited samples.
        scope: budgets, names of the classes, and the confidence level at which all intervals of one
            budget hold together.
    """
    labels, correct, failure = judged.labels, judged.correct, judged.failure * len(judged.labels)
    attacked, certified, confidence = judged.attacked, judged.certified, scope.confidence
    found = np.unique(labels)
    each = 1 - (1 - confidence) / len(found)
    narrower = 1 - max((1 - confidence) - 2 * failure, 0.0) / len(found)

    def share(stands: Booleans, held: float) -> Interval:
        count, n = int(stands.sum()), len(stands)
        low, high = clopper_pearson(count, n, held)
        return Interval(value=count / n, low=low, high=high)

    def name_of(label: int) -> str | None:
        names = scope.names
        return None if names is None or label >= len(names) else names[label]

    def result(label: int) -> ClassResult:
        rows = labels == label
        return ClassResult(
            label=label,
            name=name_of(label),
            samples=int(rows.sum()),
            clean=share(correct[rows], each),
            points=[
                ClassPoint(
                    delta=delta,
                    attacked=share(attacked[rows] > delta, each),
                    certified=share(certified[rows] > delta, narrower),
                )
                for delta in scope.deltas
                if delta > 0
            ],
        )

    return [result(int(label)) for label in found]
