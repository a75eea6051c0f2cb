"""Renderers: pure functions from a report to text, each importing its tools when first used."""

from collections.abc import Callable
from functools import partial
from importlib import import_module

from audit.schema import ScanReport


def _render(module: str, report: ScanReport) -> str:
    text: str = import_module(f"reports.{module}").render(report)
    return text


RENDERERS: dict[str, Callable[[ScanReport], str]] = {
    "html": partial(_render, "html"),
    "json": partial(_render, "json"),
    "text": partial(_render, "terminal"),
    "markdown": partial(_render, "markdown"),
    "junit": partial(_render, "junit"),
    "sarif": partial(_render, "sarif"),
}
"""What ``audit report --format`` accepts."""
