"""Templates of the pages, and the filters that write their numbers."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from reports import numbers

if TYPE_CHECKING:
    from jinja2 import Environment


@lru_cache(maxsize=1)
def environment() -> "Environment":
    """The environment of every template: escaped, strict about names."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name in ("budget", "count", "distance", "exact", "mean", "percent", "plain"):
        environment.filters[name] = getattr(numbers, name)
    for name in ("remark", "seconds", "share", "significant"):
        environment.filters[name] = getattr(numbers, name)
    environment.filters["words"] = lambda status: status.replace("_", " ")
    environment.globals["NOT_MEASURED"] = numbers.NOT_MEASURED
    return environment


_TEMPLATES = Path(__file__).with_name("templates")


@lru_cache(maxsize=4)
def text_of(name: str) -> str:
    """A file of the templates, as it is."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")
