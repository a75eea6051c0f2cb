"""Budgets of the attacks and certificates of a scan, from its options."""

from attackers import ATTACKS
from audit.errors import UsageError
from audit.options import ScanConfig, suggestion
from audit.scanning.effort import EFFORTS, Effort


def effort_of(config: ScanConfig) -> Effort:
    """Return the budgets of the chosen effort."""
    return EFFORTS[config.effort]


def require_attacks(config: ScanConfig) -> None:
    """Raise `UsageError` if a named attack is not registered."""
    for name in config.attacks or ():
        if name not in ATTACKS:
            raise UsageError(f"Unknown attack {name!r}{suggestion(name, ATTACKS)}")
