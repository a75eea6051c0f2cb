"""The README agrees with the program: commands, tables, links and options."""

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import get_args

import pytest
from typer.main import get_group

from attackers import ATTACKS
from attackers.geometry import METRICS
from audit.cli import app, main
from audit.demo import data_path, model_path
from audit.options.scanning import AttackName

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
LINES = [line.partition("#")[0].strip() for block in COMMANDS for line in block.splitlines()]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCANS = [line for line in LINES if line.startswith("audit ")]


def test_make_commands_exist():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    made = [line.split()[1] for line in LINES if line.startswith("make ")]
    assert made == ["demo", "check", "test"]
    assert set(made) <= set(targets)


@pytest.mark.parametrize("line", SCANS)
def test_commands_run(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(model_path(), "model.onnx")
    shutil.copy(data_path(), "test.npz")
    words = shlex.split(line)
    quick = ["--samples", "24", "--order", "inf", "--certify", "crown-ibp"]
    sized = [*words, *quick] if words[1] == "scan" else words
    monkeypatch.setattr(sys, "argv", sized)
    with pytest.raises(SystemExit) as stopped:
        main()
    # A gate may fail on so few samples; this only tests that the command is accepted.
    assert stopped.value.code in (0, 1)
    assert words[1] != "scan" or Path("audit-report/report.html").exists()


def test_the_commands_are_those_of_the_help():
    (block,) = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    found = get_group(app).commands
    wanted = [f"{name:<16}{command.get_short_help_str(80)}" for name, command in found.items()]
    assert block.splitlines() == wanted


def test_tables_name_what_there_is():
    for name in (*METRICS, *get_args(AttackName)):
        assert f"| `{name}` |" in README, name
    assert set(ATTACKS) == set(get_args(AttackName))


def slug(heading: str) -> str:
    """Return the anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path):
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", text):
        if target.startswith("https://"):
            continue
        found = page.parent / target if target else page
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), anchor


OPTIONS = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_options_that_are_written_about_exist(page: Path):
    known = {
        name
        for command in get_group(app).commands.values()
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    elsewhere = {"--constraint", "--paper", "--epochs", "--samples"}
    mentioned = set(OPTIONS.findall(page.read_text(encoding="utf-8")))
    assert mentioned - known - elsewhere == set()
