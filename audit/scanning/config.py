"""From the options of a scan to the budgets of its attacks and certificates."""

from attackers import ATTACKS
from audit.errors import UsageError
from audit.options import ScanConfig, suggestion
from audit.scanning.effort import EFFORTS, Effort


def effort_of(config: ScanConfig) -> Effort:
    """Return the budgets of the chosen effort."""
    return EFFORTS[config.effort]


def require_attacks(config: ScanConfig) -> None:
    """Raise `UsageError` where an attack is named that the registry does not have."""
    for name in config.attacks or ():
        if name not in ATTACKS:
            raise UsageError(f"Unknown attack {name!r}{suggestion(name, ATTACKS)}")
