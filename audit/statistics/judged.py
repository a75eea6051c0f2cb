"""What statistics start from: what is known of every sample, and what to state."""

from dataclasses import dataclass

from audit.statistics.confidence import Booleans, Floats, Integers


@dataclass(frozen=True)
class Judged:
    """What is known of every sample under one metric.

    Attributes:
        labels: (N,) int64.
        correct: (N,) bool, whether the served model names the label.
        attacked: (N,) verified adversarial distances; 0 where wrong, ``inf`` where unbroken.
        certified: (N,) certified radii.
        failure: probability, per sample, that a certified radius is too large.
    """

    labels: Integers
    correct: Booleans
    attacked: Floats
    certified: Floats
    failure: float = 0.0

    @property
    def accuracy(self) -> float:
        """Share of correct samples, all counted."""
        return int(self.correct.sum()) / len(self.correct)


@dataclass(frozen=True)
class Scope:
    """What accuracies are stated for.

    Attributes:
        orders: of the curves.
        deltas: of the points.
        confidence: of every interval.
        names: of the classes, where the data has them.
    """

    orders: tuple[float, ...]
    deltas: tuple[float, ...]
    confidence: float
    names: tuple[str, ...] | None = None
