"""Hardening from the command line: the file, the report, and what survives a kill."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
import tiny
from command import audit
from numpy.typing import NDArray

from audit.hardening import loop
from audit.schema import HardenReport
from reports import harden as renderer

SHAPE = (1, 8, 8)
QUICK = ("--effort", "quick", "--certify", "none", "--eval-samples", "60")


@dataclass(frozen=True)
class Case:
    folder: Path
    model: Path
    train: Path
    test: Path

    def harden(self, *options: object, out: Path, quick: bool = True) -> Any:
        return audit(
            "harden", self.model, "--data", self.train, "--eval", self.test, "--epochs", 3,
            "--batch-size", 32, *(QUICK if quick else ()), *options, "--out", out,
        )  # fmt: skip


def fragile(shown: tiny.Floats, seed: int = 0) -> tuple[tiny.Floats, tiny.Floats]:
    """Weights that classify well and break easily: the right ones under a lot of noise."""
    weight, bias = tiny.matched(shown)
    rough = 0.4 * np.random.default_rng(seed).normal(size=weight.shape).astype(np.float32)
    # Noise that sums to zero over an image changes no class at rest at one half.
    return weight + rough - rough.mean(0), bias


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("harden")
    shown = tiny.patterns(SHAPE)
    model = tiny.write_linear(folder / "m.onnx", *fragile(shown), shape=("n", *SHAPE))
    train = tiny.write_data(folder / "train.npz", *samples(shown, 1200, 1))
    test = tiny.write_data(folder / "test.npz", *samples(shown, 150, 2))
    return Case(folder, model, train, test)


def samples(shown: tiny.Floats, n: int, seed: int) -> tuple[tiny.Floats, NDArray[np.int64]]:
    return tiny.noisy(shown, n, seed=seed)


@pytest.fixture(scope="module")
def hardened(case: Case) -> tuple[Path, Any]:
    out = case.folder / "out"
    outcome = case.harden("--threat", "linf", "--radius", "0.05", "--rate", "0.02", out=out)
    assert outcome.code == 0, outcome.err
    return out, outcome


def test_the_model_comes_back_stronger_in_its_own_format(
    case: Case, hardened: tuple[Path, Any]
) -> None:
    out, outcome = hardened
    report = HardenReport.model_validate_json((out / "harden.json").read_text())
    (threat,) = report.threats
    at = {point.delta: point.attacked for point in threat.paired}[0.05]
    assert at.after > at.before + 0.1
    assert at.p_value < 0.01
    assert at.difference.low > 0
    # --certify none: nothing was measured, which is null and never 0.
    assert all(point.certified is None for point in threat.paired)
    assert "certified not measured -> not measured" in outcome.out
    assert report.clean.after >= report.clean.before - 0.02
    assert report.parity < 1e-5
    assert {p.name for p in out.iterdir()} == {
        "m.onnx", "weights.safetensors", "harden.json", "harden.html", "before", "after",
    }  # fmt: skip
    old, new = onnx.load(case.model), onnx.load(out / "m.onnx")
    onnx.checker.check_model(new, full_check=True)
    for model in (old, new):
        for tensor in model.graph.initializer:
            if tensor.name in report.trained:
                tensor.ClearField("raw_data")
    assert old.SerializeToString(deterministic=True) == new.SerializeToString(deterministic=True)
    assert "epoch 3" in outcome.err
    assert "attacked" in outcome.out
    for name in ("before", "after"):
        scanned = json.loads((out / name / "report.json").read_text())
        assert scanned["status"] == "complete"
        assert scanned["data"]["evaluated"] == 60


def test_the_page_shows_the_numbers_and_needs_no_network(hardened: tuple[Path, Any]) -> None:
    out, _ = hardened
    page = (out / "harden.html").read_text(encoding="utf-8")
    report = HardenReport.model_validate_json((out / "harden.json").read_text())
    for row in renderer.rows(report.threats[0]):
        for cell in row:
            assert cell.replace("+", "&#43;") in page or cell in page
    assert 'src="http' not in page
    assert renderer.html(report) == page


def test_a_name_with_markup_stays_text(hardened: tuple[Path, Any]) -> None:
    out, _ = hardened
    report = HardenReport.model_validate_json((out / "harden.json").read_text())
    hostile = "<script>window.owned=1</script>"
    page = renderer.html(
        report.model_copy(update={"model": f"{hostile}.onnx", "warnings": [hostile]})
    )
    assert hostile not in page
    assert "&lt;script&gt;window.owned" in page


@pytest.mark.parametrize(
    "options",
    [
        ("--with", "trades", "--threat", "l2", "--radius", "0.5"),
        ("--with", "wdro", "--threat", "l2", "--radius", "0.5", "--order", "2"),
        ("--with", "wdro", "--threat", "linf", "--radius", "0.05", "--order", "inf"),
        ("--with", "mixed", "--threat", "linf,l2", "--radius", "0.05,0.5", "--clean", "0.3"),
    ],
)
def test_every_method_runs(case: Case, tmp_path: Path, options: tuple[str, ...]) -> None:
    outcome = case.harden(*options, "--delta", "0.1", out=tmp_path / "out")
    assert outcome.code == 0, outcome.err
    report = HardenReport.model_validate_json((tmp_path / "out" / "harden.json").read_text())
    assert report.method == options[1]
    assert len(report.threats) == options[3].count(",") + 1


def test_the_same_seed_gives_the_same_file(
    case: Case, hardened: tuple[Path, Any], tmp_path: Path
) -> None:
    out, _ = hardened
    options = ("--threat", "linf", "--radius", "0.05", "--rate", "0.02")
    assert case.harden(*options, out=tmp_path / "again").code == 0
    assert (tmp_path / "again" / "m.onnx").read_bytes() == (out / "m.onnx").read_bytes()


def test_an_interrupt_keeps_the_best_so_far_and_goes_on(
    case: Case, hardened: tuple[Path, Any], tmp_path: Path
) -> None:
    out, options = tmp_path / "out", ("--threat", "linf", "--radius", "0.05", "--rate", "0.02")
    judge, calls = loop._validate_epoch, iter(range(9))

    def interrupted(*given: Any) -> Any:
        entry = judge(*given)
        if next(calls) == 1:
            raise KeyboardInterrupt
        return entry

    with mock.patch.object(loop, "_validate_epoch", interrupted):
        stopped = case.harden(*options, out=out)
    assert stopped.code == 130
    assert "the best so far" in stopped.err
    assert {p.name for p in out.iterdir()} == {
        "m.onnx", "weights.safetensors", "checkpoint.safetensors",
    }  # fmt: skip
    onnx.checker.check_model(onnx.load(out / "m.onnx"))
    assert case.harden(*options, "--resume", out=out).code == 0
    assert (out / "m.onnx").read_bytes() == (hardened[0] / "m.onnx").read_bytes()


def test_killed_and_resumed(case: Case, hardened: tuple[Path, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "audit", "harden", case.model, "--data", case.train, "--eval",
        case.test, "--epochs", "3", "--batch-size", "32", *QUICK, "--threat", "linf", "--radius",
        "0.05", "--rate", "0.02", "--out", out,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    checkpoint = out / "checkpoint.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if not checkpoint.exists():
        pytest.skip("it was done before it could be killed")
    for file in out.glob("*.onnx"):
        onnx.checker.check_model(onnx.load(file))
    options = ("--threat", "linf", "--radius", "0.05", "--rate", "0.02")
    resumed = case.harden(*options, "--resume", out=out)
    assert resumed.code == 0, resumed.err
    assert (out / "m.onnx").read_bytes() == (hardened[0] / "m.onnx").read_bytes()


def test_no_weights_without_the_clean_accuracy(case: Case, tmp_path: Path) -> None:
    outcome = case.harden(
        "--threat", "linf", "--radius", "0.45", "--min-clean", "0.99", out=tmp_path / "out"
    )
    assert outcome.code == 1
    assert "--min-clean" in outcome.err
    assert not (tmp_path / "out" / "m.onnx").exists()


def unbalanced(n: int, seed: int) -> tuple[tiny.Floats, NDArray[np.int64]]:
    """Three percent of class 1, whose features are a little larger."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.03).astype(np.int64)
    y[:2] = 0, 1
    x = 0.4 + 0.2 * y[:, None] + rng.uniform(-0.05, 0.05, (n, 6))
    return x.astype(np.float32), y


def test_a_class_that_hardening_gives_up_is_warned_of(tmp_path: Path) -> None:
    """Beyond the radius that separates the classes, 'always class 0' is right most often."""
    weight = np.outer(np.ones(6), [-2.0, 2.0]).astype(np.float32)
    model = tiny.write_linear(tmp_path / "m.onnx", weight, np.float32([6.0, -6.0]), shape=("n", 6))
    train = tiny.write_data(tmp_path / "train.npz", *unbalanced(600, 1))
    test = tiny.write_data(tmp_path / "test.npz", *unbalanced(300, 2))
    rare = int(unbalanced(300, 2)[1].sum())
    outcome = audit(
        "harden", model, "--data", train, "--eval", test, "--radius", "0.2", "--epochs", 6,
        "--rate", "0.1", "--batch-size", 32, "--min-clean", "0.9", "--delta", "0.05",
        "--effort", "quick", "--certify", "none", "--out", tmp_path / "out",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    said = (
        f"class 1: of its {rare} evaluation samples {rare} were classified correctly before and 0"
    )
    assert f"warning: Hardening lost {said}" in outcome.out
    report = HardenReport.model_validate_json((tmp_path / "out" / "harden.json").read_text())
    assert report.clean.after > 0.9
    assert said in report.warnings[-1]
    page = (tmp_path / "out" / "harden.html").read_text(encoding="utf-8")
    assert said in page


def test_the_original_is_never_overwritten(case: Case) -> None:
    before = case.model.read_bytes()
    outcome = case.harden("--radius", "0.05", out=case.folder)
    assert outcome.code == 2
    assert "name another folder" in outcome.err
    assert case.model.read_bytes() == before


def test_evaluation_on_the_training_data_is_warned_of(case: Case, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = audit(
        "harden", case.model, "--data", case.train, "--eval", case.train, "--epochs", 1, *QUICK,
        "--radius", "0.05", "--out", out,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    report = HardenReport.model_validate_json((out / "harden.json").read_text())
    assert "the same file" in report.warnings[0]
    with np.load(case.train) as train, np.load(case.test) as test:
        x, y = np.r_[test["x"], train["x"][:40]], np.r_[test["y"], train["y"][:40]]
    mixed = tiny.write_data(tmp_path / "mixed.npz", x, y)
    outcome = audit(
        "harden", case.model, "--data", case.train, "--eval", mixed, "--epochs", 1, *QUICK,
        "--radius", "0.05", "--out", tmp_path / "other",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    # Those of the 40 that were not kept out of training.
    found = re.search(r"(\d+) of 190 evaluation samples are among", outcome.out)
    assert found is not None
    assert 30 <= int(found[1]) <= 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--with", "luck"), "Unknown method 'luck'"),
        (("--radius", "0.1,0.2"), "one number per --threat"),
        (("--samples", "50"), "too few"),
        (("--resume",), "to resume from"),
        (("--freeze", "nothing.*"), "matches no weight: choose from"),
        (("--with", "wagan", "--threat", "wasserstein"), "A generator needs images of 28×28"),
    ],
)
def test_wrong_options(case: Case, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    outcome = case.harden(*options, out=tmp_path / "out")
    assert outcome.code == 2, outcome
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "out" / "m.onnx").exists()
