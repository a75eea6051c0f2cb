"""Templates of the HTML pages, the filters that format their numbers, the charting library."""

from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from reports import numbers

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).with_name("templates")

_FILTERS = (
    "budget",
    "distance",
    "exact",
    "mean",
    "percent",
    "percentage_points",
    "remark",
    "seconds",
    "proportion",
    "significant",
    "thousands",
    "value_text",
)
"""Functions of `reports.numbers` that templates use as filters."""


@lru_cache(maxsize=1)
def templates() -> "Environment":
    """Return the environment of every template, which escapes and rejects unknown names."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name in _FILTERS:
        environment.filters[name] = getattr(numbers, name)
    environment.filters["words"] = lambda status: status.replace("_", " ")
    environment.globals["NOT_MEASURED"] = numbers.NOT_MEASURED
    return environment


@lru_cache(maxsize=4)
def template_text(name: str) -> str:
    """Return the text of a file in the folder of templates."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def plotly_source() -> str:
    """Return the source of plotly.js."""
    return files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
