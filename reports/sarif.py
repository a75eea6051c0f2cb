"""The report as SARIF 2.1.0: one result per gate and per health check that warns or fails."""

import json
from math import isfinite
from typing import Any, Literal

from audit.schema import Gate, Health, ScanReport
from reports import summary
from reports.escaping import artifact_uri
from reports.numbers import exact

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
INFORMATION_URI = "https://wasserstein-audit.invalid/"
"""Identifier of the program; it is not an address."""

SarifLevel = Literal["error", "warning", "note", "none"]

SARIF_LEVELS: dict[str, SarifLevel] = {
    "pass": "none",
    "fail": "error",
    "error": "error",
    "warn": "warning",
    "inconclusive": "warning",
    "waived": "note",
}


def render(report: ScanReport) -> str:
    """Return the report as a SARIF log of one run."""
    results = [_gate_result(report, gate) for gate in report.gates]
    results += [
        _result(
            report, f"health/{entry.id}", SARIF_LEVELS[entry.status], "fail",
            f"{summary.check_name(entry)}: {entry.text}",
        )
        | {"properties": {"metric": entry.metric, "numbers": _finite_numbers(entry)}}
        for entry in report.health
        if entry.status in ("warn", "fail", "error")
    ]  # fmt: skip
    rules = sorted({str(result["ruleId"]) for result in results})
    for result in results:
        result["ruleIndex"] = rules.index(result["ruleId"])
    run = {
        "tool": {
            "driver": {
                "name": report.tool.name,
                "version": report.tool.version,
                "informationUri": INFORMATION_URI,
                "rules": [
                    {"id": rule, "shortDescription": {"text": _description(rule)}} for rule in rules
                ],
            }
        },
        "artifacts": [
            {
                "location": {"uri": artifact_uri(report.model.path)},
                # A Python function has no bytes to hash.
                **({"hashes": {"sha-256": report.model.sha256}} if report.model.sha256 else {}),
            }
        ],
        "invocations": [_invocation(report)],
        "results": results,
        "columnKind": "utf16CodeUnits",
    }
    log = {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _invocation(report: ScanReport) -> dict[str, Any]:
    if report.status == "complete":
        return {"executionSuccessful": True}
    text = f"{report.status}: {summary.STATUSES[report.status]}"
    return {
        "executionSuccessful": False,
        "toolExecutionNotifications": [{"level": "error", "message": {"text": text}}],
    }


def _finite_numbers(entry: Health) -> dict[str, int | float | None]:
    """Return the numbers of a check with null for those that JSON cannot hold."""
    return {
        name: value if value is not None and isfinite(value) else None
        for name, value in entry.numbers.items()
    }


def _gate_result(report: ScanReport, gate: Gate) -> dict[str, Any]:
    measured = "" if gate.value is None else f" measured {exact(gate.value)}."
    text = f"Gate {gate.expression}: {gate.status}.{measured} {gate.detail}".strip()
    kind = "pass" if gate.status == "pass" else "fail"
    result = _result(report, f"gate/{gate.id}", SARIF_LEVELS[gate.status], kind, text)
    if gate.status == "waived":
        result["suppressions"] = [{"kind": "external", "justification": gate.detail}]
    return result


def _result(
    report: ScanReport, rule: str, level: SarifLevel, kind: str, text: str
) -> dict[str, Any]:
    # The location is the whole file: it is binary, so it has no region.
    return {
        "ruleId": rule,
        # SARIF 3.27.10: the level of a result that is not a failure is "none".
        "kind": kind,
        "level": level if kind == "fail" else "none",
        "message": {"text": text},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": artifact_uri(report.model.path), "index": 0}
                }
            }
        ],
        "partialFingerprints": {"gate/v1": f"{rule}:{summary.file_name(report.model.path)}"},
    }


def _description(rule: str) -> str:
    kind, _, name = rule.partition("/")
    return f"Gate on {name}" if kind == "gate" else f"Health check of the evidence: {name}"
