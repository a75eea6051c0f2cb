"""`audit.compare`: compare two reports of the same samples."""

from pathlib import Path
from typing import Any

from audit.api.report import Report
from audit.comparison import compare_reports, radii_of
from audit.schema import Comparison
from audit.values import share


def compare(
    before: Report | str | Path, after: Report | str | Path, *, max_regression: Any = None
) -> Comparison:
    """Compare two reports of the same samples, sample by sample.

    Args:
        before: a report, or the path of a saved one.
        after: a later report of the same samples.
        max_regression: largest accepted loss of attacked accuracy, from 0 to 1, or None.

    Returns:
        Every change with its interval; ``status`` states whether the limit is kept.

    Raises:
        UsageError: the reports are not about the same samples and threats, or cannot be read.
    """
    limit = None if max_regression is None else share(max_regression, "--max-regression")
    old, new = (
        found if isinstance(found, Report) else Report.read(found) for found in (before, after)
    )
    radii = [radii_of(found.record, found.samples_csv()) for found in (old, new)]
    return compare_reports(old.record, new.record, *radii, limit=limit)
