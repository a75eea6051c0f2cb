"""The examples of the documentation run, page by page, in an empty folder."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from audit.cli import main

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = [page for page in sorted(DOCS.glob("*.md")) if "```python" in page.read_text("utf-8")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"```(python|console|toml)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL
    )
    scope: dict[str, object] = {}
    for number, (language, block) in enumerate(blocks, 1):
        if language == "python":
            exec(compile(block, f"{page.name}, example {number}", "exec"), scope)
        elif language == "toml":
            Path("gates.toml").write_text(block, encoding="utf-8")
        else:
            for line in block.splitlines():
                run_command(line, monkeypatch)


def run_command(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a console command; on few samples a health check may fail, with exit code 4."""
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code in (0, 4), line


def test_the_index_names_every_page() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert page.stem == "index" or f"]({page.name})" in index, page.name
