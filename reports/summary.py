"""The sentences that every renderer opens with, so that all of them use the same words."""

from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath

from audit.schema import Health, Point, Reliability, ScanReport, ThreatResult, reliability
from reports.numbers import (
    NOT_MEASURED,
    Bracket,
    budget,
    exact,
    percent,
    proportion,
    significant,
    thousands,
)

VERDICTS = {
    "pass": "every gate passed",
    "fail": "a gate failed",
    "inconclusive": "the evidence does not decide the gates",
    "none": "no gates were set",
}

RELIABILITIES: dict[Reliability, str] = {
    "GREEN": "every applicable health check passed",
    "AMBER": "a health check warns: read its advice before you trust the numbers",
    "RED": "a health check failed: the numbers may be wrong",
}

STATUSES = {
    "complete": "the scan ran to its end",
    "partial": "part of the scan stopped on an error, so attacked accuracies may be too high",
    "interrupted": "the scan was interrupted, so attacked accuracies may be too high",
}

BOUNDS_EXPLAINED = (
    "The attacked accuracy is an upper bound: a stronger or adaptive attack may leave less. The "
    "certified accuracy is a lower bound: no attack within the threat model can leave less."
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
    """Return the last part of a Windows or POSIX path."""
    return PurePosixPath(PureWindowsPath(path).as_posix()).name or path


def clean_sentence(report: ScanReport) -> str:
    """Return the clean accuracy with both denominators."""
    evaluated = thousands(report.data.evaluated)
    return (
        f"clean {percent(report.clean.value, 'down')} ({thousands(report.data.correct)} of "
        f"{evaluated} correct; accuracies count all {evaluated} samples)"
    )


def clean_interval(report: ScanReport) -> Bracket:
    """Return the clean accuracy, rounded down, with its interval."""
    return proportion(report.clean, "certified")


def confidence(report: ScanReport) -> str:
    """Return the confidence level of all intervals of the report."""
    return f"{exact(round(100 * report.clean.confidence, 10))} %"


def headline(threat: ThreatResult) -> Headline | None:
    """Return the bracket to quote for this metric, or None when nothing was measured."""
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
        proportion(point.attacked, "attacked"),
        proportion(point.certified, "certified"),
    )


def bracket_sentence(line: Headline) -> str:
    """Return the bounds of the adversarial accuracy that were measured."""
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


def troubled_checks(report: ScanReport) -> tuple[list[Health], int]:
    """Return the health checks that did not pass, worst first, and the number that passed."""
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
        f"{thousands(value) if isinstance(value, int) else significant(value, 'nearest')}"
        for name, value in entry.numbers.items()
    )


def reliability_line(report: ScanReport) -> tuple[Reliability, str]:
    """Return the colour of the reliability and its meaning."""
    colour = reliability(report)
    if report.status != "complete":
        return colour, STATUSES[report.status]
    if not report.health:
        return colour, "no health check ran"
    return colour, RELIABILITIES[colour]


def order_label(order: str) -> str:
    """Return an order as it is labelled in tables and charts."""
    return f"order {order}"


def scan_command(report: ScanReport) -> str | None:
    """Return the command that repeats the scan, if the report holds it."""
    value = report.config.get("command")
    return value if isinstance(value, str) and value else None
