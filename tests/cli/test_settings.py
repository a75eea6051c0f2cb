"""Settings: the command line before the environment before files, and no key that means nothing."""

from pathlib import Path

import pytest
import tiny
from command import audit, read_report, scan

SHAPE = (1, 4, 5)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shown = tiny.patterns(SHAPE)
    tiny.write_linear(tmp_path / "m.onnx", *tiny.matched(shown), shape=("n", *SHAPE))
    tiny.write_data(tmp_path / "d.npz", *tiny.noisy(shown, 60))
    return tmp_path


TEXT = """
effort = "quick"
threat = ["linf"]
delta = [0.01, 0.05]
order = "inf"
certify = "none"
samples = 40
"""


def settings_of(words: tuple[str, ...] = ()) -> dict[str, tuple[str, str]]:
    outcome = audit("config", *words)
    assert outcome.code == 0, outcome.err
    rows = [line.split() for line in outcome.out.splitlines()]
    return {row[0]: (" ".join(row[1:-1]), row[-1]) for row in rows}


def test_a_scan_takes_its_options_from_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "audit.toml").write_text(TEXT)
    outcome = audit("scan", "m.onnx", "--data", "d.npz", "--out", "out")
    assert outcome.code in (0, 4), outcome.err
    config = read_report(folder / "out")["config"]
    assert config["effort"] == "quick"
    assert config["threat"] == ["linf"]
    assert config["delta"] == [0.01, 0.05]
    assert config["samples"] == 40
    monkeypatch.setenv("AUDIT_SCAN_SAMPLES", "30")
    assert audit("scan", "m.onnx", "--data", "d.npz", "--out", "env").code in (0, 4)
    assert read_report(folder / "env")["config"]["samples"] == 30
    words = ("scan", "m.onnx", "--data", "d.npz", "--samples", "20", "--out", "line")
    assert audit(*words).code in (0, 4)
    assert read_report(folder / "line")["config"]["samples"] == 20


def test_gates_of_the_file_judge_every_scan(folder: Path) -> None:
    (folder / "audit.toml").write_text(TEXT + '[gates]\nerror = ["clean >= 0.999999"]\n')
    outcome = audit("scan", "m.onnx", "--data", "d.npz", "--out", "out")
    assert outcome.code == 1
    (gate,) = read_report(folder / "out")["gates"]
    assert gate["status"] == "fail"


def test_pyproject_is_read_where_there_is_no_file_of_our_own(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.other]\nx = 1\n")
    assert settings_of()["effort"] == ("standard", "default")
    (folder / "pyproject.toml").write_text(
        '[tool.audit]\neffort = "max"\n[tool.audit.harden]\nepochs = 3\nwith = "trades"\n'
    )
    assert settings_of()["effort"] == ("max", str(folder / "pyproject.toml"))
    assert settings_of(("harden",))["with"] == ("trades", str(folder / "pyproject.toml"))
    (folder / "audit.toml").write_text('effort = "quick"\n')
    assert settings_of()["effort"] == ("quick", str(folder / "audit.toml"))


def test_where_each_setting_is_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "audit.toml").write_text(TEXT)
    monkeypatch.setenv("AUDIT_SCAN_SEED", "7")
    found = settings_of()
    assert found["seed"] == ("7", "AUDIT_SCAN_SEED")
    assert found["effort"] == ("quick", str(folder / "audit.toml"))
    assert found["confidence"] == ("0.95", "default")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('efort = "quick"', "'efort' is not a known option of scan: did you mean 'effort'?"),
        ("[hardn]\nepochs = 1", "'hardn' is not a known command: did you mean 'harden'?"),
        ("[harden]\nepoch = 1", "'epoch' is not a known option of harden: did you mean 'epochs'?"),
        ('data = "d.npz"', "'data' is not a known option of scan"),
        ("effort = ", "cannot be read as TOML"),
    ],
)
def test_keys_that_mean_nothing(folder: Path, text: str, message: str) -> None:
    (folder / "audit.toml").write_text(text)
    outcome = audit("scan", "m.onnx", "--data", "d.npz")
    assert outcome.code == 2
    assert message in outcome.err


def test_a_value_of_the_file_is_checked_like_any_other(folder: Path) -> None:
    (folder / "audit.toml").write_text('effort = "hard"')
    outcome = audit("scan", "m.onnx", "--data", "d.npz")
    assert outcome.code == 2
    assert "Unknown effort 'hard'" in outcome.err


def test_a_scan_is_compared_with_its_baseline(folder: Path) -> None:
    (folder / "audit.toml").write_text(TEXT)
    scan(folder / "m.onnx", folder / "d.npz", "--certify", "none", out=folder / "old")
    words = ("scan", "m.onnx", "--data", "d.npz", "--out", "new")
    outcome = audit(*words, "--baseline", "old/report.json", "--max-regression", "0.02")
    assert outcome.code == 0, outcome.err
    assert "paired samples" in outcome.out
    assert (folder / "new" / "comparison.md").exists()
    assert (folder / "new" / "comparison.json").exists()
    refused = audit(*words, "--max-regression", "0.02")
    assert refused.code == 2
    assert "needs --baseline" in refused.err
    missing = audit(*words, "--baseline", "none.json")
    assert missing.code == 2
