"""From the options of a scan to the budgets of its attacks and certificates."""

from audit.options import ScanConfig
from audit.scanning.effort import EFFORTS, Effort


def effort_of(config: ScanConfig) -> Effort:
    """Return the budgets of the chosen effort."""
    return EFFORTS[config.effort]
