"""Values that health checks examine: the model, the evidence under one metric, or a whole scan.

They are built only in `audit.scanning.checks`.
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
"""Number of correct samples that most checks examine.

More samples make the checks slower in proportion; a share of a probe of 64 has a standard error of
at most 6 %.
"""


@dataclass(frozen=True)
class ModelSubject:
    """Served model and samples, before any attack.

    Attributes:
        classifier: the audited model; with ``--smooth``, the smoothed model. It has no
            differentiable copy if `parity` found that the copy cannot be trusted.
        served: the model of the file as it was loaded.
        samples: all audited samples.
        confidence: confidence level of intervals.
        class_names: names of the classes by label, if the data has them.
        readings: findings about other ways to interpret the model and the data.
        metric: metric of the first threat; gradients are measured at random points of its ball.
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
        """None, since the findings are about the model."""


@dataclass(frozen=True)
class MetricSubject:
    """Evidence of a scan under one metric, after its attacks and certificates.

    Attributes:
        classifier: the audited model.
        samples: all audited samples, N of them.
        metric: the metric.
        delta: the budget that checks use, in the unit of the metric.
        radius: (N,) float64 attacked radii, ``inf`` where no example was found.
        x: (N, ...) the examples at those radii, or the sample itself where there is none.
        found_by: (N) names of the attacks that found the examples.
        certified: (N,) float64 certified radii.
        other_examples: examples found under other metrics, each (N, ...).
        attack: the iterative attack of the metric, which the checks rerun:
            ``attack(logits, x0, labels, threat, generator=…, steps=…)``.
        steps: gradient steps per run of the attack.
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
        """Samples that no attack broke within the budget, (N,) bool."""
        return self.radius > self.delta

    @property
    def logits(self) -> Callable[[Tensor], Tensor]:
        """Attacked function: the differentiable copy, or the served scores if there is no copy."""
        return self.classifier.attacked_function


@dataclass(frozen=True)
class ScanSubject:
    """Extent to which a scan completed.

    Attributes:
        attacks: records of the attacks, by metric, for the metrics that were reached.
        failures: sentences on what stopped on an error.
        missing: metrics that were not reached.
        interrupted: whether the user interrupted the scan.
    """

    attacks: Mapping[str, Sequence[Attack]]
    failures: Sequence[str]
    missing: Sequence[str]
    interrupted: bool

    @property
    def metric_name(self) -> None:
        """None, since the finding is about all metrics together."""
