"""The report as SARIF 2.1.0: one result per gate and per health check that is not in order."""

import json
from math import isfinite
from pathlib import PureWindowsPath
from typing import Any, Literal
from urllib.parse import quote

from audit.schema import Gate, Health, Report
from reports import summary
from reports.numbers import exact

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
INFORMATION = "https://wasserstein-audit.invalid/"
"""An identifier, not an address."""

Level = Literal["error", "warning", "note", "none"]

LEVELS: dict[str, Level] = {
    "pass": "none",
    "fail": "error",
    "error": "error",
    "warn": "warning",
    "inconclusive": "warning",
    "waived": "note",
}


def render(report: Report) -> str:
    """The report as a SARIF log of one run."""
    results = [_gate(report, gate) for gate in report.gates]
    results += [
        _result(
            report, f"health/{entry.id}", LEVELS[entry.status], "fail",
            f"{summary.check_name(entry)}: {summary.check_text(entry)}",
        )
        | {"properties": {"metric": entry.metric, "numbers": _numbers(entry)}}
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
                "informationUri": INFORMATION,
                "rules": [
                    {"id": rule, "shortDescription": {"text": _description(rule)}} for rule in rules
                ],
            }
        },
        "artifacts": [
            {
                "location": {"uri": artifact_uri(report.model.path)},
                "hashes": {"sha-256": report.model.sha256},
            }
        ],
        "invocations": [_invocation(report)],
        "results": results,
        "columnKind": "utf16CodeUnits",
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _invocation(report: Report) -> dict[str, Any]:
    if report.status == "complete":
        return {"executionSuccessful": True}
    text = f"{report.status}: {summary.STATUSES[report.status]}"
    return {
        "executionSuccessful": False,
        "toolExecutionNotifications": [{"level": "error", "message": {"text": text}}],
    }


def _numbers(entry: Health) -> dict[str, int | float | None]:
    """Return the numbers of a check with null for those that JSON cannot hold."""
    return {
        name: value if value is not None and isfinite(value) else None
        for name, value in entry.numbers.items()
    }


def _gate(report: Report, gate: Gate) -> dict[str, Any]:
    measured = "" if gate.value is None else f" measured {exact(gate.value)}."
    text = f"Gate {gate.expression}: {gate.status}.{measured} {gate.detail}".strip()
    kind = "pass" if gate.status == "pass" else "fail"
    result = _result(report, f"gate/{gate.id}", LEVELS[gate.status], kind, text)
    if gate.status == "waived":
        result["suppressions"] = [{"kind": "external", "justification": gate.detail}]
    return result


def _result(report: Report, rule: str, level: Level, kind: str, text: str) -> dict[str, Any]:
    # The file as a whole is the place; it is binary, so there is no region to point at.
    return {
        "ruleId": rule,
        # A result that is not a failure has no level but none.
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
    return (
        f"A gate on {name}" if kind == "gate" else f"Whether the evidence can be believed: {name}"
    )


def artifact_uri(path: str) -> str:
    r"""Return the URI reference of a file path (RFC 3986).

    A relative path stays a relative reference: its colons are percent-encoded, because a first
    segment such as ``net:v1.onnx`` would otherwise be read as an absolute URI of scheme ``net``
    (section 4.2). Windows paths with a drive (``C:\net.onnx``) or a host (``\\host\net.onnx``)
    become ``file`` URIs. Repeated leading slashes become one: two would name a host.
    """
    parts = PureWindowsPath(path)
    if parts.drive and parts.root and not path.startswith("//"):
        return parts.as_uri()
    encoded = quote(path.replace("\\", "/"), safe="/")
    return "/" + encoded.lstrip("/") if encoded.startswith("/") else encoded
