"""The check of the scan itself: everything that was asked for ran to its end."""

from audit.health.registry import CheckResult, check
from audit.health.subjects import ScanSubject


@check(
    "completeness",
    ScanSubject,
    title="Scan is complete",
    advice="Scan again (--verbose shows errors), with attacks that apply (--attack): the attacked "
    "accuracies may be far too high.",
)
def completeness(subject: ScanSubject) -> CheckResult:
    """Every metric was reached, something attacked it, and nothing stopped on an error."""
    idle = [
        metric
        for metric, entries in subject.attacks.items()
        if entries and not any(attack.status == "ran" for attack in entries)
    ]
    found = ["The scan was interrupted."] if subject.interrupted else []
    if subject.missing:
        found.append(f"Metrics that it did not reach: {', '.join(subject.missing)}.")
    if subject.failures:
        found.append(f"Stopped on an error: {' '.join(subject.failures)}")
    elif idle and not subject.interrupted:
        found.append(
            f"No attack that was chosen could run under {', '.join(idle)}, so its attacked "
            "accuracy is the clean one."
        )
    numbers = {
        "errors": len(subject.failures),
        "metrics_not_reached": len(subject.missing),
        "metrics_without_attack": len(idle),
    }
    if not found:
        return CheckResult("pass", "Everything that was asked for ran to its end.", numbers)
    return CheckResult("fail", " ".join(found), numbers)
