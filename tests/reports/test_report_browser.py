"""The page as it is used: pointer, keyboard, screen reader, narrow and wide, day and night."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from golden import HOSTILE, HOSTILE_IMAGE, golden

from audit.schema import (
    Comparison,
    Epoch,
    HardenedThreat,
    HardenReport,
    Interval,
    Paired,
    PairedPoint,
    ThreatChange,
)
from reports.comparison import comparison_html
from reports.hardening import hardening_html
from reports.html import render

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the extra [dev]")
axe_api = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs [dev]")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium: set CHROMIUM to its path or install it"
)

WIDTHS = (400, 1600)
THEMES = ("light", "dark")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(render(golden()), encoding="utf-8")
    return file.as_uri()


def pairs(before: float, after: float) -> Paired:
    change = Interval(value=after - before, low=after - before - 0.02, high=after - before + 0.02)
    return Paired(before=before, after=after, gained=3, lost=41, difference=change, p_value=3e-7)


def comparison() -> Comparison:
    report = golden()
    return Comparison(
        old="old.onnx",
        new=f"new {HOSTILE_IMAGE}.onnx",
        confidence=0.95,
        samples=1000,
        clean=pairs(0.99, 0.98),
        changes=[
            ThreatChange(
                metric=threat.metric,
                order=curve.order,
                delta=point.delta,
                attacked=Interval(value=-0.03, low=-0.05, high=-0.01),
                certified=Interval(value=0.01, low=None, high=None),
            )
            for threat in report.threats
            for curve in threat.curves
            for point in curve.points
        ],
        limit=0.02,
        status="fail",
        worst=-0.05,
        notes=[f"--effort was quick before and is {HOSTILE} now"],
    )


def hardening() -> HardenReport:
    report = golden()
    before, after = report.threats[0], report.threats[0]
    return HardenReport(
        tool=report.tool,
        created=report.created,
        model=f"lenet {HOSTILE_IMAGE}.onnx",
        sha256="0" * 64,
        hardened="out/lenet.onnx",
        hardened_sha256="1" * 64,
        format="onnx",
        method="pgd",
        config={"epochs": 2, HOSTILE: HOSTILE},
        confidence=0.95,
        samples=1000,
        clean=pairs(0.98, 0.97),
        threats=[
            HardenedThreat(
                radius=0.1,
                before=before,
                after=after,
                paired=[
                    PairedPoint(
                        delta=point.delta, attacked=pairs(0.1, 0.9), certified=pairs(0.0, 0.5)
                    )
                    for point in before.curves[0].points
                ],
            )
        ],
        epochs=[
            Epoch(
                epoch=i,
                steps=10 * i,
                loss=1 / i,
                clean=0.9,
                attacked=0.8,
                evaluation=0.9,
                accepted=i > 1,
            )
            for i in (1, 2)
        ],
        best_epoch=2,
        seconds=12.0,
        parity=1e-6,
        trained=["w1"],
        frozen=[HOSTILE],
        reliability=("GREEN", "RED"),
        notes=["Batch normalisation is folded."],
        warnings=[HOSTILE],
    )


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["comparison", "hardening"])
def test_the_other_pages_too(
    browser: Any, name: str, width: int, theme: str, tmp_path: Path
) -> None:
    pages = {"comparison": (comparison_html, comparison), "hardening": (hardening_html, hardening)}
    write, report = pages[name]
    file = tmp_path / "page.html"
    file.write_text(write(report()), encoding="utf-8")
    with Visit(browser, file.as_uri(), width, theme, ready="main") as visit:
        page = visit.page
        for details in page.locator("details").all():
            details.evaluate("element => { element.open = true; }")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert not serious(page)
        assert not visit.errors
        assert page.evaluate("window.owned") is None
        assert len(visit.requests) == 1


def serious(page: Any) -> list[Any]:
    """What axe-core finds that somebody could not work with."""
    return [
        (violation["id"], [node["html"][:200] for node in violation["nodes"]])
        for violation in axe_api.Axe().run(page).response["violations"]
        if violation["impact"] in ("serious", "critical")
    ]


class Visit:
    """An open page, and what happened on it."""

    def __init__(
        self,
        browser: Any,
        address: str,
        width: int = 1200,
        theme: str = "light",
        ready: str = "html[data-charts=drawn]",
    ) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme
        )
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: self.errors.append(dialog.message))
        self.page.goto(address)
        self.page.wait_for_selector(ready)

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


def names(visit: Visit, plot: int = 0) -> list[str]:
    """What the legend of a chart names."""
    drawn = visit.page.locator("figure[data-chart] .plot").nth(plot)
    return drawn.locator(".legendtext").all_text_contents()


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_readable_and_accessible(
    browser: Any, address: str, width: int, theme: str, tmp_path: Path
) -> None:
    with Visit(browser, address, width, theme) as visit:
        page = visit.page
        for details in page.locator("details").all():
            details.evaluate("element => { element.open = true; }")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for plot in page.locator(".plot").all():
            box = plot.bounding_box()
            assert box is not None
            assert box["width"] > 0.55 * min(width, 700)
            assert plot.locator(".main-svg").count() > 0
        assert not serious(page)
        assert page.screenshot(full_page=True, path=tmp_path / "page.png")
        assert not visit.errors


def test_themes_differ(browser: Any, address: str) -> None:
    def shades(theme: str) -> tuple[str, str]:
        with Visit(browser, address, theme=theme) as visit:
            body = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
            paper = visit.page.locator(".plot .main-svg").first.get_attribute("style")
            return body, str(re.search(r"background: ([^;]+)", str(paper)))

    day, night = shades("light"), shades("dark")
    assert day[0] != night[0]
    assert day[1] != night[1]


def test_a_theme_that_changes_redraws_the_charts(browser: Any, address: str) -> None:
    with Visit(browser, address) as visit:
        text = visit.page.locator(".plot .xtitle").first
        before = text.get_attribute("style")
        visit.page.emulate_media(color_scheme="dark")
        visit.page.wait_for_function(
            "old => document.querySelector('.plot .xtitle').getAttribute('style') !== old",
            arg=before,
        )
        assert not visit.errors


def test_one_order_is_chosen_by_pointer_and_by_keys(browser: Any, address: str) -> None:
    with Visit(browser, address) as visit:
        assert len(names(visit)) == 6  # three orders, two sides
        visit.page.locator("#threat-1 .switch label").nth(1).click()
        visit.page.wait_for_function(
            "document.querySelectorAll('#threat-1 figure[data-chart] .legendtext').length < 6"
        )
        assert all("order inf" in name for name in names(visit)[:2])
        visit.page.keyboard.press("ArrowRight")
        visit.page.wait_for_function(
            "document.querySelector('#threat-1 figure[data-chart] .legendtext')"
            ".textContent.includes('order 2')"
        )
        assert "violated estimate" in names(visit)
        assert len(names(visit, 1)) == 6  # the other metric is left alone
        assert not visit.errors


def test_values_stand_under_the_pointer(browser: Any, address: str) -> None:
    report = golden()
    with Visit(browser, address) as visit:
        plot = visit.page.locator("figure[data-chart] .plot").first
        plot.scroll_into_view_if_needed()
        box = plot.locator(".nsewdrag").bounding_box()
        assert box is not None
        deltas = [point.delta for point in report.threats[0].curves[0].points]
        x = box["x"] + box["width"] * deltas[3] / (1.05 * max(deltas))
        visit.page.mouse.move(x, box["y"] + box["height"] / 2)
        visit.page.wait_for_selector(".hoverlayer .legendtext")
        said = " ".join(plot.locator(".hoverlayer .legendtext").all_text_contents())
        assert "attacked" in said
        assert "certified" in said
        assert re.search(r"≤ \d+\.\d %", said)
        assert not visit.errors


def test_the_first_stop_of_the_keyboard_skips_to_the_results(browser: Any, address: str) -> None:
    with Visit(browser, address) as visit:
        visit.page.keyboard.press("Tab")
        focused = visit.page.evaluate("document.activeElement.textContent")
        assert focused == "Skip to the results"
        visit.page.keyboard.press("Enter")
        assert visit.page.url.endswith("#main")


def test_nothing_quoted_runs_and_nothing_is_fetched(browser: Any, address: str) -> None:
    with Visit(browser, address) as visit:
        assert visit.page.evaluate("window.owned") is None
        assert visit.page.title().startswith("Robustness audit: lenet ")
        schemes = {url.split(":")[0] for url in visit.requests}
        assert schemes <= {"file", "data", "blob"}
        assert len([url for url in visit.requests if url.startswith("file")]) == 1


def test_print_opens_what_is_folded(browser: Any, address: str) -> None:
    with Visit(browser, address) as visit:
        folded = "[...document.querySelectorAll('details')].filter(d => !d.open).length"
        assert visit.page.evaluate(folded) > 0
        assert len(visit.page.pdf()) > 50_000
        assert visit.page.evaluate(folded) == 0
