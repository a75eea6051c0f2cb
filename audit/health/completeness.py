"""Check that the whole requested scan completed."""

from audit.health.registry import CheckResult, check
from audit.health.subjects import ScanSubject


@check(
    "completeness",
    ScanSubject,
    title="Scan is complete",
    advice="Repeat the scan (--verbose shows errors) with attacks that apply (--attack): the "
    "attacked accuracies may be far too high.",
)
def completeness(subject: ScanSubject) -> CheckResult:
    """Check that every metric was reached and attacked, and that nothing stopped on an error."""
    idle = [
        metric
        for metric, entries in subject.attacks.items()
        if entries and not any(attack.status == "ran" for attack in entries)
    ]
    found = ["The scan was interrupted."] if subject.interrupted else []
    if subject.missing:
        found.append(f"Metrics that the scan did not reach: {', '.join(subject.missing)}.")
    if subject.failures:
        found.append(f"Parts of the scan stopped on an error: {' '.join(subject.failures)}")
    elif idle and not subject.interrupted:
        found.append(
            f"None of the chosen attacks could run under {', '.join(idle)}, so the attacked "
            "accuracy equals the clean accuracy."
        )
    numbers = {
        "errors": len(subject.failures),
        "metrics_not_reached": len(subject.missing),
        "metrics_without_attack": len(idle),
    }
    if not found:
        return CheckResult("pass", "All requested parts of the scan completed.", numbers)
    return CheckResult("fail", " ".join(found), numbers)
