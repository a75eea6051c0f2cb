"""Conditions on a report (gates), and the verdict and exit code that they determine."""

from audit.schema import Gate, GateStatus, ScanReport, Verdict, reliability

EXIT_PASS, EXIT_FAIL, EXIT_INCONCLUSIVE = 0, 1, 4

UNFINISHED = (
    "The scan did not complete (status: {}), and the rest of it may change this outcome: run the "
    "scan again."
)


def fail_under(report: ScanReport, minimum: float, *, strict: bool) -> list[Gate]:
    """Require every attacked accuracy to be at least ``minimum`` at the low end of its interval.

    With ``strict``, a gate is inconclusive instead of failed if its value meets the minimum and
    only its interval does not. A metric that an unfinished scan did not reach gets one
    inconclusive gate.
    """
    gates = []
    for threat in report.threats:
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
                gate = Gate(id=name, expression=f"{name} >= {minimum:g}", status=status, value=low)
                gates.append(settled(gate, report, side="attacked", at_least=True))
    if report.status != "complete":
        reached = {threat.metric for threat in report.threats}
        gates += [
            Gate(
                id=f"attacked.{metric}",
                expression=f"attacked.{metric} >= {minimum:g}",
                status="inconclusive",
                value=None,
                detail=UNFINISHED.format(report.status),
            )
            for metric in report.config.get("threat") or []
            if metric not in reached
        ]
    return gates


def settled(gate: Gate, report: ScanReport, *, side: str, at_least: bool) -> Gate:
    """Keep an outcome that the rest of an unfinished scan cannot change; else make it inconclusive.

    More attacks only lower an attacked accuracy, and more certificates only raise a certified one.
    Therefore a minimum that the attacked accuracy violates stays violated, a minimum that the
    certified accuracy meets stays met, and clean accuracy is final.

    Args:
        gate: outcome on the numbers measured so far.
        report: report of a scan that may be incomplete.
        side: ``attacked``, ``certified`` or ``clean``.
        at_least: whether the gate requires a minimum rather than a maximum.
    """
    if report.status == "complete" or gate.status in ("inconclusive", "waived"):
        return gate
    met, violated = ("pass",), ("fail", "warn")
    final = {
        "attacked": violated if at_least else met,
        "certified": met if at_least else violated,
        "clean": met + violated,
    }
    if gate.value is not None and gate.status in final[side]:
        return gate
    detail = " ".join(part for part in (gate.detail, UNFINISHED.format(report.status)) if part)
    return gate.model_copy(update={"status": "inconclusive", "detail": detail})


def verdict(gates: list[Gate], reliable: str) -> Verdict:
    """Return the verdict of all gates: one failure fails; unreliable evidence never passes."""
    statuses = {gate.status for gate in gates}
    if "fail" in statuses:
        return "fail"
    if "inconclusive" in statuses or reliable == "RED":
        return "inconclusive"
    return "pass" if gates else "none"


def exit_code(report: ScanReport, *, strict: bool) -> int:
    """Return the exit status of a report; a failed gate has priority over inconclusive evidence.

    A failed health check is always inconclusive, a warning only under ``strict``.
    """
    if report.verdict == "fail":
        return EXIT_FAIL
    if report.verdict == "inconclusive" or report.status != "complete":
        return EXIT_INCONCLUSIVE
    if strict and reliability(report) != "GREEN":
        return EXIT_INCONCLUSIVE
    return EXIT_PASS
