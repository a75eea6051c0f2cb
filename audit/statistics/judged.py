"""Inputs of the statistics: the results of every sample, and the accuracies to report."""

from dataclasses import dataclass

from audit.statistics.confidence import Booleans, Floats, Integers


@dataclass(frozen=True)
class Judged:
    """Results of every sample under one metric.

    Attributes:
        labels: (N,) int64.
        correct: (N,) bool, whether the served model predicts the label.
        attacked: (N,) verified adversarial distances; 0 if misclassified, ``inf`` if unbroken.
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
        """Share of correct samples among all samples."""
        return int(self.correct.sum()) / len(self.correct)


@dataclass(frozen=True)
class Scope:
    """Orders, budgets and classes for which accuracies are reported.

    Attributes:
        orders: orders of the curves.
        deltas: budgets of the points.
        confidence: confidence level of every interval.
        names: names of the classes, if the data has them.
    """

    orders: tuple[float, ...]
    deltas: tuple[float, ...]
    confidence: float
    names: tuple[str, ...] | None = None
