"""Saved reports of earlier schema versions, read as reports of the current one."""

from typing import Any

from audit.schema.scan import REPORT_VERSION


def upgraded(document: dict[str, Any]) -> dict[str, Any]:
    """Return a saved report in the current layout; the argument is not modified.

    Version 1 wrote a health check as ``check`` (with the metric after a dot), ``status`` and
    ``detail``. Entries of another form are left to the validation.
    """
    if document.get("schema_version") != 1:
        return document
    health = document.get("health")
    if isinstance(health, list):
        document = document | {"health": [upgraded_check(entry) for entry in health]}
    return document | {"schema_version": REPORT_VERSION}


def upgraded_check(entry: Any) -> Any:
    """Return a health check of version 1 in the current layout."""
    if not isinstance(entry, dict) or set(entry) != {"check", "status", "detail"}:
        return entry
    name, _, metric = str(entry["check"]).partition(".")
    return {
        "id": name,
        "metric": metric or None,
        "status": entry["status"],
        "title": name.replace("_", " ").capitalize(),
        "finding": entry["detail"],
        "numbers": {},
        "advice": None,
    }
