"""The values that health checks look at: the model, the attacks under one metric, a whole scan.

They are built in `audit.scanning.checks` and nowhere else in the program.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from attackers.geometry import Metric
from audit.evidence.readings import Finding
from audit.evidence.samples import Samples
from audit.models.classifier import Classifier
from audit.schema import Attack

PROBE_SIZE = 64
"""Correct samples that most checks look at.

More samples make the checks slower in proportion; a share of a probe of 64 has a standard error of
at most 6 %.
"""


@dataclass(frozen=True)
class ModelSubject:
    """The served model and the samples, before any attack.

    Attributes:
        classifier: the audited model; with ``--smooth`` the smoothed one. Its differentiable copy
            is missing where `parity` found that it cannot be trusted.
        served: the model of the file as it was loaded.
        samples: all audited samples.
        confidence: of intervals.
        class_names: by label, where the data has names.
        readings: findings about other readings of the model and of the data.
        metric: of the first threat; gradients are measured at random points of its ball.
        delta: radius of that ball.
    """

    classifier: Classifier
    served: Classifier
    samples: Samples
    confidence: float
    class_names: Sequence[str] | None
    readings: tuple[Finding, ...]
    metric: Metric
    delta: float

    @property
    def metric_name(self) -> None:
        """None: the findings are about the model."""


@dataclass(frozen=True)
class MetricSubject:
    """The evidence of a scan under one metric, after its attacks and certificates.

    Attributes:
        classifier: the audited model.
        samples: all audited samples, N of them.
        metric: the metric.
        delta: the budget that checks look at, in the unit of the metric.
        radius: (N,) float64 attacked radii, ``inf`` where no example was found.
        x: (N, ...) the examples at those radii, the sample itself where there is none.
        found_by: (N) names of the attacks that found them.
        certified: (N,) float64 certified radii.
        other_examples: any number of (N, ...), the examples found under other metrics.
        attack: the iterative attack of the metric, which the checks run again:
            ``attack(logits, x0, labels, threat, generator=…, steps=…)``.
        steps: gradient steps per run of it.
    """

    classifier: Classifier
    samples: Samples
    metric: Metric
    delta: float
    radius: Tensor
    x: Tensor
    found_by: Sequence[str]
    certified: Tensor
    other_examples: tuple[Tensor, ...]
    attack: Callable[..., Tensor]
    steps: int

    @property
    def metric_name(self) -> str:
        """Name of the metric."""
        return self.metric.name

    @property
    def remaining(self) -> Tensor:
        """(N,) bool, the samples that no attack broke within the budget."""
        return self.radius > self.delta

    @property
    def logits(self) -> Callable[[Tensor], Tensor]:
        """What attacks see: the differentiable copy, or the served scores where there is none."""
        return attacked_function(self.classifier)


@dataclass(frozen=True)
class ScanSubject:
    """How far a scan got.

    Attributes:
        attacks: the attacks by metric that was reached.
        failures: sentences about what stopped on an error.
        missing: metrics that were not reached.
        interrupted: whether the scan was stopped from outside.
    """

    attacks: Mapping[str, Sequence[Attack]]
    failures: Sequence[str]
    missing: Sequence[str]
    interrupted: bool

    @property
    def metric_name(self) -> None:
        """None: the finding is about all metrics together."""


def attacked_function(classifier: Classifier) -> Callable[[Tensor], Tensor]:
    """Return the differentiable copy, or the served scores where there is none."""
    return classifier.deployed if classifier.white_box is None else classifier.differentiable
