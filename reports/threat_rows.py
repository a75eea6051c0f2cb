"""Rows of the detail tables of a report as text, the same in every renderer."""

from dataclasses import dataclass
from itertools import pairwise

from audit.schema import ClassResult, FirstOrder, GalleryItem, Interval, ScanReport, ThreatResult
from reports.numbers import exact, percent, proportion, significant, thousands


@dataclass(frozen=True)
class Estimate:
    """First-order estimates of R at one order, loss and budget, as text."""

    order: str
    loss: str
    delta: float
    upper: str
    lower_value: str
    lower_slope: str
    violated: str


def estimates(threat: ThreatResult) -> list[Estimate]:
    """Return every first-order estimate of this metric once, wherever the report holds it."""
    found: list[tuple[str, float, FirstOrder]] = [
        (entry.order, point.delta, point) for entry in threat.sensitivity for point in entry.points
    ]
    found += [
        (curve.order, point.delta, point.first_order)
        for curve in threat.curves
        for point in curve.points
        if point.first_order is not None
    ]
    shown = [
        Estimate(
            order,
            point.loss,
            delta,
            percent(point.upper, "up"),
            percent(point.lower_value, "down"),
            percent(point.lower_slope, "down"),
            {True: "violated", False: "no", None: "not checked"}[point.violated],
        )
        for order, delta, point in found
    ]
    return list(dict.fromkeys(shown))


@dataclass(frozen=True)
class LossBound:
    """Loss under the strongest adversary at one order, loss and budget, as text."""

    order: str
    loss: str
    delta: float
    attained: str
    first_order: str
    bounded: str
    outside: str


def loss_bounds(threat: ThreatResult) -> list[LossBound]:
    """Return V(delta) from both sides, and how the first-order estimate compares with them."""
    outcomes = {"below": "too low", "above": "too high", None: "not refuted"}
    return [
        LossBound(
            entry.order,
            entry.loss,
            point.delta,
            significant(point.attained, "down"),
            significant(point.first_order, "nearest"),
            "not bounded" if point.bounded is None else significant(point.bounded, "up"),
            outcomes[point.outside],
        )
        for entry in threat.sensitivity
        for point in entry.value
    ]


SOFT = "lower bounds of the probability that one noisy draw is classified correctly"
"""Definition of soft accuracy."""


def soft_bounds(certified: Interval) -> tuple[str, str]:
    """Return a bound of the soft accuracy on the samples, and its lower confidence limit."""
    return percent(certified.value, "down"), percent(certified.low, "down")


def histogram_rows(threat: ThreatResult) -> list[tuple[str, str, str]]:
    """Return each bin of the radii with its attacked and its certified number of samples.

    The first bin also counts the samples without a certificate.
    """
    found = threat.radii.histogram
    if found is None:
        return []
    names = [f"{exact(a)} to {exact(b)}" for a, b in pairwise(found.edges)]
    names.append(f"{exact(found.edges[-1])} or more")
    attacked = [*found.attacked, found.attacked_beyond]
    certified = [*found.certified, found.certified_beyond]
    return [
        (name, thousands(a), thousands(c))
        for name, a, c in zip(names, attacked, certified, strict=True)
    ]


def quantile_name(probability: str) -> str:
    """Return the name of a quantile: '0.5' is 'median', '0.05' is '5 %'."""
    try:
        value = float(probability)
    except ValueError:
        return probability
    return "median" if value == 0.5 else f"{exact(round(100 * value, 10))} %"


CLASSES_SHOWN = 50
"""Most classes in a table; report.json has all of them."""


def worst_classes(threat: ThreatResult) -> list[ClassResult]:
    """Return at most `CLASSES_SHOWN` classes, lowest attacked accuracy first, unmeasured last."""

    def accuracy_left(entry: ClassResult) -> tuple[int, float, int]:
        known = [point.attacked.value for point in entry.points if point.attacked.value is not None]
        return len(entry.points) - len(known), sum(known), entry.label

    return sorted(threat.classes, key=accuracy_left)[:CLASSES_SHOWN]


def class_name(entry: ClassResult) -> str:
    """Return the label and, where it is known, the name of a class."""
    return str(entry.label) if entry.name is None else f"{entry.label} {entry.name}"


def class_names(report: ScanReport, item: GalleryItem) -> tuple[str, str]:
    """Return the names of the label and of the predicted class of a picture."""
    named = {
        entry.label: class_name(entry)
        for threat in report.threats
        if threat.metric == item.metric
        for entry in threat.classes
    }
    return named.get(item.label, str(item.label)), named.get(item.prediction, str(item.prediction))


def model_confidence(item: GalleryItem) -> str:
    """Return the model's confidence before and after; empty where it serves no probabilities."""
    if item.confidences is None:
        return ""
    before, after = (percent(value, "nearest") for value in item.confidences)
    return f"{before} → {after}"


GENERATED = "outputs at the radius of training, before the judge; all samples counted"
"""What the numbers of a generator describe."""


def generator_rows(report: ScanReport) -> list[tuple[str, str]]:
    """Return the numbers of the trained generator with their names; empty where none was used."""
    used = report.generator
    if used is None:
        return []
    made = used.as_generated
    spreads = (
        ("wasserstein", made.wasserstein, f"; exact, on {thousands(made.planned)} samples"),
        ("l2", made.l2, ""),
        ("linf", made.linf, ""),
        ("mass", made.mass_ratio, " times the original's"),
    )
    return [
        ("generator", f"{used.variant}, head {used.head}, radius up to {exact(used.radius)}"),
        ("trained for", "another model: a transfer attack" if used.transfer else "this model"),
        ("file", used.path),
        ("sha256", used.sha256),
        (
            "accuracy",
            f"{proportion(made.accuracy, 'attacked')} on {thousands(made.samples)} samples",
        ),
        *(
            (
                name,
                f"mean {significant(found.mean, 'nearest')}, from "
                f"{significant(found.smallest, 'down')} to {significant(found.largest, 'up')}"
                f"{remark}",
            )
            for name, found, remark in spreads
        ),
    ]
