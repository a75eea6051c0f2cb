"""Gates read from a file: conditions on a report, their severity, and temporary waivers.

    [gates]
    error = ["attacked.linf@8/255 >= 0.8", "clean >= 0.97", "reliability = green"]
    warn = ["certified.l2.order2@0.25 >= 0.5"]
    use = "low"                      # the end of the interval that is compared: low, value or high

    [[waivers]]
    gate = "attacked.linf@8/255 >= 0.8"
    reason = "retraining is under way, see the ticket"
    expires = 2030-01-31

The left side of a condition is ``clean``, ``reliability``, or ``attacked`` or ``certified`` with a
metric, an order if it is not inf, and a measured budget. A gate on a number that was not measured
fails and states the reason.
"""

import difflib
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

from audit.errors import UsageError
from audit.gates.verdict import settled
from audit.schema import Gate, GateStatus, Interval, ScanReport, reliability
from audit.values import number

Severity = Literal["error", "warn"]
Use = Literal["low", "value", "high"]

EXPRESSION = re.compile(
    r"(?P<what>clean|(?:attacked|certified)\.(?P<metric>\w+)(?:\.order(?P<order>[\w.]+))?"
    r"@(?P<delta>[\w./+-]+?))\s*(?P<operator>>=|<=)\s*(?P<bound>[\w./+-]+)"
)
COLOUR = re.compile(r"reliability\s*==?\s*(?P<colour>green|amber)", re.IGNORECASE)
RELIABILITY_RANKING = ("RED", "AMBER", "GREEN")
"""Colours of the reliability, worst first."""

EXAMPLES = "'clean >= 0.97', 'attacked.linf@8/255 >= 0.8', 'certified.l2.order2@0.25 >= 0.5' or "
EXAMPLES += "'reliability = green'"

KEYS = {"gates": ("error", "warn", "use"), "waivers": ("gate", "reason", "expires")}


@dataclass(frozen=True)
class Rule:
    """Condition as it is written in the file, and the severity of its failure."""

    text: str
    level: Severity


@dataclass(frozen=True)
class Waiver:
    """Accepted failure of a gate: its reason, and the last day on which it is valid."""

    gate: str
    reason: str
    expires: date


@dataclass(frozen=True)
class Policy:
    """All gates and waivers of a file."""

    rules: tuple[Rule, ...]
    use: Use = "low"
    waivers: tuple[Waiver, ...] = field(default=())


def read_policy(path: Path) -> Policy:
    """Read a TOML file: ``[gates]``, or ``[tool.audit.gates]`` of a pyproject.toml.

    Raises:
        UsageError: the file cannot be read, or its content is not a valid policy.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"{path} cannot be read as a policy ({reason}): name a TOML file with [gates]."
        ) from error
    if path.name == "pyproject.toml":
        document = document.get("tool", {}).get("audit", {})
    gates = document.get("gates")
    if not isinstance(gates, dict):
        raise UsageError(f"{path} has no [gates]: add one with error = [{EXAMPLES}].")
    _check_keys(gates, KEYS["gates"], path)
    use = gates.get("use", "low")
    if use not in ("low", "value", "high"):
        raise UsageError(f"{path}: use must be low, value or high, but it is {use!r}.")
    rules = tuple(
        Rule(_condition(text, path), level) for level in ("error", "warn") for text in
        _strings(gates.get(level, []), f"gates.{level}", path)
    )  # fmt: skip
    if not rules:
        raise UsageError(f"{path}: [gates] contains no condition: add {EXAMPLES}.")
    waivers = tuple(_waiver(entry, rules, path) for entry in document.get("waivers", []))
    return Policy(rules, use, waivers)


def policy_of(conditions: Sequence[str]) -> Policy:
    """Make a policy whose conditions must all hold.

    Args:
        conditions: as in ``[gates] error``.

    Raises:
        UsageError: there is no condition, or one is not valid.
    """
    texts = [conditions] if isinstance(conditions, str) else list(conditions)
    if not texts:
        raise UsageError(f"At least one condition is needed, such as {EXAMPLES}.")
    source = Path("The list of conditions")
    return Policy(tuple(Rule(_condition(text, source), "error") for text in texts))


def _condition(text: str, path: Path) -> str:
    if not (EXPRESSION.fullmatch(text.strip()) or COLOUR.fullmatch(text.strip())):
        raise UsageError(f"{path}: {text!r} is not a valid condition: write {EXAMPLES}.")
    found = EXPRESSION.fullmatch(text.strip())
    if found:
        number(found["bound"], text)
        if found["delta"]:
            number(found["delta"], text)
        if found["order"]:
            number(found["order"], text)
    return text.strip()


def _waiver(entry: Any, rules: tuple[Rule, ...], path: Path) -> Waiver:
    if not isinstance(entry, dict):
        raise UsageError(
            f"{path}: a waiver must be a table with the keys gate, reason and expires."
        )
    _check_keys(entry, KEYS["waivers"], path)
    gate, reason, expires = (entry.get(name) for name in KEYS["waivers"])
    if not isinstance(gate, str) or not isinstance(reason, str) or not reason.strip():
        raise UsageError(f"{path}: a waiver needs a gate and a reason, but found {entry}.")
    if not isinstance(expires, date):
        raise UsageError(
            f"{path}: expires must be a date such as 2030-01-31, but it is {expires!r}."
        )
    known = [rule.text for rule in rules]
    if gate.strip() not in known:
        near = difflib.get_close_matches(gate, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"{path}: a waiver names {gate!r}, which is not a gate of it.{hint}")
    return Waiver(gate.strip(), reason.strip(), expires)


def _check_keys(found: dict[str, Any], known: tuple[str, ...], path: Path) -> None:
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}."
            raise UsageError(f"{path}: unknown key {key!r}: {hint}")


def _strings(value: Any, name: str, path: Path) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UsageError(
            f"{path}: {name} must be a list of conditions in quotes, but it is {value!r}."
        )
    return value


# Evaluation ---------------------------------------------------------------------------------------


def evaluate_policy(
    report: ScanReport, policy: Policy, today: date, *, strict: bool = False
) -> list[Gate]:
    """Evaluate every gate of a policy on a report.

    Args:
        report: what was measured.
        policy: the gates.
        today: the date that decides which waivers have expired.
        strict: whether an interval that contains its bound is inconclusive instead of failed.
    """
    waivers = {waiver.gate: waiver for waiver in policy.waivers}
    return [
        _apply_waiver(_evaluate(report, rule, policy.use, strict), waivers.get(rule.text), today)
        for rule in policy.rules
    ]


def _evaluate(report: ScanReport, rule: Rule, use: Use, strict: bool) -> Gate:
    failed: GateStatus = "fail" if rule.level == "error" else "warn"
    colour = COLOUR.fullmatch(rule.text)
    if colour:
        found = reliability(report)
        good = RELIABILITY_RANKING.index(found) >= RELIABILITY_RANKING.index(
            colour["colour"].upper()
        )
        return Gate(
            id="reliability",
            expression=rule.text,
            status="pass" if good else failed,
            value=None,
            detail=f"Reliability is {found}.",
        )
    match = EXPRESSION.fullmatch(rule.text)
    assert match is not None
    gate = _compare_interval(report, match, rule.text, use, strict, failed)
    side = match["what"].partition(".")[0]
    return settled(gate, report, side=side, at_least=match["operator"] == ">=")


def _compare_interval(
    report: ScanReport,
    match: "re.Match[str]",
    text: str,
    use: Use,
    strict: bool,
    failed: GateStatus,
) -> Gate:
    """Compare an interval with the bound; one that was not measured gets the status ``failed``."""
    at_least, bound = match["operator"] == ">=", number(match["bound"], text)
    interval, reason = _interval_of(report, match)
    # The pessimistic end is the one that makes the condition harder to meet.
    end = use if at_least or use == "value" else {"low": "high", "high": "low"}[use]
    value = None if interval is None else getattr(interval, end)
    if interval is None or interval.value is None or value is None:
        if interval is not None and interval.value is not None:
            reason = f"The {end} end of its interval was not measured."
        return Gate(id=match["what"], expression=text, status=failed, value=None, detail=reason)

    def meets(value: float) -> bool:
        return value >= bound if at_least else value <= bound

    status: GateStatus = "pass" if meets(value) else failed
    if strict and status == "fail" and meets(interval.value):
        status = "inconclusive"
    return Gate(id=match["what"], expression=text, status=status, value=value)


def _interval_of(report: ScanReport, match: "re.Match[str]") -> tuple[Interval | None, str]:
    """Return the interval that a condition refers to, or the reason why there is none."""
    if match["what"] == "clean":
        return report.clean, "Clean accuracy was not measured."
    metric, order = match["metric"], match["order"] or "inf"
    delta = number(match["delta"], match[0])
    threats = {threat.metric: threat for threat in report.threats}
    if metric not in threats:
        return None, f"Not measured: {metric} was not scanned ({', '.join(threats) or 'nothing'})."
    curves = {number(curve.order, match[0]): curve for curve in threats[metric].curves}
    wanted = number(order, match[0])
    if wanted not in curves:
        known = ", ".join(curve.order for curve in curves.values())
        return None, f"Not measured: order {order} was not scanned ({known})."
    for point in curves[wanted].points:
        if math.isclose(point.delta, delta, rel_tol=1e-9):
            side: Interval = getattr(point, match["what"].partition(".")[0])
            return side, "Not measured."
    known = ", ".join(f"{point.delta:.6g}" for point in curves[wanted].points)
    return None, f"Not measured at {match['delta']}: the budgets of the scan are {known}."


def _apply_waiver(gate: Gate, waiver: Waiver | None, today: date) -> Gate:
    if waiver is None or gate.status not in ("fail", "inconclusive"):
        return gate
    if today > waiver.expires:
        expired = f"Its waiver ({waiver.reason}) expired on {waiver.expires}."
        return gate.model_copy(update={"status": "fail", "detail": _joined(gate.detail, expired)})
    kept = f"Waived until {waiver.expires}: {waiver.reason}."
    return gate.model_copy(update={"status": "waived", "detail": _joined(gate.detail, kept)})


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)
