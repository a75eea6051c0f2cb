"""The report object: plain data, the only thing its renderers ever read.

Numbers are numbers in the unit that their field states; ``None`` means *not measured*, never zero.
An *attacked* value is an upper bound on the true adversarial accuracy, a *certified* one a lower
bound; the ``low``/``high`` beside each is its finite-sample interval.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from audit.schema.base import Interval, Record, Reliability, Tool
from audit.schema.health import Health

REPORT_VERSION: Literal[2] = 2
"""Version of the layout below; `audit.schema.upgrade` reads earlier ones."""

Status = Literal["complete", "partial", "interrupted"]
Verdict = Literal["pass", "fail", "inconclusive", "none"]
RunStatus = Literal["ran", "not_applicable", "error"]
GateStatus = Literal["pass", "fail", "warn", "inconclusive", "waived"]


class Clean(Interval):
    """Accuracy on the unperturbed samples, all samples counted (Clopper-Pearson interval)."""

    confidence: float


class ModelInput(Record):
    """What the served model takes, and the units in which radii are measured.

    ``shape`` is the model's own input shape, batch first; ``None`` marks a dynamic dimension.
    """

    shape: list[int | None]
    dtype: str
    layout: str | None
    low: float
    high: float
    mean: list[float] | None
    std: list[float] | None


class Parity(Record):
    """Largest absolute score difference between the served runtime and its differentiable copy."""

    max_abs_difference: float
    samples: int


class Model(Record):
    """The audited file; with ``smoothed``, under noise of that standard deviation.

    All numbers then speak of the class that the file's model names most often under the noise.
    """

    path: str
    sha256: str
    format: str
    classes: int
    input: ModelInput
    output: Literal["logits", "probabilities", "labels"]
    gradient: Literal["native", "lifted", "none"]
    parity: Parity | None
    smoothed: float | None = None


class Data(Record):
    """The labelled samples: how many the file holds, how many were judged, how many are correct."""

    path: str
    sha256: str
    available: int
    evaluated: int
    correct: int


class AttackBudget(Record):
    """The most that an attack may spend; ``per`` says on what."""

    gradients: int | None = None
    forwards: int | None = None
    per: Literal["sample", "sample and budget"]


class Attack(Record):
    """One attack on one metric, and what it cost in single-sample passes.

    ``broken`` counts the samples for which it gave a confirmed adversarial example, at any radius;
    ``budget`` is what its effort preset allows, beside what it took.
    """

    name: str
    status: RunStatus
    detail: str
    broken: int | None
    forwards: int | None
    gradients: int | None
    seconds: float | None
    budget: AttackBudget | None = None


class Spread(Record):
    """Smallest, mean and largest of a number over samples; null where one is not finite."""

    smallest: float | None
    mean: float | None
    largest: float | None


class AsGenerated(Record):
    """What a generator's images do and how far they are, before any judge or radius.

    ``accuracy`` counts all samples. ``wasserstein`` is exact, on ``planned`` samples, after every
    channel got its old mass back, since images of another mass have no such distance;
    ``mass_ratio`` says how much it was.
    """

    samples: int
    accuracy: Interval
    planned: int
    wasserstein: Spread
    l2: Spread
    linf: Spread
    mass_ratio: Spread


class GeneratorUsed(Record):
    """The trained generator of the attack ``wagan``; ``transfer``: trained for another model."""

    path: str
    sha256: str
    head: str
    variant: str
    radius: float
    transfer: bool
    as_generated: AsGenerated


class Certifier(Record):
    """The method behind the certified radii; ``failure_probability`` is per sample."""

    name: str
    status: RunStatus
    detail: str
    seconds: float | None
    failure_probability: float


class FirstOrder(Record):
    """First-order estimates of R_delta (Bai, He, Jiang, Obloj 2023); estimates, not bounds.

    ``upper`` is a verified attack's Q_delta(S)/A, ``lower_value`` the paper's R~l, ``lower_slope``
    its R-l; ``violated`` says that an attack of this report went below one of the two.
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

    ``attained`` is what an attack of this report reaches, ``bounded`` what provably is not
    exceeded, ``first_order`` the estimate V(0) + delta·Upsilon; ``outside`` says on which side of
    the other two it lies, null where it is not shown to be outside.
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
    """Of a smoothed model: the probability that one noisy draw is right, at least, by budget."""

    order: str
    points: list[SoftPoint]


class Quantiles(Record):
    """Quantiles of the per-sample radii, keyed by probability; ``None``: beyond what was found."""

    quantiles: dict[str, float | None]


class Histogram(Record):
    """Correctly classified samples by radius; bin i holds edges[i] <= radius < edges[i + 1].

    ``attacked_beyond`` and ``certified_beyond`` count the samples at or past the last edge, among
    them those that no attack broke.
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
    """One class; the intervals of a budget hold for all classes together."""

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


class Gate(Record):
    """One condition on the report, and how it came out; ``value`` is the number judged.

    ``detail`` says why, where the value does not: what was not measured, or who waived it.
    """

    id: str
    expression: str
    status: GateStatus
    value: float | None
    detail: str = ""


class GalleryItem(Record):
    """One broken sample as pictures (PNG data URIs), for the HTML report.

    ``flow`` and ``note`` show and tell how mass moved, under the image-Wasserstein threat.
    ``confidences`` are the model's probabilities of the class that it names, before and after;
    null where it serves none.
    """

    metric: str
    index: int
    label: int
    prediction: int
    distance: float
    attack: str
    original: str
    adversarial: str
    difference: str
    flow: str | None = None
    note: str = ""
    confidences: tuple[float, float] | None = None


class Artifacts(Record):
    """Files written beside the report (names relative to it), and the embedded gallery."""

    samples: str | None = None
    adversarial: str | None = None
    html: str | None = None
    gallery: list[GalleryItem] = Field(default=[])


class Report(Record):
    """One scan, whole."""

    schema_version: Literal[2] = REPORT_VERSION
    tool: Tool
    status: Status
    verdict: Verdict
    created: Annotated[str, Field(description="UTC, ISO 8601")]
    model: Model
    data: Data
    config: dict[str, Any]
    environment: dict[str, Any]
    clean: Clean
    threats: list[ThreatResult]
    health: list[Health]
    gates: list[Gate]
    warnings: list[str]
    artifacts: Artifacts
    generator: GeneratorUsed | None = None


def reliability(report: Report) -> Reliability:
    """GREEN when every health check that applies passed, AMBER on a warning, RED on a failure.

    A check that stopped on an error counts as failed.

    Where no check applied nothing speaks for the numbers: AMBER. A scan that did not run to its
    end is RED: what it left out may break more samples.
    """
    statuses = {entry.status for entry in report.health}
    if statuses & {"fail", "error"} or report.status != "complete":
        return "RED"
    return "GREEN" if "pass" in statuses and "warn" not in statuses else "AMBER"


def certificate_tried(threat: ThreatResult) -> bool:
    """Return whether certified accuracies were measured under a threat.

    The trivial bound, 0 at every positive budget, holds for every model and is no measurement.
    """
    return threat.certifier.status == "ran" and threat.certifier.name != "trivial"
