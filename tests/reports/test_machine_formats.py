"""JUnit, SARIF and Markdown: well-formed, what readers expect, nothing of the user's as markup."""

import json
import re
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET

import pytest
from golden import HOSTILE, HOSTILE_IMAGE, golden

from reports import RENDERERS

ATTRIBUTES = {
    "testsuites": {"name", "time", "tests", "failures", "errors"},
    "testsuite": {
        "name", "tests", "failures", "errors", "group", "time", "skipped", "timestamp", "hostname",
        "id", "package", "file", "log", "url",
    },
    "testcase": {"name", "time", "classname", "group"},
    "failure": {"type", "message"},
    "error": {"type", "message"},
    "skipped": {"type", "message"},
    "system-out": set(),
}  # fmt: skip
"""What the schema that Jenkins publishes allows."""


def test_junit_is_what_its_readers_expect() -> None:
    root = ET.fromstring(RENDERERS["junit"](golden()))
    for element in root.iter():
        assert set(element.attrib) <= ATTRIBUTES[element.tag], element.tag
    suites = {suite.get("name", "").split()[0]: suite for suite in root}
    assert list(suites) == ["audit.scan", "audit.gates", "audit.health"]
    gates = suites["audit.gates"]
    assert (gates.get("tests"), gates.get("failures"), gates.get("errors")) == ("4", "1", "1")
    assert gates.get("skipped") == "1"
    assert suites["audit.scan"].get("errors") == "1", "the golden scan is partial"
    assert suites["audit.health"].get("errors") == "2", "one failed, one stopped"
    assert root.get("tests") == str(sum(len(suite) for suite in root))
    outcome = {case.get("name"): [child.tag for child in case] for case in gates.iter("testcase")}
    assert outcome["clean >= 0.97"] == []
    assert outcome["attacked.l1@2 >= 0.5"] == ["error"]
    assert outcome["certified.l2@0.5 >= 0.9"] == ["skipped"]


def test_junit_holds_no_character_that_xml_has_not() -> None:
    made = golden().model_copy(update={"warnings": []})
    health = made.health[0].model_copy(update={"status": "fail", "finding": "a\x00b\x1b[31m\uffff"})
    text = RENDERERS["junit"](made.model_copy(update={"health": [health]}))
    ET.fromstring(text)
    assert "\x1b" not in text


def test_sarif_has_one_result_per_gate_on_the_whole_file() -> None:
    log = json.loads(RENDERERS["sarif"](golden()))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    results = [entry for entry in run["results"] if entry["ruleId"].startswith("gate/")]
    assert [entry["level"] for entry in results] == ["none", "error", "warning", "note"]
    assert [entry["kind"] for entry in results] == ["pass", "fail", "fail", "fail"]
    assert "suppressions" in results[3]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    for entry in run["results"]:
        assert rules[entry["ruleIndex"]] == entry["ruleId"]
        (place,) = entry["locations"]
        assert set(place["physicalLocation"]) == {"artifactLocation"}, "no region in a binary file"
    assert run["artifacts"][0]["hashes"]["sha-256"] == golden().model.sha256
    assert run["invocations"][0]["executionSuccessful"] is False
    assert " " not in run["artifacts"][0]["location"]["uri"]


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("models/net.onnx", "models/net.onnx"),
        ("net:v1.onnx", "net%3Av1.onnx"),
        ("mailto:a/net.onnx", "mailto%3Aa/net.onnx"),
        ("a b/100%#?.onnx", "a%20b/100%25%23%3F.onnx"),
        ("/models/net:v1.onnx", "/models/net%3Av1.onnx"),
        ("//models/net.onnx", "/models/net.onnx"),
        ("sub\\net.onnx", "sub/net.onnx"),
        ("C:\\models\\a b:.onnx", "file:///C:/models/a%20b%3A.onnx"),
        ("\\\\host\\share\\net 1.onnx", "file://host/share/net%201.onnx"),
    ],
)
def test_the_artifact_of_sarif_is_a_uri_of_the_same_file(path: str, uri: str) -> None:
    report = golden()
    model = report.model.model_copy(update={"path": path})
    (run,) = json.loads(RENDERERS["sarif"](report.model_copy(update={"model": model})))["runs"]
    locations = [run["artifacts"][0]["location"]] + [
        entry["locations"][0]["physicalLocation"]["artifactLocation"] for entry in run["results"]
    ]
    assert {entry["uri"] for entry in locations} == {uri}
    parts = urlsplit(uri)
    if not parts.scheme:
        assert parts.netloc == parts.query == parts.fragment == ""
        assert unquote(parts.path) == re.sub("^/+", "/", path.replace("\\", "/"))


def test_markdown_shows_gates_and_brackets_and_runs_nothing() -> None:
    text = RENDERERS["markdown"](golden())
    assert HOSTILE not in text
    assert HOSTILE_IMAGE not in text
    assert not re.search(r"(?<!\\)<(?!/?$)\w", text)
    assert "**Gates: FAIL**" in text
    for threat in golden().threats:
        assert f"### {threat.metric}" in text
    rows = [line for line in text.splitlines() if line.startswith("| 8/255")]
    assert len(rows) == 1
    assert rows[0].count("|") == 5


def test_markdown_fits_a_summary() -> None:
    many = golden().model_copy(update={"warnings": ["long " * 200] * 2000})
    text = RENDERERS["markdown"](many)
    assert len(text.encode()) < 2**20
    assert "This text was cut" in text
