"""The report as JUnit XML: suites of gates, of health checks, and of the scan itself.

A gate that failed is a failure, one that the evidence does not decide an error, one that was waived
skipped; a health check that failed is an error, one that does not apply skipped.
"""

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from audit.schema import Gate, Health, Report
from reports import summary
from reports.numbers import exact

CONTROL = {code: None for code in range(32) if chr(code) not in "\t\n\r"}
"""Characters that XML cannot hold."""


def render(report: Report) -> str:
    """The report as JUnit XML."""
    root = ET.Element("testsuites", name="audit")
    _suite(root, "scan", report, [_status(report)])
    _suite(root, "gates", report, [_gate(gate) for gate in report.gates])
    _suite(root, "health", report, [_health_case(entry) for entry in report.health])
    for name in ("tests", "failures", "errors"):  # the common schema knows no skipped here
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(root: ET.Element, name: str, report: Report, cases: Sequence[ET.Element]) -> None:
    suite = ET.SubElement(
        root,
        "testsuite",
        name=_clean(f"audit.{name} {summary.file_name(report.model.path)}"),
        tests=str(len(cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        errors=str(sum(case.find("error") is not None for case in cases)),
        skipped=str(sum(case.find("skipped") is not None for case in cases)),
        timestamp=report.created.partition("+")[0],
        time="0",
    )
    suite.extend(cases)


def _status(report: Report) -> ET.Element:
    case = ET.Element("testcase", classname="audit.scan", name="complete", time="0")
    unfinished = None if report.status == "complete" else "error"
    _say(case, unfinished, f"{report.status}: {summary.STATUSES[report.status]}")
    return case


def _gate(gate: Gate) -> ET.Element:
    case = ET.Element("testcase", classname="audit.gates", name=_clean(gate.expression), time="0")
    measured = f"{gate.expression}: {exact(gate.value)}. {gate.detail}".strip()
    kind = {"fail": "failure", "inconclusive": "error", "waived": "skipped"}.get(gate.status)
    _say(case, kind, measured)
    if gate.status == "warn":
        ET.SubElement(case, "system-out").text = _clean(f"warning: {measured}")
    return case


def _health_case(entry: Health) -> ET.Element:
    name, message = summary.check_name(entry), summary.check_text(entry)
    case = ET.Element(
        "testcase", classname=_clean(f"audit.health.{entry.id}"), name=_clean(name), time="0"
    )
    numbers = summary.check_numbers(entry)
    kind = {"fail": "error", "error": "error", "not_applicable": "skipped"}.get(entry.status)
    _say(case, kind, message)
    if entry.status == "warn":
        ET.SubElement(case, "system-out").text = _clean(f"warning: {message} [{numbers}]")
    elif numbers:
        ET.SubElement(case, "system-out").text = _clean(f"{entry.finding} [{numbers}]")
    return case


def _say(case: ET.Element, kind: str | None, message: str) -> None:
    if kind is not None:
        element = ET.SubElement(case, kind, message=_clean(message))
        if kind != "skipped":
            element.set("type", kind)
            element.text = _clean(message)


def _clean(text: str) -> str:
    """Without the characters that XML has no way to hold."""
    return text.translate(CONTROL).replace("\ufffe", "").replace("\uffff", "")
