"""Make the pictures of the manual: a report in headless Chromium.

    audit demo && python scripts/screenshot.py audit-report/report.html docs/report.png
    python scripts/screenshot.py REPORT.html docs/bracket.png     # of docs/certified-robustness.md

Needs `chromium` on the path, or its place in the environment variable CHROMIUM.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--virtual-time-budget=8000",
)  # fmt: skip


def photograph(page: Path, picture: Path, width: int, height: int) -> None:
    """Write the picture of a page as a window of this size shows it."""
    browser = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if browser is None:
        sys.exit("chromium is not on the path: install it, or set CHROMIUM.")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser,
                *FLAGS,
                f"--window-size={width},{height}",
                f"--user-data-dir={profile}",
                f"--screenshot={picture.resolve()}",
                page.resolve().as_uri(),
            ],
            check=True,
            capture_output=True,
        )


def main() -> None:
    """Take the screenshot and reduce it to a palette."""
    page, picture = Path(sys.argv[1]), Path(sys.argv[2])
    photograph(page, picture, 1200, 1190)
    Image.open(picture).convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(
        picture, optimize=True
    )


if __name__ == "__main__":
    main()
