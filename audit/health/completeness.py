"""The check of the scan itself: did everything that was asked for run to its end?"""

from collections.abc import Callable, Mapping, Sequence

from audit.errors import contained
from audit.health.common import entry
from audit.schema import Attack, Health


def guarded(check: str, run: Callable[[], Health]) -> Health:
    """Run a check; one that stops on an error fails, and the scan goes on.

    Args:
        check: the id of the finding, where the check itself cannot give one.
        run: the check.

    Raises:
        InternalError: a contradiction that only a bug of ours can cause.
    """
    said: list[str] = []
    with contained(f"The check {check}", said.append):
        return run()
    return entry(
        check,
        "fail",
        f"The check stopped on an error: {said[0]}. What it looks at is not known.",
    )


def completeness(
    attacks: Mapping[str, Sequence[Attack]],
    failures: Sequence[str],
    missing: Sequence[str],
    *,
    interrupted: bool,
) -> Health:
    """Every metric was reached, something attacked it, and nothing stopped on an error.

    Args:
        attacks: what ran, by metric.
        failures: sentences on what stopped on an error.
        missing: metrics that were not reached.
        interrupted: whether the scan was stopped from outside.
    """
    idle = [
        metric
        for metric, entries in attacks.items()
        if entries and not any(attack.status == "ran" for attack in entries)
    ]
    found = ["The scan was interrupted."] if interrupted else []
    if missing:
        found.append(f"Metrics that it did not reach: {', '.join(missing)}.")
    if failures:
        found.append(f"Stopped on an error: {' '.join(failures)}")
    elif idle and not interrupted:
        found.append(
            f"No attack that was chosen could run under {', '.join(idle)}, so its attacked "
            "accuracy is the clean one: choose attacks that apply (--attack)."
        )
    if not found:
        return entry("completeness", "pass", "Everything that was asked for ran to its end.")
    found.append("The attacked accuracies may be far too high.")
    return entry("completeness", "fail", " ".join(found))
