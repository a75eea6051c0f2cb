"""Gates of a scan, which are read once before the scan and evaluated on its report."""

from dataclasses import dataclass, field
from datetime import date

from audit.gates.policy import Policy, evaluate_policy, read_policy
from audit.gates.verdict import fail_under
from audit.options import VerdictOptions
from audit.schema import Gate, ScanReport


@dataclass(frozen=True)
class Gates:
    """Requirements on a report.

    Attributes:
        wanted: the options.
        policy: gates of the policy file at the time it was read, or None.
    """

    wanted: VerdictOptions = field(default_factory=VerdictOptions)
    policy: Policy | None = None

    @classmethod
    def read(cls, wanted: VerdictOptions) -> "Gates":
        """Read the policy file, if one is named; raises `UsageError`."""
        return cls(wanted, None if wanted.policy is None else read_policy(wanted.policy))

    def evaluate(self, report: ScanReport) -> list[Gate]:
        """Return the outcome of every gate on a report."""
        strict, found = self.wanted.strict, []
        if self.wanted.fail_under is not None:
            found += fail_under(report, self.wanted.fail_under, strict=strict)
        if self.policy is not None:
            found += evaluate_policy(report, self.policy, date.today(), strict=strict)
        return found
