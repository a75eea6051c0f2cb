"""The report as JUnit XML: suites of gates, of health checks, and of the scan itself.

A failed gate is a failure, an undecided gate is an error, and a waived gate is skipped. A failed
health check is an error, and one that does not apply is skipped.
"""

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from audit.schema import Gate, Health, ScanReport
from reports import summary
from reports.escaping import remove_non_xml
from reports.numbers import exact


def render(report: ScanReport) -> str:
    """Return the report as JUnit XML."""
    root = ET.Element("testsuites", name="audit")
    _suite(root, "scan", report, [_completion_case(report)])
    _suite(root, "gates", report, [_gate_case(gate) for gate in report.gates])
    _suite(root, "health", report, [_health_case(entry) for entry in report.health])
    for name in ("tests", "failures", "errors"):  # the common schema has no "skipped" on the root
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(root: ET.Element, name: str, report: ScanReport, cases: Sequence[ET.Element]) -> None:
    suite = ET.SubElement(
        root,
        "testsuite",
        name=remove_non_xml(f"audit.{name} {summary.file_name(report.model.path)}"),
        tests=str(len(cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        errors=str(sum(case.find("error") is not None for case in cases)),
        skipped=str(sum(case.find("skipped") is not None for case in cases)),
        timestamp=report.created.partition("+")[0],
        time="0",
    )
    suite.extend(cases)


def _completion_case(report: ScanReport) -> ET.Element:
    case = ET.Element("testcase", classname="audit.scan", name="complete", time="0")
    unfinished = None if report.status == "complete" else "error"
    _add_outcome(case, unfinished, f"{report.status}: {summary.STATUSES[report.status]}")
    return case


def _gate_case(gate: Gate) -> ET.Element:
    case = ET.Element(
        "testcase", classname="audit.gates", name=remove_non_xml(gate.expression), time="0"
    )
    measured = f"{gate.expression}: {exact(gate.value)}. {gate.detail}".strip()
    kind = {"fail": "failure", "inconclusive": "error", "waived": "skipped"}.get(gate.status)
    _add_outcome(case, kind, measured)
    if gate.status == "warn":
        ET.SubElement(case, "system-out").text = remove_non_xml(f"warning: {measured}")
    return case


def _health_case(entry: Health) -> ET.Element:
    case = ET.Element(
        "testcase",
        classname=remove_non_xml(f"audit.health.{entry.id}"),
        name=remove_non_xml(summary.check_name(entry)),
        time="0",
    )
    kind = {"fail": "error", "error": "error", "not_applicable": "skipped"}.get(entry.status)
    message, numbers = entry.text, summary.check_numbers(entry)
    _add_outcome(case, kind, message)
    shown = f"warning: {message}" if entry.status == "warn" else entry.finding
    if entry.status == "warn" or numbers:
        shown += f" [{numbers}]" if numbers else ""
        ET.SubElement(case, "system-out").text = remove_non_xml(shown)
    return case


def _add_outcome(case: ET.Element, kind: str | None, message: str) -> None:
    if kind is not None:
        element = ET.SubElement(case, kind, message=remove_non_xml(message))
        if kind != "skipped":
            element.set("type", kind)
            element.text = remove_non_xml(message)
