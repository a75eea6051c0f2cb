"""First-order estimates beside the bracket: which of them an attack has shown to be violated."""

from collections.abc import Callable

from audit.schema import FirstOrder, Sensitivity, SensitivityPoint

PRIMARY_LOSS = "redlr"
"""The loss whose estimates stand beside the curves: with it wrong samples cost nothing."""


def primary(entries: list[Sensitivity], order: str, delta: float) -> SensitivityPoint | None:
    """The estimates that stand beside a curve's point, if they were measured."""
    for entry in entries:
        if entry.order == order and entry.loss == PRIMARY_LOSS:
            return next(point for point in entry.points if point.delta == delta)
    return None


def mark_violations(
    entries: list[Sensitivity], attacked: Callable[[str, float], float | None]
) -> list[Sensitivity]:
    """Set ``violated`` wherever the attacked R_delta is below one of the two lower estimates.

    Args:
        entries: as returned by `sensitivity`.
        attacked: (order, delta) to the report's attacked R_delta, an upper bound on the true one.
    """

    def mark(entry: Sensitivity, point: SensitivityPoint) -> SensitivityPoint:
        estimates = [e for e in (point.lower_value, point.lower_slope) if e is not None]
        bound = attacked(entry.order, point.delta)
        violated = None if bound is None or not estimates else bound < max(estimates)
        return point.model_copy(update={"violated": violated})

    return [
        entry.model_copy(update={"points": [mark(entry, point) for point in entry.points]})
        for entry in entries
    ]


def as_first_order(point: SensitivityPoint | None) -> FirstOrder | None:
    """Drop the budget, which the curve's point already states."""
    return None if point is None else FirstOrder(**point.model_dump(exclude={"delta"}))
