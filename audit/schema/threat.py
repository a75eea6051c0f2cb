"""Everything measured under one metric: accuracies, radii, sensitivity, classes.

An *attacked* value is an upper bound of the true adversarial accuracy, a *certified* one a lower
bound; the ``low`` and ``high`` of each are its finite-sample interval.
"""

from typing import Literal

from pydantic import Field

from audit.schema.attack import Attack, Certifier
from audit.schema.base import Interval, Record


class FirstOrder(Record):
    """First-order estimates of R_delta (Bai, He, Jiang, Obloj 2023); estimates, not bounds.

    ``upper`` is a verified attack's Q_delta(S)/A, ``lower_value`` the paper's R~l, ``lower_slope``
    its R-l; ``violated`` states whether an attack of this report went below one of the two.
    """

    loss: str
    upper: float | None
    lower_value: float | None
    lower_slope: float | None
    violated: bool | None


class SensitivityPoint(FirstOrder):
    """The estimates of one loss at one budget."""

    delta: float


class ValuePoint(Record):
    """The loss V(delta) under the strongest adversary, on the samples.

    ``attained`` is the loss under an attack of this report, ``bounded`` a proven upper bound, and
    ``first_order`` the estimate V(0) + delta·Upsilon. ``outside`` states on which side of the other
    two the estimate lies, and is null where it is not shown to be outside.
    """

    delta: float
    attained: float | None
    first_order: float
    bounded: float | None
    outside: Literal["below", "above"] | None


class Sensitivity(Record):
    """Upsilon = (E ||grad J||_*^q)^(1/q) and V(0) = E J for one order and loss, with intervals."""

    order: str
    loss: str
    upsilon: Interval
    value_at_zero: Interval
    points: list[SensitivityPoint]
    value: list[ValuePoint] = Field(default=[])


class Robustness(Record):
    """R_delta = A_delta / A, both ends of the bracket."""

    attacked: Interval
    certified: Interval


class Point(Record):
    """Both ends of the bracket at one budget ``delta`` (unit: the threat's ``unit``)."""

    delta: float
    attacked: Interval
    certified: Interval
    robustness: Robustness
    first_order: FirstOrder | None


class Curve(Record):
    """Accuracy against the budget for one order (``inf``, ``2``, ``1``, ...)."""

    order: str
    points: list[Point]


class SoftPoint(Record):
    """A lower bound of the soft accuracy at a budget; its interval has no upper end."""

    delta: float
    certified: Interval


class SoftCurve(Record):
    """Lower bounds of the probability that a smoothed model classifies one noisy draw correctly."""

    order: str
    points: list[SoftPoint]


class Quantiles(Record):
    """Quantiles of the radii by probability; ``None`` where the quantile is beyond all radii."""

    quantiles: dict[str, float | None]


class Histogram(Record):
    """Correctly classified samples by radius; bin i holds edges[i] <= radius < edges[i + 1].

    ``attacked_beyond`` and ``certified_beyond`` count the samples at or beyond the last edge,
    including those that no attack broke.
    """

    edges: list[float]
    attacked: list[int]
    certified: list[int]
    attacked_beyond: int
    certified_beyond: int


class Radii(Record):
    """Radii over all samples; a misclassified sample has radius 0."""

    attacked: Quantiles
    certified: Quantiles
    histogram: Histogram | None = None


class ClassPoint(Record):
    """Both ends of the bracket for one class at one budget of order inf."""

    delta: float
    attacked: Interval
    certified: Interval


class ClassResult(Record):
    """Results for one class; the intervals of a budget hold simultaneously for all classes."""

    label: int
    name: str | None
    samples: int
    clean: Interval
    points: list[ClassPoint]


class ThreatResult(Record):
    """Everything measured under one metric."""

    metric: str
    unit: str
    attacks: list[Attack]
    certifier: Certifier
    sensitivity: list[Sensitivity]
    curves: list[Curve]
    radii: Radii
    soft: list[SoftCurve] = Field(default=[])
    classes: list[ClassResult] = Field(default=[])


def certificate_tried(threat: ThreatResult) -> bool:
    """Return whether certified accuracies were measured under a threat.

    The trivial bound, 0 at every positive budget, holds for every model and is no measurement.
    """
    return threat.certifier.status == "ran" and threat.certifier.name != "trivial"
