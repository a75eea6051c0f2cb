"""Null means 'not measured' in every renderer: it is never shown, drawn or sorted as zero."""

import json
import re
from pathlib import Path

import pytest
from golden import golden

from audit.schema import (
    ClassResult,
    Comparison,
    HardenedThreat,
    HardenReport,
    Interval,
    Paired,
    PairedPoint,
    Point,
    ScanReport,
    ThreatChange,
    ThreatResult,
)
from reports import RENDERERS, comparison, hardening, threat_rows

UNKNOWN = Interval(value=None, low=None, high=None)
PAIRED = Paired(
    before=0.9, after=0.8, gained=1, lost=11, p_value=0.01,
    difference=Interval(value=-0.1, low=-0.2, high=-0.01),
)  # fmt: skip


def without(threat: ThreatResult, side: str) -> ThreatResult:
    """The same with one side of every curve not measured."""

    def unknown(point: Point) -> Point:
        return point.model_copy(update={side: UNKNOWN})

    curves = [
        curve.model_copy(update={"points": [unknown(point) for point in curve.points]})
        for curve in threat.curves
    ]
    return threat.model_copy(update={"curves": curves})


def hardened(before: ThreatResult, after: ThreatResult) -> HardenReport:
    points = [
        PairedPoint(delta=point.delta, attacked=PAIRED, certified=PAIRED)
        for point in before.curves[0].points
        if point.delta > 0
    ]
    report = golden()
    return HardenReport(
        tool=report.tool, created=report.created, model="m.onnx", sha256="0" * 64,
        hardened="out/m.onnx", hardened_sha256="1" * 64, format="onnx", method="pgd", config={},
        confidence=0.95, samples=100, clean=PAIRED,
        threats=[HardenedThreat(radius=0.1, before=before, after=after, paired=points)],
        epochs=[], best_epoch=1, seconds=1.0, parity=1e-6, trained=["w"], frozen=[],
        reliability=("GREEN", "GREEN"), notes=[], warnings=[],
    )  # fmt: skip


def test_a_certified_accuracy_that_was_not_measured_is_no_zero_beside_a_hardened_one() -> None:
    before = golden().threats[0]
    report = hardened(before, without(before, "certified"))
    found = list(hardening.finite_order_rows(report.threats[0]))
    assert found
    for *_, proven, proven_after in found:
        assert re.fullmatch(r"\d+\.\d %", proven)
        assert proven_after == "not measured"
    page = hardening.hardening_html(report)
    at_inf = list(hardening.hardening_rows(report.threats[0]))
    assert all(row[-1] == "not measured" for row in at_inf)
    assert page.count('<td class="n">not measured</td>') == len(found) + len(at_inf)


@pytest.mark.parametrize(("name", "status"), [("trivial", "ran"), ("crown", "not_applicable")])
def test_a_certificate_that_was_not_tried_is_neither_shown_nor_drawn(
    name: str, status: str
) -> None:
    before = golden().threats[0]
    off = before.certifier.model_copy(update={"name": name, "status": status})
    report = hardened(before, before.model_copy(update={"certifier": off}))
    for row in (
        *hardening.hardening_rows(report.threats[0]),
        *hardening.finite_order_rows(report.threats[0]),
    ):
        assert row[-2].endswith(" %")
        assert row[-1] == "not measured"
    assert "% -> not measured" in hardening.hardening_text(report)
    page = hardening.hardening_html(report)
    assert '"certified, before"' in page
    assert '"certified, after"' not in page


@pytest.mark.parametrize("side", ["attacked", "certified"])
@pytest.mark.parametrize("name", ["html", "text", "markdown"])
def test_a_side_of_the_bracket_that_was_not_measured_is_no_zero(name: str, side: str) -> None:
    report = golden()
    threats = [without(threat, side) for threat in report.threats]
    rendered = RENDERERS[name](report.model_copy(update={"threats": threats}))
    known = RENDERERS[name](report)
    assert rendered.count("not measured") >= known.count("not measured") + len(threats)
    zero = r"(?<![\d.])0(\.0+)? ?%"
    assert len(re.findall(zero, rendered)) <= len(re.findall(zero, known))


def meters(report: ScanReport) -> list[str]:
    return re.findall(r'class="meter".*', RENDERERS["html"](report))


def test_no_meter_is_drawn_for_what_was_not_measured() -> None:
    report = golden()
    assert len(meters(report)) == 1 + len(report.threats)
    clean = report.clean.model_copy(update={"value": None, "low": None, "high": None})
    assert len(meters(report.model_copy(update={"clean": clean}))) == len(report.threats)
    for side in ("attacked", "certified"):
        threats = [without(threat, side) for threat in report.threats]
        assert len(meters(report.model_copy(update={"threats": threats}))) == 1


def test_a_class_that_was_not_measured_is_not_the_worst() -> None:
    threat = golden().threats[0]
    first, *others = threat.classes
    points = [point.model_copy(update={"attacked": UNKNOWN}) for point in first.points]
    unmeasured: ClassResult = first.model_copy(update={"points": points})
    assert points
    assert others
    ordered = threat_rows.worst_classes(
        threat.model_copy(update={"classes": [unmeasured, *others]})
    )
    assert ordered[-1] == unmeasured


@pytest.mark.parametrize("name", sorted(comparison.COMPARISON_RENDERERS))
def test_a_difference_that_was_not_measured_is_no_zero(name: str) -> None:
    known = Interval(value=-0.123, low=-0.2, high=-0.1)
    change = ThreatChange(metric="l2", order="2", delta=0.5, attacked=known, certified=UNKNOWN)
    found = Comparison(
        old="a.onnx", new="b.onnx", confidence=0.95, samples=100, clean=PAIRED, changes=[change],
        limit=None, status="none", worst=-0.2,
    )  # fmt: skip
    rendered = comparison.COMPARISON_RENDERERS[name](found)
    if name == "json":
        assert json.loads(rendered)["changes"][0]["certified"]["value"] is None
        return
    assert "-12.3" in rendered
    assert "not measured" in rendered
    assert "?" not in re.sub(r"<[^>]*>", "", rendered)


def test_the_source_of_renderers_turns_no_null_into_zero() -> None:
    folder = Path(hardening.__file__).parent
    zero = re.compile(r"\bor 0(\.0)?\b|\|\| ?0\b|default\(0|if \w+ else 0(\.0)?\b")
    for path in (*folder.glob("*.py"), *(folder / "templates").glob("*.j2")):
        allowed = {"comparison.py": 1}.get(path.name, 0)  # a limit: how far the axis reaches
        assert len(zero.findall(path.read_text(encoding="utf-8"))) == allowed, path
