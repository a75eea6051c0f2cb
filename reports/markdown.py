"""The report as Markdown, for the summary of a job: verdict, tables, what to look at."""

from audit.schema import Report, ThreatResult
from reports import summary
from reports.numbers import budget, count, exact, share

LONGEST = 900_000
"""Characters; a job's summary holds a mebibyte."""

SPECIAL = str.maketrans(
    {**{c: f"\\{c}" for c in "\\`*_{}[]()#+!|~$"}, "<": "&lt;", ">": "&gt;", "&": "&amp;",
     "\n": " ", "\r": " "}
)  # fmt: skip


def render(report: Report) -> str:
    """The report as GitHub-flavoured Markdown; nothing of the user's is markup."""
    colour, meaning = summary.reliability_line(report)
    lines = [
        f"## Robustness of {text(summary.file_name(report.model.path))}",
        "",
        f"**Gates: {report.verdict.upper()}**, {text(summary.VERDICTS[report.verdict])}. "
        f"**Reliability: {colour}**, {text(meaning)}.",
        "",
        f"Clean accuracy {text(summary.clean(report))}.",
    ]
    if report.status != "complete":
        lines += ["", f"**{report.status}**: {text(summary.STATUSES[report.status])}."]
    if report.gates:
        lines += ["", "| gate | status | measured | |", "|---|---|---|---|"]
        lines += [
            f"| {text(gate.expression)} | {gate.status} | {text(exact(gate.value))} | "
            f"{text(gate.detail)} |"
            for gate in report.gates
        ]
    for threat in report.threats:
        lines += _threat(threat)
    worst, passed = summary.trouble(report)
    lines += ["", f"{count(passed)} of {count(len(report.health))} health checks passed."]
    lines += [
        f"- **{h.status}** {text(summary.check_name(h))}: {text(summary.check_text(h))}"
        for h in worst
    ]
    lines += [f"- {text(warning)}" for warning in report.warnings]
    lines += ["", text(summary.NO_REPAIR)]
    rendered = "\n".join(lines) + "\n"
    if len(rendered) <= LONGEST:
        return rendered
    return (
        rendered[:LONGEST].rpartition("\n")[0] + "\n\nCut: the whole report is in the HTML file.\n"
    )


def _threat(threat: ThreatResult) -> list[str]:
    head = [summary.order_name(curve.order) for curve in threat.curves]
    lines = [
        "",
        f"### {text(threat.metric)}",
        "",
        "Accuracy in %, certified (at least) to attacked (at most).",
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
            low, high = share(point.certified, "certified"), share(point.attacked, "attacked")
            cells.append(text(f"{low} to {high}"))
        lines.append(f"| {text(budget(delta, threat.metric))} | " + " | ".join(cells) + " |")
    return lines


def text(value: str) -> str:
    """Words as Markdown that shows them as they are."""
    kept = "".join(c for c in value if c.isprintable() or c in "\n\r")
    return kept.translate(SPECIAL)
