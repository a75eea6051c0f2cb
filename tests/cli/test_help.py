"""`--help` and `--version`: complete, and no wider than a page."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import audit

from audit import __version__

COMMANDS = ("scan", "demo", "inspect", "train-attacker", "harden", "report", "gate", "compare")
SCAN_OPTIONS = (
    "--data", "--threat", "--order", "--delta", "--attack", "--generator", "--train-data",
    "--certify", "--smooth", "--samples",
    "--seed", "--confidence", "--trust-model", "--device", "--batch-size", "--layout", "--mean",
    "--std", "--low", "--high", "--resize", "--fail-under", "--strict", "--out", "--quiet",
    "--verbose",
)  # fmt: skip


def entries(text: str) -> dict[str, str]:
    """Options of a help text, each with its words."""
    found: dict[str, str] = {}
    name = ""
    for line in text.split("\nOptions:\n")[1].split("\n\n")[0].splitlines():
        start = re.match(r"  (?:-\w, )?(--[\w-]+)(?:,? \S+)?(.*)", line)
        if start:
            name, found[start[1]] = start[1], start[2].strip()
        else:
            found[name] += " " + line.strip()
    return found


@pytest.mark.parametrize("words", [(), *((command,) for command in COMMANDS)])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_readable(words: tuple[str, ...], flag: str) -> None:
    outcome = audit(*words, flag)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("Usage: audit " + " ".join(words))
    assert max(map(len, outcome.out.splitlines())) <= 100
    assert "\x1b" not in outcome.out
    options = entries(outcome.out)
    assert options
    for name, explanation in options.items():
        text = explanation.strip()
        assert len(text.split()) >= 2, f"{name} is not explained"
        # Neither Python's types nor a sentence cut off.
        assert not re.search(r"<|list\[|\.\.\.$", text), (name, text)


def test_the_overview_names_every_command() -> None:
    text = audit("--help").out
    for command in COMMANDS:
        line = next(line for line in text.splitlines() if line.startswith(f"  {command} "))
        assert line.endswith("."), "the summary does not fit its line"
        assert not line.endswith("...")


@pytest.mark.parametrize("words", [(), ("scan",), ("demo",)])
def test_exit_codes_are_listed(words: tuple[str, ...]) -> None:
    text = " ".join(audit(*words, "--help").out.split("Exit codes:")[1].split())
    for code in (0, 1, 2, 3, 4, 5, 130):
        assert re.search(rf"(^|; ){code} \w+", text), code


def test_scan_explains_every_option() -> None:
    text = audit("scan", "--help").out
    assert set(SCAN_OPTIONS) | {"--help"} <= entries(text).keys()
    flat = " ".join(text.split())
    for words in ("8/255", "[default: linf,l2]", "[default: inf,2,1]", "TorchScript", ".npz"):
        assert words in flat, words


def test_no_words_at_all_show_the_help() -> None:
    outcome = audit()
    assert outcome.code == 2
    assert "Usage: audit" in outcome.out + outcome.err


def test_unknown_command() -> None:
    outcome = audit("scam")
    assert outcome.code == 2
    assert "No such command 'scam'" in outcome.err


def test_version() -> None:
    outcome = audit("--version")
    assert (outcome.code, outcome.out, outcome.err) == (0, f"audit {__version__}\n", "")


def test_version_is_quick_and_installed() -> None:
    """A process of its own, through the installed command, that does not import torch."""
    command = Path(sys.executable).with_name("audit")
    if not command.exists():
        pytest.skip("the package is not installed in this environment")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"audit {__version__}\n", "")
    probe = "import sys, audit.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], timeout=60).returncode == 0
