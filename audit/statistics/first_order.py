"""First-order estimates next to the bracket, and whether an attack violates them."""

from collections.abc import Callable

from audit.schema import FirstOrder, Sensitivity, SensitivityPoint

PRIMARY_LOSS = "redlr"
"""The loss whose estimates are shown next to the curves; it is 0 for misclassified samples."""


def primary(entries: list[Sensitivity], order: str, delta: float) -> SensitivityPoint | None:
    """Return the estimates shown next to a curve's point, or None if they were not measured."""
    for entry in entries:
        if entry.order == order and entry.loss == PRIMARY_LOSS:
            return next(point for point in entry.points if point.delta == delta)
    return None


def mark_violations(
    entries: list[Sensitivity], attacked: Callable[[str, float], float | None]
) -> list[Sensitivity]:
    """Set ``violated`` to whether the attacked R_delta is below one of the two lower estimates.

    Args:
        entries: first-order quantities as returned by `sensitivity`.
        attacked: returns the report's attacked R_delta, an upper bound on the true R_delta, for an
            order and a delta; None if the report has none.
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
    """Return the estimates without the budget, which the curve's point already contains."""
    return None if point is None else FirstOrder(**point.model_dump(exclude={"delta"}))
