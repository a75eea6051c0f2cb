"""The report as Markdown for the summary of a job: verdict, tables, checks that need attention."""

from audit.schema import ScanReport, ThreatResult
from reports import summary
from reports.escaping import escape_markdown
from reports.numbers import budget, exact, proportion, thousands

MAX_CHARACTERS = 900_000
"""Longest document; the summary of a job holds one mebibyte of UTF-8."""


def render(report: ScanReport) -> str:
    """Return the report as GitHub-flavoured Markdown; foreign strings are escaped."""
    colour, meaning = summary.reliability_line(report)
    lines = [
        f"## Robustness of {escape_markdown(summary.file_name(report.model.path))}",
        "",
        f"**Gates: {report.verdict.upper()}**, "
        f"{escape_markdown(summary.VERDICTS[report.verdict])}. "
        f"**Reliability: {colour}**, {escape_markdown(meaning)}.",
        "",
        f"Clean accuracy {escape_markdown(summary.clean_sentence(report))}.",
    ]
    if report.status != "complete":
        lines += ["", f"**{report.status}**: {escape_markdown(summary.STATUSES[report.status])}."]
    if report.gates:
        lines += ["", "| gate | status | measured | detail |", "|---|---|---|---|"]
        lines += [
            f"| {escape_markdown(gate.expression)} | {gate.status} | "
            f"{escape_markdown(exact(gate.value))} | {escape_markdown(gate.detail)} |"
            for gate in report.gates
        ]
    for threat in report.threats:
        lines += _threat_section(threat)
    worst, passed = summary.troubled_checks(report)
    lines += ["", f"{thousands(passed)} of {thousands(len(report.health))} health checks passed."]
    lines += [
        f"- **{h.status}** {escape_markdown(summary.check_name(h))}: {escape_markdown(h.text)}"
        for h in worst
    ]
    lines += [f"- {escape_markdown(warning)}" for warning in report.warnings]
    lines += ["", escape_markdown(summary.BOUNDS_EXPLAINED)]
    rendered = "\n".join(lines) + "\n"
    if len(rendered) <= MAX_CHARACTERS:
        return rendered
    return (
        rendered[:MAX_CHARACTERS].rpartition("\n")[0]
        + "\n\nThis text was cut: the HTML report is complete.\n"
    )


def _threat_section(threat: ThreatResult) -> list[str]:
    head = [summary.order_label(curve.order) for curve in threat.curves]
    lines = [
        "",
        f"### {escape_markdown(threat.metric)}",
        "",
        "Accuracy in %: from certified (at least) to attacked (at most), each with its interval.",
        "",
        "| delta | " + " | ".join(head) + " |",
        "|---" * (len(head) + 1) + "|",
    ]
    by_delta = [{point.delta: point for point in curve.points} for curve in threat.curves]
    for delta in sorted({delta for points in by_delta for delta in points}):
        cells = []
        for points in by_delta:
            point = points.get(delta)
            if point is None:
                cells.append("–")
                continue
            low, high = (
                proportion(point.certified, "certified"),
                proportion(point.attacked, "attacked"),
            )
            cells.append(escape_markdown(f"{low} to {high}"))
        lines.append(
            f"| {escape_markdown(budget(delta, threat.metric))} | " + " | ".join(cells) + " |"
        )
    return lines
