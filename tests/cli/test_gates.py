"""Gates and comparisons from the command line: files, exit codes, and what is refused."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import tiny
from command import audit, scan

SHAPE = (1, 4, 5)
OPTIONS = ("--threat", "linf", "--delta", "0.01,0.05", "--order", "inf,2", "--effort", "quick")


@dataclass(frozen=True)
class Case:
    folder: Path
    model: Path
    data: Path

    def policy(self, text: str) -> Path:
        path = self.folder / "audit.toml"
        path.write_text(text, encoding="utf-8")
        return path

    @property
    def report(self) -> Path:
        return self.folder / "good" / "report.json"

    @property
    def worse(self) -> Path:
        return self.folder / "worse" / "report.json"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("gates")
    shown = tiny.patterns(SHAPE)
    weight, bias = tiny.matched(shown)
    model = tiny.write_linear(folder / "m.onnx", weight, bias, shape=("n", *SHAPE))
    rough = np.random.default_rng(0).normal(size=weight.shape).astype(np.float32)
    other = tiny.write_linear(
        folder / "w.onnx", weight + 0.5 * (rough - rough.mean(0)), bias, shape=("n", *SHAPE)
    )
    data = tiny.write_data(folder / "d.npz", *tiny.noisy(shown, 200))
    scan(model, data, *OPTIONS, out=folder / "good")
    scan(other, data, *OPTIONS, out=folder / "worse")
    return Case(folder, model, data)


def test_a_policy_that_changes_during_the_scan_counts_as_it_was_read(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from audit.scanning import scan as module

    policy = case.policy('[gates]\nerror = ["clean >= 0.5"]')
    run = module.run

    def and_the_file_goes(*given: object) -> object:
        policy.unlink()
        return run(*given)

    monkeypatch.setattr(module, "run", and_the_file_goes)
    words = (*OPTIONS, "--policy", policy, "--samples", "40", "--certify", "none")
    report = scan(case.model, case.data, *words, out=tmp_path / "out")
    assert [gate["expression"] for gate in report["gates"]] == ["clean >= 0.5"]
    assert report["config"]["policy"] == str(policy)


def test_the_radii_of_a_baseline_are_read_before_the_scan(case: Case, tmp_path: Path) -> None:
    alone = tmp_path / "report.json"
    alone.write_bytes(case.report.read_bytes())
    outcome = audit("scan", case.model, "--data", case.data, "--baseline", alone, *OPTIONS)
    assert outcome.code == 2
    assert "samples.csv" in outcome.err
    assert not Path("audit-report").exists()


def test_a_scan_judged_by_a_file_and_written_in_every_format(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    policy = case.policy('[gates]\nerror = ["clean >= 0.5", "attacked.linf@0.05 >= 0.99"]')
    kinds = ("html", "json", "junit", "sarif", "markdown")
    files = [word for kind in kinds for word in (f"--{kind}", str(tmp_path / kind))]
    document = scan(
        case.model, case.data, *OPTIONS, "--policy", policy, *files, out=tmp_path / "out", code=1
    )
    assert [gate["status"] for gate in document["gates"]] == ["pass", "fail"]
    assert document["verdict"] == "fail"
    assert document["config"]["policy"] == str(policy)
    saved = tmp_path / "out" / "report.json"
    for kind in kinds:
        again = audit("report", saved, "--format", kind)
        assert again.code == 0
        assert again.out == (tmp_path / kind).read_text(encoding="utf-8"), kind
    assert ET.parse(tmp_path / "junit").getroot().get("failures") == "1"
    written = summary.read_text()
    assert written.startswith("before\n")
    assert written.endswith((tmp_path / "markdown").read_text())


def test_a_saved_report_is_judged_without_the_model(case: Case, tmp_path: Path) -> None:
    passing = case.policy('[gates]\nerror = ["clean >= 0.5"]')
    outcome = audit("gate", case.report, "--policy", passing)
    assert outcome.code == 0
    assert outcome.out.startswith("pass         clean >= 0.5 (measured ")
    failing = case.policy('[gates]\nerror = ["clean >= 0.999", "attacked.l2@1 >= 0"]')
    outcome = audit("gate", case.report, "--policy", failing, "--junit", tmp_path / "j.xml")
    assert outcome.code == 1
    assert "Not measured: l2 was not scanned" in outcome.out
    assert ET.parse(tmp_path / "j.xml").getroot().get("failures") == "2"
    assert audit("gate", case.report, "--policy", failing, "--exit-zero").code == 0
    warning = case.policy('[gates]\nwarn = ["clean >= 0.999"]')
    assert audit("gate", case.report, "--policy", warning).code == 0


def test_a_saved_report_needs_no_engine(case: Case, tmp_path: Path) -> None:
    """Rendering and judging are quick: nothing but the report is loaded, files written included."""
    policy = case.policy('[gates]\nerror = ["clean >= 0.5"]')
    lines = (
        ("report", case.report, "--format", "html", "--out", tmp_path / "a.html"),
        ("gate", case.report, "--policy", policy, "--junit", tmp_path / "a.xml"),
    )
    for words in lines:
        code = f"""
import sys
from audit.cli import main
sys.argv[1:] = {[str(word) for word in words]!r}
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {{"torch", "attackers", "scipy", "numpy", "onnx"}} & set(sys.modules)
assert not heavy, heavy
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"a.html", "a.xml"}


def test_certified_accuracies_are_compared_only_where_both_were_measured(
    case: Case, tmp_path: Path
) -> None:
    off = tmp_path / "off" / "report.json"
    scan(case.model, case.data, *OPTIONS, "--certify", "none", out=off.parent)
    known = {"value", "low", "high"}
    for old, new, measured in ((case.report, case.worse, True), (case.report, off, False)):
        compared = json.loads(audit("compare", old, new, "--format", "json").out)
        for change in compared["changes"]:
            assert all(change["attacked"][end] is not None for end in known)
            assert all((change["certified"][end] is not None) == measured for end in known)
    assert "not measured" in audit("compare", off, case.report).out


def test_waivers(case: Case) -> None:
    text = '[gates]\nerror = ["clean >= 0.999"]\n[[waivers]]\ngate = "clean >= 0.999"\n'
    kept = case.policy(text + 'reason = "ticket"\nexpires = 2999-01-01\n')
    outcome = audit("gate", case.report, "--policy", kept)
    assert outcome.code == 0
    assert "Waived until 2999-01-01: ticket." in outcome.out
    gone = case.policy(text + 'reason = "ticket"\nexpires = 2020-01-01\n')
    outcome = audit("gate", case.report, "--policy", gone)
    assert outcome.code == 1
    assert "expired on 2020-01-01" in outcome.out


def test_a_mistake_in_the_policy_costs_no_scan(case: Case, tmp_path: Path) -> None:
    policy = case.policy('[gates]\nerror = ["clean > 0.5"]')
    outcome = audit(
        "scan", case.model, "--data", case.data, "--policy", policy, "--out", tmp_path / "out"
    )
    assert outcome.code == 2
    assert "is not a valid condition" in outcome.err
    assert not (tmp_path / "out").exists()


def test_two_reports_are_compared_in_pairs(case: Case, tmp_path: Path) -> None:
    same = audit("compare", case.report, case.report, "--max-regression", "0")
    assert same.code == 0
    assert "+0.0 [+0.0, +0.0]" in same.out
    worse = audit(
        "compare", case.report, case.worse, "--max-regression", "0.02", "--format", "json",
        "--out", tmp_path / "c.json",
    )  # fmt: skip
    assert worse.code == 1
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["status"] == "fail"
    at = {(c["metric"], c["order"], c["delta"]): c["attacked"] for c in found["changes"]}
    change = at[("linf", "inf", 0.05)]
    assert change["high"] < -0.02
    assert change["low"] <= change["value"] <= change["high"]
    assert set(at) == {("linf", o, d) for o in ("inf", "2") for d in (0.01, 0.05)}
    reports = [json.loads(path.read_text()) for path in (case.report, case.worse)]
    for (metric, order, delta), difference in at.items():
        values = [
            next(
                p["attacked"]["value"]
                for t in r["threats"] if t["metric"] == metric
                for c in t["curves"] if c["order"] == order
                for p in c["points"] if p["delta"] == delta
            )
            for r in reports
        ]  # fmt: skip
        assert difference["value"] == pytest.approx(values[1] - values[0])
    better = audit("compare", case.worse, case.report, "--max-regression", "0.02")
    assert better.code == 0
    markdown = audit("compare", case.report, case.worse, "--format", "markdown")
    assert "| linf | pointwise" in markdown.out or "| linf |" in markdown.out


def test_scans_that_were_not_alike_say_so(case: Case, tmp_path: Path) -> None:
    other = changed(case, tmp_path / "a", config__effort="max", tool__version="9.9")
    for format in ("text", "markdown", "html", "json"):
        said = audit("compare", case.report, other, "--format", format).out
        assert "effort was quick before and is max now" in said.replace("\\", "")
        assert "9.9" in said
    alike = json.loads(audit("compare", case.report, case.worse, "--format", "json").out)
    assert not alike["notes"]


def changed(case: Case, folder: Path, **update: object) -> Path:
    document = json.loads(case.worse.read_text())
    for key, value in update.items():
        place = document
        *parents, last = key.split("__")
        for parent in parents:
            place = place[parent]
        place[last] = value
    folder.mkdir()
    (folder / "samples.csv").write_bytes((case.worse.parent / "samples.csv").read_bytes())
    (folder / "report.json").write_text(json.dumps(document))
    return folder / "report.json"


def test_what_cannot_be_compared_is_refused(case: Case, tmp_path: Path) -> None:
    cases = {
        "different data": changed(case, tmp_path / "a", data__sha256="0" * 64),
        "share no threat": changed(case, tmp_path / "b", threats=[]),
        "--low differs": changed(case, tmp_path / "c", model__input__low=-1.0),
        "--smooth differs": changed(case, tmp_path / "d", model__smoothed=0.5),
    }
    for message, path in cases.items():
        outcome = audit("compare", case.report, path)
        assert outcome.code == 2, message
        assert message in outcome.err
    fewer = changed(case, tmp_path / "h")
    document = json.loads(fewer.read_text())
    del document["threats"][0]["curves"][0]["points"][-1]
    fewer.write_text(json.dumps(document))
    outcome = audit("compare", case.report, fewer)
    assert outcome.code == 2
    assert "for example linf at order inf, delta 0.05" in outcome.err
    lonely = changed(case, tmp_path / "e")
    (lonely.parent / "samples.csv").unlink()
    assert "needs the samples.csv" in audit("compare", case.report, lonely).err
    short = changed(case, tmp_path / "f")
    table = (short.parent / "samples.csv").read_text().splitlines()
    (short.parent / "samples.csv").write_text("\n".join(table[:-1]))
    assert "not belong together" in audit("compare", case.report, short).err
    moved = changed(case, tmp_path / "g")
    moved_rows = [table[0], *(f"9{line}" for line in table[1:])]
    (moved.parent / "samples.csv").write_text("\n".join(moved_rows))
    assert "different samples" in audit("compare", case.report, moved).err


@pytest.mark.parametrize("content", ["", "{", '{"schema_version": 99}', '{"a": 1}', "\xff"])
def test_reports_that_are_none(case: Case, tmp_path: Path, content: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(content, encoding="latin-1")
    policy = case.policy('[gates]\nerror = ["clean >= 0.5"]')
    for words in (("gate", path, "--policy", policy), ("compare", path, case.report)):
        outcome = audit(*words)
        assert outcome.code == 2
        assert outcome.err.count("\n") == 1
