"""What the README shows is what the program does."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from attackers import ATTACKS
from attackers.geometry import METRICS
from audit.cli import main
from audit.config import ATTACK_NAMES
from audit.demo import data_path, model_path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
LINES = [line.partition("#")[0].strip() for block in COMMANDS for line in block.splitlines()]
SCANS = [line for line in LINES if line.startswith("audit ")]


def test_two_make_commands_exist():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    made = [line.split()[1] for line in LINES if line.startswith("make ")]
    assert made == ["demo", "test"]
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
    # A gate may fail on so few samples; that the command is understood is what counts here.
    assert stopped.value.code in (0, 1)
    assert words[1] != "scan" or Path("audit-report/report.html").exists()


def test_tables_name_what_there_is():
    for name in (*METRICS, *ATTACK_NAMES):
        assert f"| `{name}` |" in README, name
    assert set(ATTACKS) <= set(ATTACK_NAMES)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists() or target.startswith("https://"), target
