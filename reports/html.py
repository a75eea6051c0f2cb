"""The report as one HTML file that needs no network: charts, tables, pictures, advice.

The charting library travels inside the file, compressed; the browser inflates it when the page
opens. A browser that cannot inflate it shows no charts; every number is also in a table.
"""

import base64
import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from audit.schema import GalleryItem, ScanReport
from reports import summary, threat_rows
from reports.charts import chart_data
from reports.pages import plotly_source, template_text, templates

GALLERY_BYTES = 2_000_000
"""Most characters of embedded pictures; the page states how many entries are left out."""

PNG = re.compile(r"data:image/png;base64,[A-Za-z0-9+/]+={0,2}")

SCRIPT_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
"""Characters that JSON inside a script element must not contain unescaped."""


def render(report: ScanReport) -> str:
    """Return the report as a self-contained HTML page."""
    from markupsafe import Markup

    script = template_text("report.js")
    pictures, left_out = _pictures(report.artifacts.gallery)
    worst, _ = summary.troubled_checks(report)
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            report=report,
            name=summary.file_name(report.model.path),
            reliability=summary.reliability_line(report),
            health=worst + [entry for entry in report.health if entry.status == "pass"],
            tally=Counter(entry.status for entry in report.health),
            headlines=[line for line in map(summary.headline, report.threats) if line],
            pictures=pictures,
            left_out=left_out,
            css=Markup(template_text("report.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            charts=Markup(_embed(chart_data(report))),
            library=_packed_plotly()
            if any(t.curves or t.radii.histogram for t in report.threats)
            else "",
            summary=summary,
            threat_rows=threat_rows,
        )
    )


def _embed(data: Any) -> str:
    """Return JSON that is safe inside a script element."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False).translate(SCRIPT_ESCAPES)


@dataclass(frozen=True)
class Picture:
    """Gallery entry whose images are validated PNG data URIs."""

    item: GalleryItem
    images: tuple[tuple[str, str], ...]


def _pictures(gallery: Sequence[GalleryItem]) -> tuple[list[Picture], int]:
    """Return the entries that fit and the number left out; invalid data URIs become empty."""
    pictures: list[Picture] = []
    size = 0
    for item in gallery:
        names = ("original", "adversarial", "difference", "flow")
        images = [(name, uri) for name in names if (uri := getattr(item, name)) is not None]
        size += sum(len(uri) for _, uri in images)
        if size > GALLERY_BYTES:
            break
        valid = tuple((name, uri if PNG.fullmatch(uri) else "") for name, uri in images)
        pictures.append(Picture(item, valid))
    return pictures, len(gallery) - len(pictures)


@lru_cache(maxsize=1)
def _packed_plotly() -> str:
    """Return plotly.js, compressed and in base64; the text is the same on every call."""
    return base64.b64encode(gzip.compress(plotly_source().encode(), 9, mtime=0)).decode()
