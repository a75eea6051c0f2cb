"""Gates of a file: what they say, what they may not say, and who has waived them."""

from datetime import date
from pathlib import Path

import pytest

from audit.errors import UsageError
from audit.gates.policy import Policy, Rule, Waiver, evaluate_policy, read_policy
from audit.schema import Interval, ScanReport
from tests.reports.golden import golden

TODAY = date(2030, 1, 15)


def policy_of(tmp_path: Path, text: str, name: str = "audit.toml") -> Policy:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_policy(path)


def one(text: str, **options: object) -> Policy:
    return Policy((Rule(text, "error"),), **options)  # type: ignore[arg-type]


def report(low: float = 0.7, value: float = 0.8, high: float = 0.9) -> ScanReport:
    """A report of a whole scan whose attacked accuracy at linf 8/255, order inf, is known."""
    made = golden().model_copy(update={"status": "complete"})
    threat = made.threats[0]
    curve = threat.curves[0]
    points = [
        point.model_copy(update={"attacked": Interval(value=value, low=low, high=high)})
        if abs(point.delta - 8 / 255) < 1e-9
        else point
        for point in curve.points
    ]
    curves = [curve.model_copy(update={"points": points}), *threat.curves[1:]]
    threats = [threat.model_copy(update={"curves": curves}), *made.threats[1:]]
    return made.model_copy(update={"threats": threats})


def test_a_file_is_read(tmp_path: Path) -> None:
    text = """
[gates]
error = ["attacked.linf@8/255 >= 0.8", "clean >= 0.97"]
warn = ["certified.l2.order2@0.25 >= 0.5", "reliability = green"]
use = "value"

[[waivers]]
gate = "clean >= 0.97"
reason = "ticket 12"
expires = 2030-01-31
"""
    policy = policy_of(tmp_path, text)
    assert [(rule.text, rule.level) for rule in policy.rules] == [
        ("attacked.linf@8/255 >= 0.8", "error"),
        ("clean >= 0.97", "error"),
        ("certified.l2.order2@0.25 >= 0.5", "warn"),
        ("reliability = green", "warn"),
    ]
    assert policy.use == "value"
    assert policy.waivers == (Waiver("clean >= 0.97", "ticket 12", date(2030, 1, 31)),)
    inside = text.replace("[gates]", "[tool.audit.gates]").replace("waivers", "tool.audit.waivers")
    assert policy_of(tmp_path, inside, "pyproject.toml") == policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"has no \[gates\]"),
        ("[gates]", "contains no condition"),
        ("[gates", "cannot be read as a policy"),
        ('[gates]\nerror = ["accuracy > 0.5"]', "'accuracy > 0.5' is not a valid condition"),
        ('[gates]\nerror = ["attacked.linf >= 0.5"]', "is not a valid condition"),
        ('[gates]\nerror = ["attacked.linf@a >= 0.5"]', "takes numbers or fractions"),
        ('[gates]\nerror = ["clean >= much"]', "takes numbers or fractions"),
        ('[gates]\nerrors = ["clean >= 0.5"]', "unknown key 'errors': did you mean 'error'"),
        ('[gates]\nerror = "clean >= 0.5"', "a list of conditions"),
        ('[gates]\nerror = ["clean >= 0.5"]\nuse = "middle"', "use must be low, value or high"),
        (
            '[gates]\nerror = ["clean >= 0.5"]\n[[waivers]]\ngate = "clean >= 0.6"\n'
            'reason = "r"\nexpires = 2030-01-01',
            "not a gate of it. Did you mean 'clean >= 0.5'",
        ),
        (
            '[gates]\nerror = ["clean >= 0.5"]\n[[waivers]]\ngate = "clean >= 0.5"\n'
            'reason = ""\nexpires = 2030-01-01',
            "needs a gate and a reason",
        ),
        (
            '[gates]\nerror = ["clean >= 0.5"]\n[[waivers]]\ngate = "clean >= 0.5"\n'
            'reason = "r"\nexpires = "soon"',
            "expires must be a date",
        ),
    ],
)
def test_files_that_cannot_be_meant(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        policy_of(tmp_path, text)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read as a policy"):
        read_policy(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "use", "status", "value"),
    [
        ("attacked.linf@8/255 >= 0.7", "low", "pass", 0.7),
        ("attacked.linf@8/255 >= 0.75", "low", "fail", 0.7),
        ("attacked.linf@8/255 >= 0.75", "value", "pass", 0.8),
        ("attacked.linf@8/255 >= 0.85", "high", "pass", 0.9),
        ("attacked.linf.orderinf@8/255 >= 0.7", "low", "pass", 0.7),
        # Above a bound it is the other end that is pessimistic.
        ("attacked.linf@8/255 <= 0.85", "low", "fail", 0.9),
        ("attacked.linf@8/255 <= 0.75", "high", "pass", 0.7),
    ],
)
def test_the_pessimistic_end_is_judged(text: str, use: str, status: str, value: float) -> None:
    (gate,) = evaluate_policy(report(), one(text, use=use), TODAY)
    assert (gate.status, gate.value) == (status, value)


def test_strict_leaves_a_straddling_interval_open() -> None:
    policy = one("attacked.linf@8/255 >= 0.75")
    assert evaluate_policy(report(), policy, TODAY, strict=True)[0].status == "inconclusive"
    assert evaluate_policy(report(), one("attacked.linf@8/255 >= 0.95"), TODAY, strict=True)[
        0
    ].status == ("fail")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("attacked.l1@1 >= 0.1", "l1 was not scanned"),
        ("attacked.linf@0.5 >= 0.1", "Not measured at 0.5: the budgets of the scan are"),
        ("certified.linf.order3@8/255 >= 0.1", "order 3 was not scanned"),
    ],
)
def test_what_was_not_measured_fails(text: str, reason: str) -> None:
    (gate,) = evaluate_policy(report(), one(text), TODAY)
    assert gate.status == "fail"
    assert gate.value is None
    assert reason in gate.detail


def test_an_end_that_was_not_measured_fails() -> None:
    made = report().model_copy(update={"clean": golden().clean.model_copy(update={"low": None})})
    (gate,) = evaluate_policy(made, one("clean >= 0.1"), TODAY)
    assert gate.status == "fail"
    assert "low end" in gate.detail


@pytest.mark.parametrize(("colour", "status"), [("green", "fail"), ("amber", "fail")])
def test_reliability(colour: str, status: str) -> None:
    (gate,) = evaluate_policy(golden(), one(f"reliability = {colour}"), TODAY)
    assert gate.status == status
    assert "RED" in gate.detail
    clean = report().model_copy(
        update={"health": [h for h in golden().health if h.status == "pass"]}
    )
    assert evaluate_policy(clean, one(f"reliability = {colour}"), TODAY)[0].status == "pass"


def test_a_warning_never_fails() -> None:
    policy = Policy((Rule("clean >= 0.999", "warn"),))
    assert evaluate_policy(golden(), policy, TODAY)[0].status == "warn"


def test_a_waiver_holds_until_its_day() -> None:
    text = "clean >= 0.999"
    waiver = Waiver(text, "ticket 12", TODAY)
    policy = one(text, waivers=(waiver,))
    (gate,) = evaluate_policy(golden(), policy, TODAY)
    assert gate.status == "waived"
    assert "ticket 12" in gate.detail
    (gate,) = evaluate_policy(golden(), policy, date(2030, 1, 16))
    assert gate.status == "fail"
    assert "expired on 2030-01-15" in gate.detail
    passing = one("clean >= 0.5", waivers=(Waiver("clean >= 0.5", "r", TODAY),))
    assert evaluate_policy(golden(), passing, TODAY)[0].status == "pass"
