"""Consoles that are not UTF-8: text is replaced, formats for programs stay, exit codes stay."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock
from xml.etree import ElementTree as ET

import pytest
import tiny

from audit import cli

AUDIT = (sys.executable, "-c", "from audit.cli import main; main()")
ENCODINGS = ("cp1252", "latin-1", "ascii")
SHAPE = (1, 4, 5)


def run(encoding: str, *words: object) -> subprocess.CompletedProcess[bytes]:
    """Run a command in this process on streams of that encoding."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, write_through=True) for _ in range(2))
    with (
        mock.patch.object(sys, "argv", ["audit", *map(str, words)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    shown, said = (stream.buffer.getvalue() for stream in (out, err))  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(words, code, shown, said)


def run_alone(encoding: str, *words: object) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a process whose console has that encoding."""
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    return subprocess.run([*AUDIT, *map(str, words)], capture_output=True, env=env, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose name no such console can show, its data, a policy that fails, and a report."""
    made = tmp_path_factory.mktemp("encodings")
    shown = tiny.patterns(SHAPE)
    tiny.write_linear(made / "модель.onnx", *tiny.matched(shown), shape=("n", *SHAPE))
    tiny.write_data(made / "d.npz", *tiny.noisy(shown, 60))
    (made / "audit.toml").write_text('[gates]\nerror = ["clean >= 1"]\n', encoding="utf-8")
    return made


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_command_and_format(folder: Path, encoding: str) -> None:
    out, model, data = folder / encoding, folder / "модель.onnx", folder / "d.npz"
    scan = run(
        encoding, "scan", model, "--data", data, "--threat", "linf", "--delta", "0.05", "--order",
        "inf", "--effort", "quick", "--certify", "none", "--attack", "fgsm", "--fail-under", "1",
        "-o", out,
    )  # fmt: skip
    assert scan.returncode == 1, scan.stderr
    assert b"??????.onnx" in scan.stdout
    report, policy = out / "report.json", folder / "audit.toml"
    saved = report.read_text(encoding="utf-8")
    assert "модель.onnx" in saved
    for name in ("text", "markdown", "html", "json", "junit", "sarif"):
        rendered = run(encoding, "report", report, "--format", name)
        assert (rendered.returncode, rendered.stderr) == (0, b""), name
        if name in ("html", "json", "junit", "sarif"):
            assert "модель" in rendered.stdout.decode("utf-8"), name
    assert run(encoding, "report", report, "-f", "json").stdout.decode("utf-8") == saved
    alone = run_alone(encoding, "report", report)
    assert (alone.returncode, alone.stderr) == (0, b"")
    assert alone.stdout == run(encoding, "report", report).stdout
    json.loads(run(encoding, "report", report, "-f", "sarif").stdout)
    ET.fromstring(run(encoding, "report", report, "-f", "junit").stdout)
    others = {
        ("gate", report, "--policy", policy): 1,
        ("compare", report, report): 0,
        ("inspect", model, "--data", data): 0,
        ("config",): 0,
        ("--help",): 0,
        ("scan", "--help"): 0,
        ("scan", folder / "нет.onnx", "--data", data): 2,
    }
    for words, code in others.items():
        found = run(encoding, *words)
        assert found.returncode == code, (words, found.stderr)
        (found.stdout + found.stderr).decode(encoding)
