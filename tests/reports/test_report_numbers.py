"""What is shown brackets what is true: lower bounds down, upper bounds up."""

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.schema import Interval
from reports import numbers

shares = st.floats(0, 1)
floats = st.floats(allow_nan=False, allow_infinity=False)


def true(value: float) -> Decimal:
    """The number as report.json holds it."""
    return Decimal(repr(value))


def shown(text: str) -> Decimal:
    return Decimal(text.removesuffix(" %"))


def ends(bracket: numbers.Bracket) -> list[Decimal]:
    return [Decimal(part) for part in bracket.ends.strip("[]").split(", ")]


@given(floats)
def test_percent_rounds_as_told_and_by_less_than_a_tenth(value: float) -> None:
    down, up = (shown(numbers.percent(value, way)) / 100 for way in ("down", "up"))
    nearest = shown(numbers.percent(value, "nearest")) / 100
    assert down <= true(value) <= up
    assert down <= nearest <= up
    assert up - down <= Decimal("0.001")


@given(floats, st.integers(1, 6))
def test_significant_rounds_as_told_and_by_at_most_one_unit(value: float, digits: int) -> None:
    down = Decimal(numbers.significant(value, "down", digits=digits))
    up = Decimal(numbers.significant(value, "up", digits=digits))
    assert down <= true(value) <= up
    assert up - down <= abs(true(value)) * Decimal(10) ** (1 - digits)


@given(shares, shares, shares)
def test_intervals_never_shrink(a: float, b: float, c: float) -> None:
    low, value, high = sorted((a, b, c))
    interval = Interval(value=value, low=low, high=high)
    for side, worst in (("attacked", Decimal.__ge__), ("certified", Decimal.__le__)):
        bracket = numbers.proportion(interval, side)
        left, right = (end / 100 for end in ends(bracket))
        assert left <= true(low)
        assert true(high) <= right
        assert left <= shown(bracket.value) / 100 <= right
        assert worst(shown(bracket.value) / 100, true(value))


@given(floats, floats, floats)
def test_means_keep_their_interval(a: float, b: float, c: float) -> None:
    low, value, high = sorted((a, b, c))
    bracket = numbers.mean(Interval(value=value, low=low, high=high))
    left, right = ends(bracket)
    assert left <= true(low)
    assert true(high) <= right


@given(st.floats(0, 1e9))
def test_radii_are_never_flattered(radius: float) -> None:
    certified = Decimal(numbers.distance(radius, "certified"))
    attacked = Decimal(numbers.distance(radius, "attacked"))
    assert certified <= true(radius) <= attacked


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_a_share_with_one_decimal_is_shown_as_it_is(k: int, n: int) -> None:
    if k <= n and 1000 * k % n == 0:
        ways = {numbers.percent(k / n, way) for way in ("down", "nearest", "up")}
        assert len(ways) == 1


@given(floats)
def test_exact_numbers_lose_nothing(value: float) -> None:
    assert float(numbers.exact(value)) == value


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf])
def test_missing_is_never_zero(missing: float | None) -> None:
    for text in (
        numbers.percent(missing, "down"),
        numbers.significant(missing, "up"),
        numbers.distance(missing, "attacked"),
        numbers.seconds(missing),
        numbers.exact(missing),
    ):
        assert text == numbers.NOT_MEASURED
    assert numbers.thousands(None) == numbers.NOT_MEASURED
    empty = Interval(value=missing, low=missing, high=missing)
    assert str(numbers.proportion(empty, "attacked")) == numbers.NOT_MEASURED


@pytest.mark.parametrize(
    ("delta", "metric", "text"),
    [
        (8 / 255, "linf", "8/255 (0.03137)"),
        (8 / 255, "l2", "0.03137"),
        (0.1, "linf", "0.1"),
        (0.2, "linf", "0.2"),
        (0.0, "linf", "0"),
        (1.0, "l2", "1"),
        (0.123456789, "linf", "0.1235"),
        (12.5, "l1", "12.5"),
    ],
)
def test_budgets_read_as_people_write_them(delta: float, metric: str, text: str) -> None:
    assert numbers.budget(delta, metric) == text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (numbers.percent(0.8934, "down"), "89.3 %"),
        (numbers.percent(0.8934, "up"), "89.4 %"),
        (numbers.percent(0.989, "up"), "98.9 %"),
        (numbers.percent(0.99999, "down"), "99.9 %"),
        (numbers.percent(-1e-9, "up"), "0.0 %"),
        (numbers.percent(1e-9, "up"), "0.1 %"),
        (numbers.significant(0.0123456, "down"), "0.01234"),
        (numbers.significant(3.8147e-06, "up"), "3.815e-6"),
        (numbers.significant(99999.0, "up"), "100000"),
        (numbers.seconds(18.7654), "18.8 s"),
        (numbers.thousands(412_113), "412,113"),
        (numbers.value_text([True, None, 1.0, "a", []]), "yes, not set, 1, a, none"),
        (numbers.value_text({"steps": 40}), "steps: 40"),
    ],
)
def test_examples(text: str, wanted: str) -> None:
    assert text == wanted
