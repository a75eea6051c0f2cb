"""The report as JSON, which `reports.parsing.parse_report` reads back."""

import json
from math import isfinite
from typing import Any

from audit.schema import ScanReport


def render(report: ScanReport) -> str:
    """Return the report as JSON: keys in declared order, null for 'not measured'."""
    document = _replace_non_finite(report.model_dump(mode="json"))
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _replace_non_finite(value: Any) -> Any:
    """Return plain data with None for every number that JSON cannot hold."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {key: _replace_non_finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace_non_finite(item) for item in value]
    return value
