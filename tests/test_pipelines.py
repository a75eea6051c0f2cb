"""The examples for pipelines: every file parses, and every command and option in them exists."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from audit.cli.app import settable
from audit.cli.settings import find
from audit.demo import data_path, model_path
from audit.gates.policy import read_policy

ROOT = Path(__file__).resolve().parents[1]
MANUAL = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", MANUAL, re.DOTALL)
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))


def of_kind(kind: str) -> list[str]:
    return [text for found, text in BLOCKS if found == kind]


def test_the_policy_of_the_manual_is_one(tmp_path: Path) -> None:
    policy, settings = of_kind("toml")
    path = tmp_path / "audit.toml"
    path.write_text(policy)
    assert len(read_policy(path).rules) == 4
    path.write_text(settings)
    assert find(tmp_path, settable()).options["harden"] == {"epochs": 20}


def commands(value: Any) -> Iterator[str]:
    """Yield every line of a script that runs the program."""
    if isinstance(value, dict):
        for item in value.values():
            yield from commands(item)
    elif isinstance(value, list):
        for item in value:
            yield from commands(item)
    elif isinstance(value, str):
        yield from (
            line.strip() for line in value.splitlines() if line.strip().startswith("audit ")
        )


@pytest.mark.parametrize("document", [ACTION, *map(yaml.safe_load, of_kind("yaml"))])
def test_commands_and_options_exist(document: Any) -> None:
    known = settable()
    for line in commands(document):
        words = shlex.split(line)
        options = {word.removeprefix("--") for word in words if re.fullmatch(r"--[a-z-]+", word)}
        assert options - {"data"} <= known[words[1]].keys(), line


def test_the_job_gives_the_action_what_it_takes() -> None:
    github = yaml.safe_load(of_kind("yaml")[0])
    (given,) = [
        step["with"] for step in github["jobs"]["robustness"]["steps"] if step.get("uses") == "./"
    ]
    assert given.keys() <= ACTION["inputs"].keys()
    required = {name for name, entry in ACTION["inputs"].items() if entry.get("required")}
    assert required <= given.keys()


def test_inputs_are_never_part_of_the_script() -> None:
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step.get("run", ""), "an input could then run commands"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_scan_step_runs(tmp_path: Path) -> None:
    (step,) = [step for step in ACTION["runs"]["steps"] if step.get("name") == "Scan"]
    policy = tmp_path / "audit.toml"
    policy.write_text('[gates]\nerror = ["clean >= 0.5"]\n')
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MODEL": str(model_path()),
        "DATA": str(data_path()),
        "POLICY": str(policy),
        "ARGUMENTS": "--threat linf --delta 0.01 --samples 24 --effort quick --certify none",
        "OUT": str(tmp_path / "a folder"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }
    done = subprocess.run(
        ["bash", "-e", "-c", step["run"]],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("report.json", "junit.xml", "audit.sarif"):
        assert (tmp_path / "a folder" / name).stat().st_size
    assert "Robustness of" in (tmp_path / "summary.md").read_text()


def test_the_hook_is_a_command_of_ours() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert hook["entry"].split()[1] in settable()
    (repository,) = yaml.safe_load(of_kind("yaml")[2])["repos"]
    assert [used["id"] for used in repository["hooks"]] == [hook["id"]]
