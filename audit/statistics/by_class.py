"""Which classes an adversary takes: both ends of the bracket for every label, at order inf.

The worst class is the worst of many: an interval of its own would hold for a class named
beforehand, not for the one that turns out lowest. So all of them hold together (Bonferroni).
"""

import numpy as np

from audit.evidence.samples import Samples
from audit.schema import ClassPoint, ClassResult, Interval
from audit.statistics.confidence import Floats, clopper_pearson


def by_class(
    samples: Samples,
    attacked: Floats,
    certified: Floats,
    deltas: tuple[float, ...],
    confidence: float,
    names: tuple[str, ...] | None,
    failure: float = 0.0,
) -> list[ClassResult]:
    """Accuracy of every label that occurs, clean and at each budget.

    Args:
        samples: the audited samples.
        attacked: (N,) verified adversarial distances.
        certified: (N,) certified radii.
        deltas: budgets.
        confidence: that all intervals of one budget hold together.
        names: of the classes, where the data has them.
        failure: bounds the probability that any certified radius is too large.
    """
    labels, correct = samples.labels.numpy(), samples.correct.numpy()
    found = np.unique(labels)
    each = 1 - (1 - confidence) / len(found)
    narrower = 1 - max((1 - confidence) - 2 * failure, 0.0) / len(found)

    def share(stands: "np.ndarray[tuple[int], np.dtype[np.bool_]]", held: float) -> Interval:
        count, n = int(stands.sum()), len(stands)
        low, high = clopper_pearson(count, n, held)
        return Interval(value=count / n, low=low, high=high)

    def result(label: int) -> ClassResult:
        rows = labels == label
        return ClassResult(
            label=label,
            name=None if names is None or label >= len(names) else names[label],
            samples=int(rows.sum()),
            clean=share(correct[rows], each),
            points=[
                ClassPoint(
                    delta=delta,
                    attacked=share(attacked[rows] > delta, each),
                    certified=share(certified[rows] > delta, narrower),
                )
                for delta in deltas
                if delta > 0
            ],
        )

    return [result(int(label)) for label in found]
