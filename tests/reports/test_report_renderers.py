"""Every renderer shows every number and says what is missing, without torch or the engine."""

import html
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import pytest
from golden import golden

from audit.schema import ScanReport
from reports import RENDERERS, summary, terminal
from reports.numbers import NOT_MEASURED, Bracket

Path_ = tuple[str | int, ...]

PROPORTIONS = {"attacked", "certified", "clean"}


def visible(page: str) -> str:
    """What a reader sees of a page: no scripts, no styles, no tags."""
    page = re.sub(r"(?s)<(script|style|head)\b.*?</\1>", " ", page)
    return html.unescape(re.sub(r"(?s)<[^>]*>", " ", page))


def shown(name: str, report: ScanReport) -> str:
    """The text of a format, white space collapsed: a terminal may break between words."""
    if name == "html":
        return visible(RENDERERS["html"](report))
    return " ".join(terminal.render(report, width=WIDTHS[name]).split())


WIDTHS = {"60 columns": 60, "80 columns": 80, "120 columns": 120, "240 columns": 240}
FORMATS_SHOWN = ["html", *WIDTHS]


def leaves(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, int | float]]:
    """Every number of a document, with the keys that lead to it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


def rounded(value: float, quantum: Decimal, mode: str) -> str:
    return f"{Decimal(repr(float(value))).quantize(quantum, rounding=mode):f}"


def digits(value: float, mode: str, count: int = 4) -> str:
    number = Decimal(repr(float(value)))
    if not number:
        return "0"
    text = rounded(value, Decimal(1).scaleb(number.adjusted() - count + 1), mode)
    return text if abs(number) >= Decimal("1e-4") else f"{Decimal(text):.{count - 1}e}"


def wanted(path: Path_, value: float, metric: str) -> str:
    """The text that a number must appear as; written apart from the code it tests."""
    parents, field = set(path), path[-1]
    if path[0] in ("config", "environment") or "input" in parents or path[0] == "gates":
        return repr(value).removesuffix(".0")
    if path[0] == "health":
        return f"{value:,}" if isinstance(value, int) else digits(value, ROUND_HALF_EVEN)
    if "edges" in parents:
        return repr(value).removesuffix(".0")
    if "confidences" in parents:
        return rounded(100 * value, Decimal("0.1"), ROUND_HALF_EVEN)
    if field == "confidence":
        return f"{round(100 * value)} %"
    if field == "delta":
        return f"{round(255 * value)}/255" if metric == "linf" else repr(value).removesuffix(".0")
    if isinstance(value, int):
        return str(value) if field in ("index", "label", "prediction") else f"{value:,}"
    if "quantiles" in parents:
        return digits(value, ROUND_CEILING if "attacked" in parents else ROUND_FLOOR)
    if "upsilon" in parents or "value_at_zero" in parents:
        modes = {"low": ROUND_FLOOR, "value": ROUND_HALF_EVEN, "high": ROUND_CEILING}
        return digits(value, modes[str(field)])
    if field in ("attained", "first_order", "bounded"):
        modes = {"attained": ROUND_FLOOR, "first_order": ROUND_HALF_EVEN, "bounded": ROUND_CEILING}
        return digits(value, modes[str(field)])
    if field == "seconds":
        return digits(value, ROUND_CEILING, 3) + " s"
    if field in ("distance", "max_abs_difference", "failure_probability"):
        return digits(value, ROUND_CEILING)
    if path == ("generator", "radius"):
        return repr(value)
    if field in ("smallest", "mean", "largest"):
        modes = {"smallest": ROUND_FLOOR, "mean": ROUND_HALF_EVEN, "largest": ROUND_CEILING}
        return digits(value, modes[str(field)])
    percent = Decimal(repr(value)) * 100
    up = field in ("high", "upper") or (
        field == "value" and bool({"attacked", "generator"} & parents)
    )
    return f"{percent.quantize(Decimal('0.1'), ROUND_CEILING if up else ROUND_FLOOR):f}"


def metric_of(document: dict[str, Any], path: Path_) -> str:
    return document["threats"][path[1]]["metric"] if path[0] == "threats" else ""


@pytest.mark.parametrize("name", FORMATS_SHOWN)
def test_every_number_is_shown(name: str) -> None:
    report = golden()
    document = report.model_dump(mode="json")
    text = shown(name, report)
    missing = []
    for path, value in leaves(document):
        token = wanted(path, value, metric_of(document, path))
        if path != ("schema_version",) and not re.search(
            rf"(?<![\d.,]){re.escape(token)}(?![\d]|[.,]\d)", text
        ):
            missing.append((path, value, token))
    assert not missing


def test_json_holds_every_number() -> None:
    document = golden().model_dump(mode="json")
    assert json.loads(RENDERERS["json"](golden())) == document


def one_of_each(document: dict[str, Any]) -> list[Path_]:
    """A path for each kind of number: the first entry of every list."""
    kinds = [path for path, _ in leaves(document) if all(p == 0 for p in path if type(p) is int)]
    later = [("threats", 1, *path[2:]) for path in kinds if path[:2] == ("threats", 0)]
    first_order = [
        ("threats", 0, "curves", 1, "points", 0, "first_order", field)
        for field in ("upper", "lower_value", "lower_slope")
    ]
    return [path for path in kinds + later + first_order if path[0] != "schema_version"]


def replaced(document: dict[str, Any], path: Path_, change: Callable[[Any], Any]) -> ScanReport:
    copy = json.loads(json.dumps(document))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = change(place[path[-1]])
    return ScanReport.model_validate(copy)


@pytest.mark.parametrize("name", FORMATS_SHOWN)
def test_no_number_can_change_unseen(name: str) -> None:
    """Stronger than presence: another number of the same look cannot stand in for a lost one."""
    document = golden().model_dump(mode="json")
    before = shown(name, golden())
    unseen = [
        path
        for path in one_of_each(document)
        if shown(name, replaced(document, path, lambda v: v + 3 if type(v) is int else v + 0.1111))
        == before
    ]
    assert not unseen


def blank(value: Any) -> Any:
    """The same document with nothing measured, wherever the report allows that."""
    if isinstance(value, list):
        return [blank(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "quantiles" in value:
        return {"quantiles": dict.fromkeys(value["quantiles"])}
    interval = {"value", "low", "high"} <= set(value)
    empty = NULLABLE | ({"value", "low", "high"} if interval else set())
    return {key: None if key in empty else blank(item) for key, item in value.items()}


NULLABLE = {
    *("broken", "forwards", "gradients", "seconds", "upper", "lower_value", "lower_slope"),
    *("confidences", "histogram"),
}


@pytest.mark.parametrize("name", FORMATS_SHOWN)
def test_what_was_not_measured_is_never_zero(name: str) -> None:
    document = blank(golden().model_dump(mode="json"))
    document["health"] = document["warnings"] = []
    document["model"]["parity"] = None
    text = shown(name, ScanReport.model_validate(document))
    assert "not measured" in text
    assert not re.search(r"\d\.\d %|(?<![\d.])0\.0(?!\d)", text)


@pytest.mark.parametrize("name", sorted(RENDERERS))
def test_a_bare_report_renders(name: str) -> None:
    """Nothing but the model: no threats, checks, gates, pictures or settings."""
    report = golden().model_copy(
        update={
            "threats": [],
            "health": [],
            "gates": [],
            "warnings": [],
            "config": {},
            "environment": {},
            "status": "interrupted",
            "verdict": "none",
            "artifacts": golden().artifacts.model_copy(update={"gallery": []}),
        }
    )
    text = RENDERERS[name](report)
    assert "interrupted" in text.lower()
    threat = golden().threats[0].model_copy(update={"curves": [], "attacks": [], "sensitivity": []})
    if name not in ("junit", "sarif"):  # those hold gates and health alone
        assert "linf" in RENDERERS[name](report.model_copy(update={"threats": [threat]}))


@pytest.mark.parametrize("name", sorted(RENDERERS))
def test_rendering_is_a_pure_function(name: str) -> None:
    report = golden()
    before = report.model_dump_json()
    assert RENDERERS[name](report) == RENDERERS[name](golden())
    assert report.model_dump_json() == before


def test_renderers_load_neither_torch_nor_their_tools_before_use() -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import reports
heavy = {{"torch", "jinja2", "plotly", "rich", "numpy", "scipy"}} & set(sys.modules)
assert not heavy, heavy
from golden import golden
for render in reports.RENDERERS.values():
    render(golden())
engine = [name for name in sys.modules if name.startswith(("torch", "attackers", "audit."))]
here = ("audit.schema", "audit.errors", "audit.version")
assert all(name.startswith(here) for name in engine), engine
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_headline_claims_only_the_side_that_was_measured() -> None:
    line = summary.headline(golden().threats[0])
    assert line is not None
    empty = Bracket(NOT_MEASURED, "")
    assert (
        summary.bracket_sentence(line) == "at least 2.4 % (certified) and at most 65.2 % (attacked)"
    )
    assert summary.bracket_sentence(replace(line, certified=empty)).startswith(
        "at most 65.2 % (attacked);"
    )
    assert summary.bracket_sentence(replace(line, attacked=empty)).startswith(
        "at least 2.4 % (certified);"
    )
    assert summary.bracket_sentence(replace(line, attacked=empty, certified=empty)) == NOT_MEASURED


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/b.onnx", "b.onnx"), ("C:\\models\\b.onnx", "b.onnx"), ("b.onnx", "b.onnx"), ("/", "/")],
)
def test_file_names_of_any_system(path: str, name: str) -> None:
    assert summary.file_name(path) == name
