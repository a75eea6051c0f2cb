"""Reading options, refusing configurations, and the gates with their exit codes."""

import math
from typing import Any, get_args

import pytest
from fakes import classifier, finding, inputs, linear, noisy_labels, scan_of, threat_result

from audit import values
from audit.api.verdicts import Gates
from audit.errors import UsageError
from audit.gates import verdict as gates
from audit.options import ScanConfig
from audit.options.scanning import AttackName
from audit.scanning import scan
from audit.scanning.assemble import report_of
from audit.schema import Gate, ScanReport
from audit.values import order_name
from tests.reports.golden import golden


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("8/255", 8 / 255),
        (" 2 ", 2.0),
        ("-1", -1.0),
        (".5", 0.5),
        ("1e-3", 1e-3),
        ("inf", math.inf),
        ("Infinity", math.inf),
    ],
)
def test_numbers_and_fractions(text: str, value: float) -> None:
    assert values.number(text, "--delta") == value


@pytest.mark.parametrize(
    "text", ["", "x", "1/0", "1/x", "1//2", "nan", "0,1", "1e400", "1e999999999", "1/2/3", "--3"]
)
def test_what_is_no_number_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="--delta takes numbers or fractions"):
        values.number(text, "--delta")


def test_lists_take_commas_and_repetition() -> None:
    assert values.split(["linf, l2", "l1", ""]) == ("linf", "l2", "l1")
    assert values.names(["linf, l2", "l2"], "--threat") == ("linf", "l2")
    assert values.names(None, "--threat") is None
    assert values.split(None) == ()
    assert values.numbers(["8/255,.1", "2"], "--delta") == (8 / 255, 0.1, 2.0)
    assert values.numbers(None, "--delta") is None
    with pytest.raises(UsageError, match="--delta was given without a value"):
        values.numbers([","], "--delta")


def test_counts_and_sizes() -> None:
    assert values.count("auto", "--batch-size") is None
    assert values.count("16", "--batch-size") == 16
    for text in ("0", "-1", "1.5", "many", ""):
        with pytest.raises(UsageError, match="--batch-size takes auto or a positive"):
            values.count(text, "--batch-size")
    assert values.size("224", "--resize") == (224, 224)
    assert values.size("32x48", "--resize") == (32, 48)
    assert values.size(None, "--resize") is None
    for text in ("0", "32x", "1x2x3", "axb", "-1x3", ""):
        with pytest.raises(UsageError, match="--resize takes a size"):
            values.size(text, "--resize")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"metrics": ("l3",)}, "Unknown threat 'l3': choose from linf"),
        ({"metrics": ()}, "At least one threat"),
        ({"orders": ()}, "At least one threat and one order"),
        ({"orders": (0.5,)}, "order must be at least 1 or inf, found 0.5"),
        ({"orders": (math.nan,)}, "order must be at least 1"),
        ({"orders": (-math.inf,)}, "order must be at least 1"),
        ({"deltas": (-0.1,)}, "delta must be finite and not negative, found -0.1"),
        ({"deltas": (math.inf,)}, "delta must be finite"),
        ({"deltas": (math.nan,)}, "delta must be finite"),
        ({"certify": "maybe"}, "Unknown certificate 'maybe'"),
        ({"low": 1.0, "high": 1.0}, "--low must be below --high"),
        ({"low": math.nan}, "--low must be below --high"),
        ({"confidence": 1.0}, "--confidence must lie between 0 and 1"),
        ({"confidence": 0.0}, "--confidence must lie"),
        ({"confidence": 95.0}, "--confidence must lie"),
        ({"samples": 0}, "--samples must be at least 1"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"seed": -1}, "--seed must"),
        ({"seed": 2**63}, "--seed must"),
    ],
)
def test_what_cannot_be_meant_is_refused(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        ScanConfig(**choice)
    assert caught.value.exit_code == 2


def test_what_can_be_meant_is_accepted() -> None:
    assert ScanConfig(attacks=get_args(AttackName), orders=(1.0, math.inf), deltas=(0.0,)).seed == 0
    assert ScanConfig(seed=2**63 - 1).confidence == 0.95


def test_budgets_are_ascending_and_in_the_box_own_unit() -> None:
    assert ScanConfig(deltas=(0.2, 0.1, 0.2)).deltas_of("l2") == (0.1, 0.2)
    unit, wide = ScanConfig(), ScanConfig(high=255.0)
    for metric in ("linf", "l2", "l1"):
        grid = unit.deltas_of(metric)
        assert list(grid) == sorted(grid)
        assert wide.deltas_of(metric) == pytest.approx([255 * d for d in grid])


def test_order_names() -> None:
    assert [order_name(p) for p in (math.inf, 2.0, 1.0, 1.5)] == ["inf", "2", "1", "1.5"]


def test_a_gate_asks_the_low_end_of_the_interval() -> None:
    threats = [
        threat_result((0.1, 0.55, 0.6), (0.2, 0.45, 0.52), (0.3, 0.2, 0.3)),
        threat_result((0.5, 0.7, 0.8), order="2", metric="l2"),
    ]
    whole = golden().model_copy(update={"status": "complete", "threats": threats})
    relaxed = gates.fail_under(whole, 0.5, strict=False)
    assert [g.status for g in relaxed] == ["pass", "fail", "fail", "pass"]
    strict = gates.fail_under(whole, 0.5, strict=True)
    assert [g.status for g in strict] == ["pass", "inconclusive", "fail", "pass"]
    assert [g.id for g in strict] == [
        "attacked.linf@0.1",
        "attacked.linf@0.2",
        "attacked.linf@0.3",
        "attacked.l2.order2@0.5",
    ]
    assert strict[1].value == 0.45
    assert strict[1].expression == "attacked.linf@0.2 >= 0.5"


def passed(status: Any) -> Gate:
    return Gate(id="g", expression="g", status=status, value=0.5)


@pytest.mark.parametrize(
    ("statuses", "reliable", "expected"),
    [
        ([], "GREEN", "none"),
        ([], "AMBER", "none"),
        ([], "RED", "inconclusive"),
        (["pass"], "GREEN", "pass"),
        (["pass"], "AMBER", "pass"),
        (["pass"], "RED", "inconclusive"),
        (["pass", "inconclusive"], "GREEN", "inconclusive"),
        (["inconclusive", "fail"], "GREEN", "fail"),
        (["fail", "pass"], "RED", "fail"),
    ],
)
def test_one_word_for_the_whole(statuses: list[str], reliable: str, expected: str) -> None:
    assert gates.verdict([passed(s) for s in statuses], reliable) == expected


@pytest.fixture(scope="module")
def report() -> ScanReport:
    x = inputs(30)
    options = {"deltas": (0.1,), "attacks": ("fgsm",), "certify": "none"}
    done = scan.run(scan_of(classifier(linear), x, noisy_labels(x), **options))
    return report_of(done, config={}, gates=Gates().evaluate)


@pytest.mark.parametrize(
    ("verdict", "status", "health", "strict", "code"),
    [
        ("none", "complete", "pass", False, 0),
        ("pass", "complete", "pass", True, 0),
        ("pass", "complete", "warn", False, 0),
        ("pass", "complete", "warn", True, 4),
        ("none", "complete", "warn", True, 4),
        ("none", "complete", "not_applicable", True, 4),
        ("fail", "complete", "pass", False, 1),
        ("fail", "complete", "fail", True, 1),
        ("inconclusive", "complete", "pass", False, 4),
        ("inconclusive", "complete", "fail", False, 4),
        # A saved report of an unfinished scan proves nothing, whatever it says of itself.
        ("fail", "interrupted", "fail", True, 1),
        ("pass", "interrupted", "pass", False, 4),
        ("none", "partial", "pass", False, 4),
    ],
)
def test_exit_codes(
    report: ScanReport, verdict: str, status: str, health: Any, strict: bool, code: int
) -> None:
    changed = report.model_copy(
        update={
            "verdict": verdict,
            "status": status,
            "health": [finding(health)],
        }
    )
    assert gates.exit_code(changed, strict=strict) == code
