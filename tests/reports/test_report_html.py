"""The page is one small file, inert whatever it quotes, and draws its charts in a real browser."""

import base64
import gzip
import html
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from golden import HOSTILE_IMAGE, golden

from audit.schema import GalleryItem, ScanReport
from reports.charts import chart_data
from reports.html import GALLERY_BYTES, render

PAGE = render(golden())
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")


class Outline(HTMLParser):
    """Collects what the tests ask about: elements with their attributes, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def with_gallery(items: list[GalleryItem]) -> ScanReport:
    report = golden()
    artifacts = report.artifacts.model_copy(update={"gallery": items})
    return report.model_copy(update={"artifacts": artifacts})


def test_the_page_is_small_even_with_a_large_gallery() -> None:
    item = golden().artifacts.gallery[0]
    large = item.model_copy(update={"original": item.original[:-4] + "A" * 200_000})
    page = render(with_gallery([large] * 40))
    assert len(page.encode()) < 5_000_000
    assert 5 < page.count('class="triple"') <= GALLERY_BYTES // 200_000
    assert "more entries are left out" in page
    assert len(PAGE.encode()) < 2_500_000


def test_the_page_asks_the_network_for_nothing() -> None:
    for _, attributes in Outline(PAGE).elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/png;base64,"))
    policy = next(m["content"] for m in Outline(PAGE).all("meta") if m.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1]


def test_nothing_quoted_becomes_markup() -> None:
    outline = Outline(PAGE)
    assert len(outline.all("script")) == 3
    assert {i["src"].split(",")[0] for i in outline.all("img")} == {"data:image/png;base64"}
    assert not [a for _, attributes in outline.elements for a in attributes if a.startswith("on")]
    assert "<script>document" not in PAGE
    assert "<img src=x" not in PAGE
    assert "{{ 7*7 }}" in PAGE  # quoted, not evaluated


def test_the_data_island_cannot_be_left() -> None:
    report = golden()
    hostile = "</script><script>window.owned=1</script>\u2028<!--"
    threat = report.threats[0].model_copy(
        update={
            "unit": hostile,
            "metric": hostile,
            "curves": [report.threats[0].curves[0].model_copy(update={"order": hostile})],
        }
    )
    page = render(report.model_copy(update={"threats": [threat]}))
    island = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page)
    assert island is not None
    assert not set("<>&\u2028\u2029") & set(island.group(1))
    assert json.loads(island.group(1))[0]["unit"] == hostile
    assert len(Outline(page).all("script")) == 3


@pytest.mark.parametrize(
    "uri",
    [
        "javascript:alert(1)",
        "https://example.org/a.png",
        "data:text/html;base64,PHNjcmlwdD4=",
        "data:image/svg+xml;base64,PHN2Zz4=",
        'data:image/png;base64,AAAA" onerror="alert(1)',
        "DATA:image/png;base64,AAAA",
        "",
    ],
)
def test_only_png_data_becomes_a_picture(uri: str) -> None:
    item = golden().artifacts.gallery[0].model_copy(update={"adversarial": uri})
    page = render(with_gallery([item]))
    assert len(Outline(page).all("img")) == 2
    assert "no picture" in page


def test_charts_hold_every_curve_with_rounded_labels() -> None:
    data = chart_data(golden())
    assert [chart["metric"] for chart in data] == ["linf", "l2"]
    assert [chart["suffix"] for chart in data] == ["/255", ""]
    for chart, threat in zip(data, golden().threats, strict=True):
        for drawn, curve in zip(chart["orders"], threat.curves, strict=True):
            for side in ("attacked", "certified"):
                values = [getattr(point, side).value for point in curve.points]
                assert drawn[side]["value"] == pytest.approx([100 * value for value in values])
                for label, value in zip(drawn[side]["label"], values, strict=True):
                    outward = float(label.split()[0]) - 100 * value
                    assert 0 <= (outward if side == "attacked" else -outward) + 1e-9 <= 0.1 + 1e-9


def test_the_page_is_labelled_for_everyone() -> None:
    outline = Outline(PAGE)
    assert outline.all("html") == [{"lang": "en"}]
    assert all(image.get("alt") for image in outline.all("img"))
    assert all(header.get("scope") for header in outline.all("th"))
    assert len(outline.all("caption")) == len(outline.all("table")) > 10
    assert len(outline.all("h1")) == 1
    ids = [a["id"] for _, a in outline.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in outline.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name, ids[0]) in ids
    for link in outline.all("a"):
        assert str(link["href"]).removeprefix("#") in ids


def test_the_library_inside_is_the_installed_one() -> None:
    packed = re.search(r'id="library">(.*?)</script>', PAGE)
    assert packed is not None
    assert b"plotly.js v" in gzip.decompress(base64.b64decode(packed.group(1)))[:200]


FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=20000",
    "--dump-dom",
]


def browse(page: str, folder: Path) -> tuple[str, str]:
    """The document after its scripts ran, and what the console said."""
    assert CHROMIUM is not None
    file = folder / "report.html"
    file.write_text(page, encoding="utf-8")
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(console)


browser = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium: set CHROMIUM to its path or install it"
)


def drawn_lines(dom: str) -> int:
    return len(re.findall(r'<path class="js-line"', dom))


@browser
def test_charts_are_drawn_and_quoted_scripts_stay_text(tmp_path: Path) -> None:
    dom, console = browse(PAGE, tmp_path)
    assert not console
    assert 'data-charts="drawn"' in dom
    assert dom.count('<g class="cartesianlayer">') == 4  # curves and radii of both metrics
    assert drawn_lines(dom) >= 2 * 3 * 2  # metrics, orders, sides
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None
    assert html.unescape(title.group(1)) == f"Robustness audit: lenet {HOSTILE_IMAGE}.onnx"
    assert not re.search(r'<fieldset class="switch" hidden', dom)


@browser
def test_one_order_shows_its_estimates_and_marks_violations(tmp_path: Path) -> None:
    chosen = PAGE.replace('value="all" checked', 'value="all"').replace(
        'name="threat-1-order" value="1"', 'name="threat-1-order" value="1" checked'
    )
    dom, console = browse(chosen, tmp_path)
    assert not console
    assert "violated estimate" in dom
    assert "by slope" in dom
    assert "order 2, attacked" in dom


@browser
@pytest.mark.parametrize("damage", ["AAAA", "!"])
def test_without_its_library_the_page_says_so(damage: str, tmp_path: Path) -> None:
    page = re.sub(r'(id="library">)[^<]*', rf"\g<1>{damage}", PAGE)
    dom, _ = browse(page, tmp_path)
    assert 'data-charts="drawn"' not in dom
    assert "The chart could not be drawn" in dom
    assert "The table below holds the same numbers" in dom


@browser
def test_foreign_names_in_charts_stay_text(tmp_path: Path) -> None:
    report = golden()
    curves: list[Any] = [
        curve.model_copy(update={"order": f"{curve.order}<b>{HOSTILE_IMAGE}"})
        for curve in report.threats[0].curves
    ]
    threat = report.threats[0].model_copy(update={"metric": HOSTILE_IMAGE, "curves": curves})
    dom, console = browse(render(report.model_copy(update={"threats": [threat]})), tmp_path)
    assert not console
    assert 'data-charts="drawn"' in dom
    assert "<title>owned" not in dom
    assert "<img src=" not in dom.replace('<img src="data:image/png;base64,', "")
