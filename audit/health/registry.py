"""Registry of health checks: the type of a check, and the code that runs it.

A check is a function decorated with `check`. It takes one frozen value that contains everything it
examines (a subject, see `audit.health.subjects`) and returns a `CheckResult`. Calling a registered
check returns its `Health` entry: 'not applicable' if a need of the check is not met, 'error' if the
function raised.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from audit.errors import contained
from audit.schema import Health, HealthStatus


class CheckSubject(Protocol):
    """Value that a check examines."""

    @property
    def metric_name(self) -> str | None:
        """Name of the metric that the findings are about; None for findings about the model."""


S = TypeVar("S", bound=CheckSubject)
S_contra = TypeVar("S_contra", contravariant=True)


@dataclass(frozen=True)
class Requirement(Generic[S_contra]):
    """Condition without which a check does not apply.

    Attributes:
        reason: sentence that states why the check does not apply if the condition is not met.
        met: evaluates the condition.
    """

    reason: str
    met: Callable[[S_contra], bool]


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one check.

    Attributes:
        status: ``fail`` means that the numbers of the report must not be relied on, ``warn`` that
            they should be examined.
        finding: one sentence that states what was observed.
        numbers: the measured numbers by name.
        advice: what to do, if it is more specific than the advice registered with the check.
    """

    status: HealthStatus
    finding: str
    numbers: Mapping[str, int | float] = field(default_factory=dict)
    advice: str | None = None


@dataclass(frozen=True)
class Check(Generic[S]):
    """Registered check; calling it runs it.

    Attributes:
        id: name in reports and in the manual.
        subject: type of the value that it takes.
        title: short name for readers, which states what is true when the check passes.
        advice: what to do when it warns or fails.
        needs: conditions without which it does not apply, in the order in which they are evaluated.
        run: the decorated function.
    """

    id: str
    subject: type[S]
    title: str
    advice: str
    needs: tuple[Requirement[S], ...]
    run: Callable[[S], CheckResult]

    def __call__(self, subject: S) -> Health:
        """Run the check; an error ends only this check and becomes its finding.

        Raises:
            InternalError: a contradiction that only a bug of the program can cause.
        """
        errors: list[str] = []
        with contained(f"The check {self.id}", errors.append):
            unmet = (need for need in self.needs if not need.met(subject))
            if (need := next(unmet, None)) is not None:
                return self._entry(subject, CheckResult("not_applicable", need.reason))
            return self._entry(subject, self.run(subject))
        finding = f"The check stopped on an error ({errors[0]}), so its outcome is unknown."
        return self._entry(subject, CheckResult("error", finding, advice=AFTER_AN_ERROR))

    def _entry(self, subject: S, result: CheckResult) -> Health:
        advice = result.advice
        if advice is None and result.status in ("warn", "fail"):
            advice = self.advice
        return Health(
            id=self.id,
            metric=subject.metric_name,
            status=result.status,
            title=self.title,
            finding=result.finding,
            numbers=dict(result.numbers),
            advice=advice,
        )


AFTER_AN_ERROR = "Repeat the scan with --verbose, which shows where the error was raised."
"""Advice for a check that raised an error."""

CHECKS: dict[str, Check[Any]] = {}
"""Every check by id, in the order in which checks run and appear in a report."""


def check(
    id: str,
    of: type[S],
    *,
    title: str,
    advice: str,
    needs: tuple[Requirement[S], ...] = (),
) -> Callable[[Callable[[S], CheckResult]], Check[S]]:
    """Register the decorated function as a health check.

    Args:
        id: name in reports; the manual has an entry of this name.
        of: type of the value that the function takes.
        title: short name for readers, which states what is true when the check passes.
        advice: what to do when the check warns or fails.
        needs: conditions without which the check does not apply.
    """
    if id in CHECKS:
        raise ValueError(f"There already is a health check {id!r}: choose another id.")

    def register(run: Callable[[S], CheckResult]) -> Check[S]:
        CHECKS[id] = Check(id, of, title, advice, needs, run)
        return CHECKS[id]

    return register


def checks_of(subject: type[S]) -> tuple[Check[S], ...]:
    """Return the checks that take this type of subject, in the order in which they run."""
    return tuple(entry for entry in CHECKS.values() if entry.subject is subject)
