"""Numbers as text: a lower bound is rounded down and an upper bound up, wherever one is shown.

Rounding acts on the decimal that ``report.json`` holds (the shortest one that names the float), so
989 of 1000 are 98.9 % in both directions, and nothing is ever shown better than it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from math import isfinite
from typing import Any, Literal

from audit.schema import Attack, Interval

NOT_MEASURED = "not measured"
"""Text shown in place of a missing number, which is never zero."""

Rounding = Literal["down", "nearest", "up"]
Side = Literal["attacked", "certified", "estimate"]
"""Kind of a value: an upper bound, a lower bound, or neither."""

VALUE_ROUNDING: dict[Side, Rounding] = {
    "attacked": "up",
    "certified": "down",
    "estimate": "nearest",
}

_MODES = {"down": ROUND_FLOOR, "nearest": ROUND_HALF_EVEN, "up": ROUND_CEILING}
_WIDE = Context(prec=800)  # more digits than any float has: only the last, intended step rounds


@dataclass(frozen=True)
class Bracket:
    """An interval as text: its value with a unit, and its two ends in square brackets.

    Attributes:
        value: for example ``'89.3 %'``, or 'not measured'.
        ends: for example ``'[87.1, 91.2]'``; empty when neither end was measured.
    """

    value: str
    ends: str

    def __str__(self) -> str:
        """Return value and ends on one line."""
        return f"{self.value} {self.ends}".rstrip()


def _decimal(value: float) -> Decimal:
    """Return the decimal that JSON shows for this float."""
    return Decimal(repr(float(value)))


def percent(value: float | None, rounding: Rounding, *, unit: str = " %") -> str:
    """Return a proportion in percent with one decimal: 0.8934 down is '89.3 %', up '89.4 %'."""
    if value is None or not isfinite(value):
        return NOT_MEASURED
    shown = (
        _decimal(value)
        .scaleb(2, _WIDE)
        .quantize(Decimal("0.1"), rounding=_MODES[rounding], context=_WIDE)
    )
    return f"{shown or abs(shown):f}{unit}"  # no '-0.0'


def significant(value: float | None, rounding: Rounding, *, digits: int = 4) -> str:
    """Return a number with ``digits`` significant digits; scientific below 1e-4 and from 1e6."""
    if value is None or not isfinite(value):
        return NOT_MEASURED
    number = _decimal(value)
    if not number:
        return "0"
    quantum = Decimal((0, (1,), number.adjusted() - digits + 1))
    shown = number.quantize(quantum, rounding=_MODES[rounding], context=_WIDE)
    fixed = -4 <= number.adjusted() < 6
    return f"{shown:f}" if fixed else f"{shown:.{digits - 1}e}"


def exact(value: float | None) -> str:
    """Return a number with all its digits, as it was set."""
    if value is None or not isfinite(value):
        return NOT_MEASURED
    return str(value) if isinstance(value, int) else repr(value).removesuffix(".0")


def thousands(value: int | None) -> str:
    """Return a whole number with thousands separated: 1000 is '1,000'."""
    return NOT_MEASURED if value is None else f"{value:,}"


def distance(value: float | None, side: Side) -> str:
    """Return a radius with 4 significant digits: attacked rounds up, certified down."""
    return significant(value, VALUE_ROUNDING[side])


def seconds(value: float | None) -> str:
    """Return a duration with 3 significant digits, rounded up."""
    if value is None or not isfinite(value):
        return NOT_MEASURED
    return f"{significant(value, 'up', digits=3)} s"


def budget(delta: float, metric: str, *, decimal: bool = True) -> str:
    """Return a budget: '0.1', and in linf '8/255 (0.03137)', or '8/255' without ``decimal``."""
    short = exact(delta)
    if len(short.lstrip("-0.").replace(".", "")) <= 5:
        return short
    approximate = significant(delta, "nearest")
    pixels = steps_of_255([delta]) if metric == "linf" else None
    if pixels is None:
        return approximate
    return f"{pixels[0]}/255 ({approximate})" if decimal else f"{pixels[0]}/255"


def steps_of_255(deltas: Sequence[float]) -> list[int] | None:
    """Return the whole k with delta = k/255 for each delta, or None if one is not such a step."""
    steps = [round(255 * delta) for delta in deltas]
    close = all(
        abs(k - 255 * delta) <= 1e-9 * max(k, 1) for k, delta in zip(steps, deltas, strict=True)
    )
    return steps if close else None


def proportion(interval: Interval, side: Side) -> Bracket:
    """Return a proportion with its interval, all in percent.

    Shown low <= low <= high <= shown high; an attacked value is shown no smaller than it is, a
    certified one no larger.
    """
    return Bracket(
        percent(interval.value, VALUE_ROUNDING[side]),
        _ends(percent(interval.low, "down", unit=""), percent(interval.high, "up", unit="")),
    )


def percentage_points(value: float | None) -> str:
    """Return a difference of proportions in percentage points with one decimal, rounded nearest."""
    return NOT_MEASURED if value is None else f"{100 * value:+.1f}"


def mean(interval: Interval) -> Bracket:
    """Return an estimated mean with its interval, 4 significant digits."""
    return Bracket(
        significant(interval.value, "nearest"),
        _ends(significant(interval.low, "down"), significant(interval.high, "up")),
    )


def _ends(low: str, high: str) -> str:
    return "" if low == high == NOT_MEASURED else f"[{low}, {high}]"


def value_text(value: Any) -> str:
    """Return any value of ``config`` or ``environment`` as text; lists keep their order."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return exact(value)
    if isinstance(value, list | tuple):
        return ", ".join(value_text(item) for item in value) if value else "none"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {value_text(item)}" for key, item in value.items()) or "none"
    return str(value)


def remark(attack: Attack) -> str:
    """Return the detail of an attack and the budget that it was given."""
    parts = [attack.detail] if attack.detail else []
    if attack.budget is not None and attack.status == "ran":
        allowed = [
            f"{thousands(number)} {name}"
            for name, number in (
                ("gradients", attack.budget.gradients),
                ("forwards", attack.budget.forwards),
            )
            if number is not None
        ]
        parts.append(f"At most {' and '.join(allowed)} per {attack.budget.per}.")
    return " ".join(parts)
