"""`audit.judge`: evaluate the gates of a policy on a saved report."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from audit.api.report import Report
from audit.gates.policy import evaluate_policy, policy_of, read_policy
from audit.gates.verdict import verdict
from audit.schema import reliability


def judge(
    report: Report | str | Path, policy: str | Path | Sequence[str], *, strict: bool = False
) -> Report:
    """Evaluate gates on a report, and return the report with their outcome.

    Args:
        report: a report, or the path of a saved one.
        policy: a TOML file with gates, or a list of conditions such as
            ``["attacked.linf@8/255 >= 0.8"]``.
        strict: whether an interval that contains its bound is inconclusive instead of failed.

    Raises:
        UsageError: the report or the policy cannot be read.
    """
    found = report if isinstance(report, Report) else Report.read(report)
    rules = read_policy(Path(policy)) if isinstance(policy, str | Path) else policy_of(policy)
    gates = evaluate_policy(found.record, rules, date.today(), strict=strict)
    outcome = verdict(gates, reliability(found.record))
    return replace(
        found, record=found.record.model_copy(update={"gates": gates, "verdict": outcome})
    )
