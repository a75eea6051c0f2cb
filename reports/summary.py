"""The sentences every renderer opens with, so that they say the same thing in the same words."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath, PureWindowsPath

from audit.schema import (
    ClassResult,
    FirstOrder,
    GalleryItem,
    Health,
    Point,
    Reliability,
    Report,
    ThreatResult,
    reliability,
)
from reports.numbers import (
    NOT_MEASURED,
    Bracket,
    budget,
    count,
    exact,
    percent,
    share,
    significant,
)

VERDICTS = {
    "pass": "every gate passed",
    "fail": "a gate failed",
    "inconclusive": "inconclusive: the evidence does not decide the gates",
    "none": "no gates were set",
}

RELIABILITIES: dict[Reliability, str] = {
    "GREEN": "every health check that applies passed",
    "AMBER": "a health check warns: read its advice before trusting the numbers",
    "RED": "a health check failed: the numbers may be wrong",
}

STATUSES = {
    "complete": "the scan ran to its end",
    "partial": "part of the scan stopped on an error, so attacked accuracies may be too high",
    "interrupted": "the scan was interrupted, so attacked accuracies may be too high",
}

NO_REPAIR = (
    "The attacked accuracy is an upper bound: a stronger or adaptive attack may leave less. The "
    "certified accuracy is a lower bound: no attack of this threat can leave less."
)


@dataclass(frozen=True)
class Headline:
    """One metric in a line: the bracket at the middle budget of its first order."""

    metric: str
    unit: str
    order: str
    budget: str
    point: Point
    attacked: Bracket
    certified: Bracket


def file_name(path: str) -> str:
    """The last part of a path, whichever system wrote it."""
    return PurePosixPath(PureWindowsPath(path).as_posix()).name or path


def clean(report: Report) -> str:
    """Clean accuracy with both denominators."""
    evaluated = count(report.data.evaluated)
    return (
        f"clean {percent(report.clean.value, 'down')} ({count(report.data.correct)} of "
        f"{evaluated} correct; accuracies count all {evaluated} samples)"
    )


def clean_interval(report: Report) -> Bracket:
    """Clean accuracy, rounded down, with its interval."""
    return share(report.clean, "certified")


def confidence(report: Report) -> str:
    """The confidence that every interval of the report states."""
    return f"{exact(round(100 * report.clean.confidence, 10))} %"


def headline(threat: ThreatResult) -> Headline | None:
    """The bracket to quote for this metric, or None when nothing was measured."""
    if not threat.curves or not threat.curves[0].points:
        return None
    curve = threat.curves[0]
    point = curve.points[len(curve.points) // 2]
    return Headline(
        threat.metric,
        threat.unit,
        curve.order,
        budget(point.delta, threat.metric),
        point,
        share(point.attacked, "attacked"),
        share(point.certified, "certified"),
    )


def bracket(line: Headline) -> str:
    """What is known of the adversarial accuracy, from both sides where both were measured."""
    least = f"at least {line.certified.value} (certified)"
    most = f"at most {line.attacked.value} (attacked)"
    match (line.certified.value != NOT_MEASURED, line.attacked.value != NOT_MEASURED):
        case (True, True):
            return f"{least} and {most}"
        case (True, False):
            return f"{least}; attacked accuracy was not measured"
        case (False, True):
            return f"{most}; certified accuracy was not measured"
        case _:
            return NOT_MEASURED


@dataclass(frozen=True)
class Estimate:
    """The first-order estimates of R at one order, loss and budget, as text."""

    order: str
    loss: str
    delta: float
    upper: str
    lower_value: str
    lower_slope: str
    violated: str


def estimates(threat: ThreatResult) -> list[Estimate]:
    """Every first-order estimate of this metric once, wherever the report holds it."""
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


SOFT = "the probability that one noisy draw is right; a lower bound, with its lower end"
"""What soft accuracy is."""


@dataclass(frozen=True)
class Value:
    """The loss under the strongest adversary at one order, loss and budget, as text."""

    order: str
    loss: str
    delta: float
    attained: str
    first_order: str
    bounded: str
    outside: str


def values(threat: ThreatResult) -> list[Value]:
    """V(delta) from both sides, and what the estimate is."""
    said = {
        "below": "too low: attained",
        "above": "too high: bounded",
        None: "not refuted",
    }
    return [
        Value(
            entry.order,
            entry.loss,
            point.delta,
            significant(point.attained, "down"),
            significant(point.first_order, "nearest"),
            "not bounded" if point.bounded is None else significant(point.bounded, "up"),
            said[point.outside],
        )
        for entry in threat.sensitivity
        for point in entry.value
    ]


def bins(threat: ThreatResult) -> list[tuple[str, str, str]]:
    """The histogram of radii: each bin, and how many samples attacked and certified radii put in.

    The first bin also holds the samples of which nothing is certified.
    """
    found = threat.radii.histogram
    if found is None:
        return []
    names = [f"{exact(a)} to {exact(b)}" for a, b in pairwise(found.edges)]
    columns = ([*found.attacked, found.attacked_beyond], [*found.certified, found.certified_beyond])
    beyond = f"{exact(found.edges[-1])} or more"
    return list(zip([*names, beyond], *(map(count, column) for column in columns), strict=True))


def class_of(report: Report, item: GalleryItem) -> tuple[str, str]:
    """What a picture's label and prediction are called."""
    named = {
        entry.label: class_name(entry)
        for threat in report.threats
        if threat.metric == item.metric
        for entry in threat.classes
    }
    return named.get(item.label, str(item.label)), named.get(item.prediction, str(item.prediction))


def certainty(item: GalleryItem) -> str:
    """How sure the model was of what it said, before and after; empty where it does not say."""
    if item.confidences is None:
        return ""
    before, after = (percent(value, "nearest") for value in item.confidences)
    return f"confidence {before} → {after}"


CLASSES_SHOWN = 50
"""Classes in a table; the JSON has all."""


def classes(threat: ThreatResult) -> list[ClassResult]:
    """The classes, the one that loses most first, unmeasured ones last; at most `CLASSES_SHOWN`."""

    def left(entry: ClassResult) -> tuple[int, float, int]:
        known = [point.attacked.value for point in entry.points if point.attacked.value is not None]
        return len(entry.points) - len(known), sum(known), entry.label

    return sorted(threat.classes, key=left)[:CLASSES_SHOWN]


def class_name(entry: ClassResult) -> str:
    """Label and name of a class."""
    return str(entry.label) if entry.name is None else f"{entry.label} {entry.name}"


GENERATED = "what it makes at the radius it was trained for, before any judge; all samples counted"
"""What the numbers of a generator are."""


def generator(report: Report) -> list[tuple[str, str]]:
    """The numbers of the trained generator, each with its name; empty where none was used."""
    used = report.generator
    if used is None:
        return []
    made = used.as_generated
    spreads = (
        ("wasserstein", made.wasserstein, f"; exact, on {count(made.planned)} samples"),
        ("l2", made.l2, ""),
        ("linf", made.linf, ""),
        ("mass", made.mass_ratio, " times the original's"),
    )
    return [
        ("generator", f"{used.variant}, head {used.head}, radius up to {exact(used.radius)}"),
        ("trained for", "another model: a transfer attack" if used.transfer else "this model"),
        ("file", used.path),
        ("sha256", used.sha256),
        ("accuracy", f"{share(made.accuracy, 'attacked')} on {count(made.samples)} samples"),
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


def trouble(report: Report) -> tuple[list[Health], int]:
    """The health checks that did not pass, worst first, and how many did."""
    ranking = ("fail", "error", "warn", "not_applicable")
    worst = [entry for status in ranking for entry in report.health if entry.status == status]
    return worst, sum(entry.status == "pass" for entry in report.health)


def check_name(entry: Health) -> str:
    """Return the title of a check, with its metric where it has one."""
    return entry.title if entry.metric is None else f"{entry.title} ({entry.metric})"


def check_numbers(entry: Health) -> str:
    """Return the measured numbers of a check: 'tied 3; samples 1,000'."""
    return "; ".join(
        f"{name.replace('_', ' ')} "
        f"{count(value) if isinstance(value, int) else significant(value, 'nearest')}"
        for name, value in entry.numbers.items()
    )


def check_text(entry: Health) -> str:
    """Return the finding of a check and what to do about it."""
    return " ".join(part for part in (entry.finding, entry.advice) if part)


def reliability_line(report: Report) -> tuple[Reliability, str]:
    """The colour, and what it means."""
    colour = reliability(report)
    if report.status != "complete":
        return colour, STATUSES[report.status]
    if not report.health:
        return colour, "no health check ran"
    return colour, RELIABILITIES[colour]


def quantile(probability: str) -> str:
    """The name of a quantile: '0.5' is 'median', '0.05' is '5 %'."""
    try:
        value = float(probability)
    except ValueError:
        return probability
    return "median" if value == 0.5 else f"{exact(round(100 * value, 10))} %"


def order_name(order: str) -> str:
    """An order as a reader sees it."""
    return f"order {order}"


def command(report: Report) -> str | None:
    """The command that repeats the scan, if the report holds it."""
    value = report.config.get("command")
    return value if isinstance(value, str) and value else None
