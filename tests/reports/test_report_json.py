"""report.json goes out and comes back byte for byte; anything else is one clear error."""

import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from golden import golden

import audit
from audit.errors import AuditError
from audit.schema import upgraded
from reports.json import render
from reports.parsing import ReportError, parse_report, report_schema

TEXT = render(golden())


def test_round_trip_is_byte_identical() -> None:
    assert render(parse_report(TEXT)) == TEXT
    assert parse_report(TEXT) == golden()


def test_keys_stand_in_declared_order() -> None:
    document = json.loads(TEXT)
    assert list(document) == list(type(golden()).model_fields)
    assert TEXT.startswith('{\n  "schema_version": 2,\n')


def test_committed_schema_is_current_and_sound() -> None:
    path = Path(audit.__file__).parent / "schema" / "report.schema.json"
    assert json.loads(path.read_text(encoding="utf-8")) == report_schema()
    jsonschema.Draft202012Validator.check_schema(report_schema())


def test_schema_accepts_the_report_and_refuses_others() -> None:
    validator = jsonschema.Draft202012Validator(report_schema())
    document = json.loads(TEXT)
    validator.validate(document)
    for broken in (document | {"extra": 1}, document | {"verdict": "maybe"}, {}):
        assert not validator.is_valid(broken)


def test_infinity_never_appears() -> None:
    report = golden()
    odd = report.model_copy(
        update={
            "config": {"a": math.inf, "b": [math.nan, {"c": -math.inf}]},
            "clean": report.clean.model_copy(update={"high": math.inf}),
        }
    )
    document = json.loads(render(odd), parse_constant=pytest.fail)
    assert document["config"] == {"a": None, "b": [None, {"c": None}]}
    assert document["clean"]["high"] is None


def changed(*path: str | int, to: Any) -> str:
    """The golden document with one entry replaced, as a person with an editor would."""
    document = json.loads(TEXT)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return json.dumps(document)


POINT = ("threats", 0, "curves", 0, "points", 0)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "not a complete JSON document"),
        (TEXT[:-100], "not a complete JSON document"),
        (TEXT[: len(TEXT) // 2], "not a complete JSON document"),
        ("[" * 100_000, "not a complete JSON document"),
        ("<html></html>", "not a complete JSON document"),
        ("[]", "no 'schema_version'"),
        ('{"lighthouseVersion": "12"}', "no 'schema_version'"),
        ('{"schema_version": 1}', "not valid at 'tool'"),
        (changed("schema_version", to=3), "reads up to 2; upgrade"),
        (changed("schema_version", to="1"), "expected 2"),
        (changed("schema_version", to=True), "expected 2"),
        (changed("note", to="mine"), "not valid at 'note'"),
        (changed("verdict", to="great"), "not valid at 'verdict'"),
        (changed("clean", "value", to="0.989"), "not valid at 'clean.value'"),
        (changed("clean", "value", to=0.999), "clean accuracy is 0.999"),
        (changed("clean", "low", to=0.99), "not ordered"),
        (changed("data", "correct", to=1_001), "1001 correct of 1000"),
        (changed("verdict", to="pass"), "a gate failed"),
        (changed(*POINT, "attacked", "high", to=1.5), "leaves"),
        (changed(*POINT, "attacked", to={"value": 0.5, "low": 0.4, "high": 0.6}), "is above"),
        (TEXT.replace('"value": 0.989', '"value": NaN'), "the number NaN"),
        (TEXT.replace('"value": 0.989', '"value": 1e999'), "the number 1e999"),
        (TEXT.replace('"value": 0.989', '"value": -Infinity'), "the number -Infinity"),
    ],
)
def test_anything_else_is_one_sentence(text: str, found: str) -> None:
    with pytest.raises(ReportError) as caught:
        parse_report(text)
    message = str(caught.value)
    assert found in message
    assert "\n" not in message
    assert isinstance(caught.value, AuditError)
    assert caught.value.exit_code == 2


def saved_by_version_1() -> dict[str, Any]:
    """The golden report as schema version 1 wrote it."""
    document = json.loads(TEXT)
    document["schema_version"] = 1
    document["health"] = [
        {"check": "clean_accuracy", "status": "pass", "detail": "98.9 % is far from chance."},
        {"check": "square.linf", "status": "warn", "detail": "It broke more. Look again."},
    ]
    return document


def test_reports_of_version_1_are_read_as_reports_of_version_2() -> None:
    document = saved_by_version_1()
    before = json.dumps(document)
    report = parse_report(before)
    assert report.schema_version == 2
    model, square = report.health
    assert (model.id, model.metric, model.status) == ("clean_accuracy", None, "pass")
    assert (square.id, square.metric, square.status) == ("square", "linf", "warn")
    assert (square.title, square.finding) == ("Square", "It broke more. Look again.")
    assert (square.numbers, square.advice) == ({}, None)
    assert parse_report(render(report)) == report
    upgraded(document)
    assert json.dumps(document) == before, "the argument stays as it is"


def test_the_form_of_version_1_is_refused_in_version_2() -> None:
    with pytest.raises(ReportError, match=r"not valid at 'health\.0"):
        parse_report(json.dumps(saved_by_version_1() | {"schema_version": 2}))


@pytest.mark.parametrize("health", [3, [3], [{"check": "a"}], None])
def test_a_damaged_report_of_version_1_is_one_sentence(health: Any) -> None:
    with pytest.raises(ReportError, match="not valid at 'health"):
        parse_report(json.dumps(saved_by_version_1() | {"health": health}))
