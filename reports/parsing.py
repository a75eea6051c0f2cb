"""A report.json read back and validated, and the JSON Schema of its layout."""

import json
from collections.abc import Iterator
from itertools import pairwise
from math import isfinite
from typing import Any

from pydantic import ValidationError

from audit.errors import AuditError
from audit.schema import REPORT_VERSION, Interval, ScanReport, upgraded

SCHEMA_ID = "https://wasserstein-audit.invalid/report.schema.json"
"""Identifier of the schema, which is not an address: `report.schema.json` is in the package."""

CONSISTENCY_TOLERANCE = 1e-9
"""Largest difference of two shares that counts as rounding; an edited number differs by more."""


class ReportError(AuditError):
    """A report.json that is damaged, edited, or written by another version."""


def parse_report(text: str) -> ScanReport:
    """Return the report in ``text``.

    Raises:
        ReportError: the text is truncated, is not a report, comes from a newer version, has
            missing, unknown or mistyped fields, or contradicts itself.
    """
    document = _document(text)
    _check_version(document)
    document = upgraded(document)
    try:
        report = ScanReport.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        raise _invalid(error) from None
    for contradiction in _contradictions(report):
        raise ReportError(
            f"report.json contradicts itself: {contradiction}; it seems to have been edited, so "
            "write it again with 'audit scan'"
        )
    return report


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of report.json."""
    body = ScanReport.model_json_schema(mode="serialization")
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": f"Robustness audit report, schema version {REPORT_VERSION}",
    }
    return head | {key: value for key, value in body.items() if key not in head}


def _number(literal: str) -> float:
    value = float(literal)
    if isfinite(value):
        return value
    raise ReportError(
        f"report.json holds the number {literal}, expected finite numbers or null; it seems to "
        "have been edited, so write it again with 'audit scan'"
    )


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text, parse_constant=_number, parse_float=_number)
    except (json.JSONDecodeError, RecursionError) as error:
        where = (
            f"line {error.lineno}, column {error.colno}: {error.msg}"
            if isinstance(error, json.JSONDecodeError)
            else "nested too deeply"
        )
        raise ReportError(
            f"this is not a complete JSON document ({where}), expected a report.json of "
            "'audit scan'; the file may be truncated: copy it again or repeat the scan"
        ) from None
    if not isinstance(document, dict) or "schema_version" not in document:
        raise ReportError(
            "this JSON has no 'schema_version', so it is not a report of this tool; "
            "name the report.json that 'audit scan' wrote"
        )
    return document


def _check_version(document: dict[str, Any]) -> None:
    version = document["schema_version"]
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ReportError(
            f"report.json has schema_version {version!r}, expected {REPORT_VERSION}; "
            "name the report.json that 'audit scan' wrote"
        )
    if version > REPORT_VERSION:
        raise ReportError(
            f"report.json has schema_version {version}, this program reads up to "
            f"{REPORT_VERSION}; upgrade wasserstein-audit"
        )


def _invalid(error: ValidationError) -> ReportError:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return ReportError(
        f"report.json is not valid at '{where}': {first['msg']}{more}; it was edited or is not a "
        "report of this tool, so write it again with 'audit scan'"
    )


def _contradictions(report: ScanReport) -> Iterator[str]:
    """Yield a sentence for each pair of numbers that contradict each other."""
    data = report.data
    if not 0 <= data.correct <= data.evaluated <= data.available:
        yield (
            f"{data.correct} correct of {data.evaluated} evaluated of {data.available} available"
        )
    elif report.clean.value is not None and data.evaluated:
        share = data.correct / data.evaluated
        if abs(report.clean.value - share) > CONSISTENCY_TOLERANCE:
            yield (
                f"clean accuracy is {report.clean.value}, but {data.correct} correct of "
                f"{data.evaluated} are {share}"
            )
    if report.verdict == "pass" and any(gate.status == "fail" for gate in report.gates):
        yield "the verdict is 'pass', but a gate failed"
    for where, interval in _shares(report):
        parts = [part for part in (interval.low, interval.value, interval.high) if part is not None]
        if not all(-CONSISTENCY_TOLERANCE <= part <= 1 + CONSISTENCY_TOLERANCE for part in parts):
            yield f"{where} leaves [0, 1]: {parts}"
        if any(a > b + CONSISTENCY_TOLERANCE for a, b in pairwise(parts)):
            yield f"{where} is not ordered as low <= value <= high: {parts}"
    for threat in report.threats:
        for curve in threat.curves:
            for point in curve.points:
                attacked, certified = point.attacked.value, point.certified.value
                if (
                    attacked is not None
                    and certified is not None
                    and certified > attacked + CONSISTENCY_TOLERANCE
                ):
                    yield (
                        f"{threat.metric}, order {curve.order}, delta {point.delta}: certified "
                        f"{certified} is above attacked {attacked}"
                    )


def _shares(report: ScanReport) -> Iterator[tuple[str, Interval]]:
    yield "clean accuracy", report.clean
    for threat in report.threats:
        for curve in threat.curves:
            for point in curve.points:
                where = f"{threat.metric}, order {curve.order}, delta {point.delta}"
                yield f"attacked accuracy ({where})", point.attacked
                yield f"certified accuracy ({where})", point.certified
