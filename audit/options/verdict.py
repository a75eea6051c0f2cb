"""Options of the verdict: the gates that a report has to pass."""

from dataclasses import dataclass
from pathlib import Path

from audit.options.option import option
from audit.values import path_of, share, switch

POLICY_HELP = "File with gates: a TOML file with [gates], or a pyproject.toml with "
POLICY_HELP += "[tool.audit.gates]."


@dataclass(frozen=True)
class VerdictOptions:
    """Requirements on a report.

    Attributes:
        fail_under: smallest accepted attacked accuracy at every budget that was named, or None.
        policy: file with gates, or None.
        strict: whether doubtful evidence is inconclusive.
    """

    fail_under: float | None = option(
        "--fail-under",
        default=None,
        read=share,
        metavar="X",
        help="Fail (exit 1) unless the lower end of the interval of every attacked accuracy at "
        "--delta is at least X, a share from 0 to 1.",
    )
    policy: Path | None = option(
        "--policy", default=None, read=path_of, metavar="FILE", help=POLICY_HELP
    )
    strict: bool = option(
        "--strict",
        default=False,
        read=switch,
        help="Treat doubtful evidence as inconclusive (exit 4).",
    )
