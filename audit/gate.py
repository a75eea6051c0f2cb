"""Gates: conditions on the report that decide the verdict and the exit code."""

from collections.abc import Iterable

from audit.report import Gate, GateStatus, Report, ThreatResult, Verdict, reliability

EXIT_PASS, EXIT_FAIL, EXIT_INCONCLUSIVE, EXIT_INTERRUPTED = 0, 1, 4, 130


def fail_under(threats: Iterable[ThreatResult], minimum: float, *, strict: bool) -> list[Gate]:
    """Ask every attacked accuracy to be at least ``minimum``, at the low end of its interval.

    ``strict`` calls a gate inconclusive, not failed, when only the interval reaches below.
    """
    gates = []
    for threat in threats:
        for curve in threat.curves:
            order = "" if curve.order == "inf" else f".order{curve.order}"
            for point in curve.points:
                name = f"attacked.{threat.metric}{order}@{point.delta:.6g}"
                low, value = point.attacked.low, point.attacked.value
                status: GateStatus
                if low is None or value is None:
                    status = "fail"
                elif low >= minimum:
                    status = "pass"
                else:
                    status = "inconclusive" if strict and value >= minimum else "fail"
                gates.append(
                    Gate(id=name, expression=f"{name} >= {minimum:g}", status=status, value=low)
                )
    return gates


def verdict(gates: list[Gate], reliable: str) -> Verdict:
    """One word for the whole: a failed gate fails; unreliable evidence never passes."""
    statuses = {gate.status for gate in gates}
    if "fail" in statuses:
        return "fail"
    if "inconclusive" in statuses or reliable == "RED":
        return "inconclusive"
    return "pass" if gates else "none"


def exit_code(report: Report, *, strict: bool) -> int:
    """Exit status of a scan: a failed gate first, then evidence that does not carry a verdict.

    A failed health check is inconclusive always, a warning only under ``strict``.
    """
    if report.status == "interrupted":
        return EXIT_INTERRUPTED
    if report.verdict == "fail":
        return EXIT_FAIL
    if report.verdict == "inconclusive" or (strict and reliability(report) != "GREEN"):
        return EXIT_INCONCLUSIVE
    return EXIT_PASS
