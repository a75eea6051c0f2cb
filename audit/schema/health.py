"""The outcome of one health check, as plain data."""

from typing import Literal

from audit.schema.base import Record

HealthStatus = Literal["pass", "warn", "fail", "error", "not_applicable"]


class Health(Record):
    """One check of the evidence itself.

    ``metric`` is null for checks of the model or of the whole scan; ``title`` states what holds
    when the check passes; ``finding`` states what was seen, ``numbers`` the measured numbers by
    name, ``advice`` what to do (null where there is nothing to do). ``error`` means that the check
    itself stopped.
    """

    id: str
    metric: str | None
    status: HealthStatus
    title: str
    finding: str
    numbers: dict[str, int | float | None]
    advice: str | None

    @property
    def text(self) -> str:
        """Finding and advice as one text; it is not a field of the saved report."""
        return " ".join(part for part in (self.finding, self.advice) if part)
