"""Whole scans of tiny models: files, numbers, exit codes, manners."""

import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tiny
import torch
from command import audit, read_report, scan

from audit.data import open_data
from audit.demo import data_path, model_path
from audit.statistics.knapsack import adversarial_accuracy
from reports.parsing import parse_report

SHAPE = (1, 6, 6)
AUDIT = (sys.executable, "-c", "from audit.cli import main; main()")
"""The command in a process of its own."""

NORMS = {"linf": np.inf, "l2": 2, "l1": 1}


def rows_of(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((out / "samples.csv").read_text(encoding="utf-8"))))


def radii(rows: list[dict[str, str]], metric: str) -> np.ndarray:
    """Attacked radii of all samples, inf where nothing was found."""
    return np.array([float(row[f"{metric}_attacked"] or "inf") for row in rows])


def answers(model: Path, x: np.ndarray) -> np.ndarray:
    """What onnxruntime alone says, one sample per call, in the model's own input form."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    return np.concatenate([session.run(None, {entry.name: row[None]})[0] for row in x])


def wins(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """By how much the label's score is above all others, relative to the scores' size."""
    own = np.take_along_axis(scores, labels[:, None], 1)[:, 0]
    others = scores.copy()
    np.put_along_axis(others, labels[:, None], -np.inf, 1)
    return (own - others.max(1)) / max(1.0, np.abs(scores).max())


def check_files(
    out: Path, model: Path, data: Path, *, view: Any = None, columns: Any = None
) -> None:
    """Everything written agrees with everything else, and with onnxruntime.

    ``view`` turns samples into model inputs, ``columns`` scores into one column per class.
    """
    view, columns = view or (lambda x: x), columns or (lambda scores: scores)
    report = read_report(out)
    parse_report((out / "report.json").read_text(encoding="utf-8"))
    rows = rows_of(out)
    low, high = report["model"]["input"]["low"], report["model"]["input"]["high"]
    dataset = open_data(data, low=low, high=high)
    index = np.array([int(row["index"]) for row in rows])
    x0, labels = dataset.read(index), dataset.labels[index]
    assert [int(row["label"]) for row in rows] == labels.tolist()
    assert len(set(index.tolist())) == len(rows) == report["data"]["evaluated"]
    assert report["data"]["available"] == len(dataset)

    scores = columns(answers(model, view(x0)))
    prediction, correct = scores.argmax(1), wins(scores, labels) > 0
    assert [int(row["prediction"]) for row in rows] == prediction.tolist()
    assert [row["correct"] == "true" for row in rows] == correct.tolist()
    assert report["data"]["correct"] == correct.sum()
    assert report["clean"]["value"] == correct.mean()

    archive = np.load(out / "adversarial.npz", allow_pickle=False)
    assert {threat["metric"] for threat in report["threats"]} == {
        name.removesuffix("_index") for name in archive if name.endswith("_index")
    }
    for threat in report["threats"]:
        metric = threat["metric"]
        r = radii(rows, metric)
        assert (r[~correct] == 0).all()
        assert (r[correct] > 0).all()
        found = correct & np.isfinite(r)
        assert [bool(row[f"{metric}_attack"]) for row in rows] == found.tolist()

        # Every example once more, by onnxruntime and in float64.
        where = {int(i): place for place, i in enumerate(index)}
        places = [where[int(i)] for i in archive[f"{metric}_index"]]
        assert sorted(places) == np.flatnonzero(found).tolist()
        examples = archive[f"{metric}_x"]
        assert examples.dtype == np.float32
        assert examples.min(initial=low) >= low
        assert examples.max(initial=high) <= high
        if places:
            # A tie counts as an error, and a batch of another size moves the last digit.
            scores = columns(answers(model, view(examples)))
            assert wins(scores, labels[places]).max() <= 1e-6
            says = np.take_along_axis(scores, archive[f"{metric}_prediction"][:, None], 1)[:, 0]
            assert (says >= scores.max(1) - 1e-6 * max(1, np.abs(scores).max())).all()
            moved = (examples.astype(np.float64) - x0[places].astype(np.float64)).reshape(
                len(places), -1
            )
            distance = np.linalg.norm(moved, NORMS[metric], axis=1)
            np.testing.assert_allclose(r[places], distance, rtol=1e-12, atol=0)

        # The curves are the radii, and nothing else.
        certified = np.array([float(row[f"{metric}_certified"]) for row in rows])
        assert (certified <= r).all()
        for curve in threat["curves"]:
            for point in curve["points"]:
                delta, value = point["delta"], point["attacked"]["value"]
                expected = adversarial_accuracy(r, [delta], float(curve["order"]))[0]
                assert value == pytest.approx(expected if delta else correct.mean(), abs=1e-12)
                share = point["robustness"]["attacked"]["value"]
                assert share == pytest.approx(value / correct.mean(), abs=1e-12)
                assert point["certified"]["value"] <= value
        names = {attack["name"]: attack for attack in threat["attacks"]}
        assert {row[f"{metric}_attack"] for row in rows} - {""} <= set(names)
        assert max((attack["broken"] or 0 for attack in names.values()), default=0) <= found.sum()


# The demo model


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    scan(
        model_path(), data_path(), "--samples", "40", "--threat", "linf,l2", "--effort", "quick",
        "--delta", "0,2/255,0.05,0.1,1", "--order", "inf,2,1.5,1", out=out,
    )  # fmt: skip
    return out


def test_demo_files(demo: Path) -> None:
    assert sorted(path.name for path in demo.iterdir()) == [
        "adversarial.npz", "report.html", "report.json", "samples.csv",
    ]  # fmt: skip
    check_files(demo, model_path(), data_path())


def test_demo_is_attacked(demo: Path) -> None:
    """An attack that does nothing would pass every consistency check."""
    curves = {
        (threat["metric"], curve["order"]): [
            point["attacked"]["value"] for point in curve["points"]
        ]
        for threat in read_report(demo)["threats"]
        for curve in threat["curves"]
    }
    assert set(curves) == {(m, p) for m in ("linf", "l2") for p in ("inf", "2", "1.5", "1")}
    clean = read_report(demo)["clean"]["value"]
    for (metric, _), values in curves.items():
        assert values == sorted(values, reverse=True)
        assert values[0] == clean
        # A mean budget takes at least as much as the same one for each sample, at every order.
        assert all(a <= b for a, b in zip(values, curves[metric, "inf"], strict=True))
    assert curves["linf", "inf"][3] < 0.7 * clean
    assert curves["linf", "inf"][4] == 0
    assert curves["l2", "inf"][4] < 0.8 * clean


def test_demo_html_shows_the_numbers(demo: Path) -> None:
    html = (demo / "report.html").read_text(encoding="utf-8")
    assert "<html" in html
    assert "http://" not in re.sub(r"http://www\.w3\.org/\S+", "", html).split("<body")[0]
    assert "data:image/png;base64," in html


def test_saved_report_renders_alike(demo: Path, tmp_path: Path) -> None:
    saved = demo / "report.json"
    shown = audit("report", saved)
    assert (shown.code, shown.err) == (0, "")
    assert "linf" in shown.out
    assert "\x1b" not in shown.out
    for kind in ("html", "json", "text"):
        file = tmp_path / kind
        assert audit("report", saved, "--format", kind, "-o", file).code == 0
        assert file.read_text(encoding="utf-8") == audit("report", saved, "-f", kind).out
    assert (tmp_path / "json").read_text() == saved.read_text()
    assert (tmp_path / "html").read_text() == (demo / "report.html").read_text()


def test_both_denominators_are_shown(demo: Path) -> None:
    report = read_report(demo)
    data = report["data"]
    assert 0 < data["correct"] < data["evaluated"] == 40 < data["available"] == 1000
    text = audit("report", demo / "report.json").out
    assert f"{data['correct']} of 40 correct" in text
    assert "all 40 samples" in text
    assert "40 of 1,000 samples" in text
    assert any("random subset of 40 of 1000" in warning for warning in report["warnings"])


# A linear model, whose radii have a closed form


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, np.ndarray]]:
    """Two classes, samples so far from the box that it is never in the way."""
    folder = tmp_path_factory.mktemp("linear")
    rng = np.random.default_rng(3)
    w = rng.uniform(0.5, 1.5, 24) * rng.choice([-1, 1], 24)
    x = np.clip(0.5 + rng.normal(0, 0.04, (150, 24)), 0.3, 0.7).astype(np.float32)
    value = (x.astype(np.float64) - 0.5) @ w
    y = (value > 0).astype(np.int64)
    wrong = rng.permutation(150)[:12]
    y[wrong] = 1 - y[wrong]
    weight = np.stack([np.zeros(24), w], axis=1).astype(np.float32)
    bias = np.array([0, -0.5 * w.sum()], np.float32)
    model = tiny.write_linear(folder / "model.onnx", weight, bias, shape=("N", 24))
    margin = np.abs(value)
    margin[wrong] = 0
    duals = {"linf": 1, "l2": 2, "l1": np.inf}
    exact = {metric: margin / np.linalg.norm(w, dual) for metric, dual in duals.items()}
    return model, tiny.write_data(folder / "data.npz", x, y), exact


def test_linear_model_is_measured_exactly(
    linear: tuple[Path, Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    model, data, exact = linear
    deltas = {
        "linf": "0.002,0.005,0.01,0.02",
        "l2": "0.01,0.03,0.06,0.1",
        "l1": "0.02,0.06,0.1,0.2",
    }
    for metric, grid in deltas.items():
        out = tmp_path / metric
        options = ("--threat", metric, "--delta", grid, "--order", "inf,2,1")
        report = scan(model, data, *options, out=out)
        found, known = radii(rows_of(out), metric), exact[metric]
        # Never nearer than possible (rounding of float32 scores aside), and hardly farther.
        assert (found >= known * (1 - 1e-4) - 1e-6).all()
        assert (found <= known * 1.02 + 1e-5).all()
        (threat,) = report["threats"]
        for curve in threat["curves"]:
            order = float(curve["order"])
            for point in curve["points"]:
                delta, value = point["delta"], point["attacked"]["value"]
                above = adversarial_accuracy(known * 1.02 + 1e-5, [delta], order)[0]
                below = adversarial_accuracy(known * (1 - 1e-4) - 1e-6, [delta], order)[0]
                assert below <= value <= above
                assert above - below < 0.03
                if order == np.inf:
                    assert value * 150 == pytest.approx(round(value * 150))
        check_files(out, model, data)


def test_intervals_of_an_exact_model(
    linear: tuple[Path, Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    """The clean interval is Clopper-Pearson's for 138 of 150."""
    model, data, _ = linear
    report = scan(
        model, data, "--threat", "l2", "--attack", "fgsm", "--delta", "0.05", out=tmp_path / "out"
    )
    clean = report["clean"]
    assert clean["value"] == 138 / 150
    assert clean["low"] == pytest.approx(0.8644, abs=1e-3)
    assert clean["high"] == pytest.approx(0.9580, abs=1e-3)


# Kinds of models and data


def images(folder: Path, shape: tuple[int, ...] = SHAPE, n: int = 60) -> tuple[Any, Path]:
    shown = tiny.patterns(shape)
    x, y = tiny.noisy(shown, n)
    return shown, tiny.write_data(folder / "data.npz", x, y)


QUICK = ("--threat", "linf", "--delta", "0.02,0.1", "--attack", "minimal,pgd")


@pytest.mark.parametrize("head", ["", "Softmax", "LogSoftmax"])
@pytest.mark.parametrize("batch", ["N", 1])
def test_heads_and_fixed_batches(tmp_path: Path, head: str, batch: int | str) -> None:
    shown, data = images(tmp_path)
    model = tiny.write_linear(
        tmp_path / "model.onnx", *tiny.matched(shown), shape=(batch, *SHAPE), head=head
    )
    report = scan(model, data, *QUICK, out=tmp_path / "out")
    check_files(tmp_path / "out", model, data)
    assert report["model"]["gradient"] == "lifted"
    assert report["model"]["output"] == ("probabilities" if head == "Softmax" else "logits")
    assert report["model"]["input"]["shape"] == [None if batch == "N" else 1, *SHAPE]
    assert report["threats"][0]["curves"][0]["points"][1]["attacked"]["value"] < 0.5


def test_softmax_and_logits_give_the_same_radii(tmp_path: Path) -> None:
    shown, data = images(tmp_path)
    found = []
    for head in ("", "Softmax"):
        model = tiny.write_linear(
            tmp_path / f"m{head}.onnx", *tiny.matched(shown), shape=("N", *SHAPE), head=head
        )
        scan(model, data, *QUICK, out=tmp_path / f"out{head}")
        found.append(radii(rows_of(tmp_path / f"out{head}"), "linf"))
    np.testing.assert_allclose(found[0], found[1], rtol=0.02)


def test_channels_last(tmp_path: Path) -> None:
    shape = (3, 6, 6)
    shown, data = images(tmp_path, shape)
    model = tiny.write_linear(
        tmp_path / "model.onnx", *tiny.matched(shown.transpose(0, 2, 3, 1)), shape=("N", 6, 6, 3)
    )
    report = scan(model, data, *QUICK, out=tmp_path / "out")
    assert report["model"]["input"]["layout"] == "hwc"
    assert report["clean"]["value"] > 0.9
    check_files(tmp_path / "out", model, data, view=lambda x: x.transpose(0, 2, 3, 1))
    # Examples are kept as C, H, W whatever the model takes.
    assert np.load(tmp_path / "out" / "adversarial.npz")["linf_x"].shape[1:] == shape


@pytest.mark.parametrize("head", ["Sigmoid", ""])
def test_one_score_for_two_classes(tmp_path: Path, head: str) -> None:
    shown = tiny.patterns(SHAPE, classes=1)
    rng = np.random.default_rng(5)
    y = rng.integers(0, 2, 80)
    x = 0.5 + 0.1 * (2 * y - 1)[:, None, None, None] * shown + rng.normal(0, 0.1, (80, *SHAPE))
    data = tiny.write_data(tmp_path / "data.npz", np.clip(x, 0, 1).astype(np.float32), y)
    model = tiny.write_linear(
        tmp_path / "model.onnx", *tiny.matched(shown), shape=("N", *SHAPE), head=head
    )
    report = scan(model, data, *QUICK, out=tmp_path / "out")
    assert report["model"]["classes"] == 2
    assert report["clean"]["value"] > 0.9
    threshold = 0.5 if head else 0.0
    check_files(
        tmp_path / "out", model, data, columns=lambda s: np.concatenate([threshold + 0 * s, s], 1)
    )
    assert report["threats"][0]["curves"][0]["points"][1]["attacked"]["value"] < 0.7


def test_mean_and_std_as_fractions(tmp_path: Path) -> None:
    """Given per channel; radii stay in the unit of the data."""
    shape = (3, 4, 4)
    shown, data = images(tmp_path, shape)
    weight, bias = tiny.matched(shown)
    plain = tiny.write_linear(tmp_path / "plain.onnx", weight, bias, shape=("N", *shape))
    mean, std = np.array([0.25, 0.5, 0.1]), np.array([0.5, 0.25, 51 / 255])
    spread = np.repeat(std, 16)[:, None].astype(np.float32)
    shifted = (bias + np.repeat(mean, 16) @ weight).astype(np.float32)
    other = tiny.write_linear(
        tmp_path / "other.onnx", weight * spread, shifted, shape=("N", *shape)
    )
    scan(plain, data, *QUICK, out=tmp_path / "a")
    report = scan(
        other, data, *QUICK, "--mean", "1/4,.5", "--mean", "0.1", "--std", "1/2,25e-2,51/255",
        out=tmp_path / "b",
    )  # fmt: skip
    assert report["model"]["input"]["mean"] == mean.tolist()
    assert report["model"]["input"]["std"] == std.tolist()
    a, b = (radii(rows_of(tmp_path / name), "linf") for name in "ab")
    np.testing.assert_allclose(a, b, rtol=0.02)
    check_files(
        tmp_path / "b", other, data,
        view=lambda x: ((x - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)).astype(np.float32),
    )  # fmt: skip


def test_box_of_0_to_255(tmp_path: Path) -> None:
    """Radii and budgets are in the unit of the box."""
    shown, data = images(tmp_path)
    weight, bias = tiny.matched(shown)
    plain = tiny.write_linear(tmp_path / "plain.onnx", weight, bias, shape=("N", *SHAPE))
    bytes_ = tiny.write_linear(
        tmp_path / "bytes.onnx", weight, bias, shape=("N", *SHAPE), scale=1 / 255
    )
    x = np.load(data)
    wide = tiny.write_data(tmp_path / "wide.npz", x["x"] * np.float32(255), x["y"])
    scan(plain, data, *QUICK, out=tmp_path / "a")
    report = scan(
        bytes_, wide, "--threat", "linf", "--delta", "5.1,25.5", "--attack", "minimal,pgd",
        "--low", "0", "--high", "255", out=tmp_path / "b",
    )  # fmt: skip
    a, b = (radii(rows_of(tmp_path / name), "linf") for name in "ab")
    # Other units, other rounding, so the search may end elsewhere for a few.
    np.testing.assert_allclose(255 * a, b, rtol=0.1)
    assert np.median(np.abs(255 * a[a > 0] / b[a > 0] - 1)) < 1e-3
    assert report["model"]["input"]["high"] == 255
    check_files(tmp_path / "b", bytes_, wide)


def test_default_budgets_grow_with_the_box(tmp_path: Path) -> None:
    shown, data = images(tmp_path)
    model = tiny.write_linear(
        tmp_path / "model.onnx", *tiny.matched(shown), shape=("N", *SHAPE), scale=0.5
    )
    x = np.load(data)
    wide = tiny.write_data(tmp_path / "wide.npz", x["x"] * 2, x["y"])
    report = scan(
        model, wide, "--attack", "fgsm", "--threat", "linf", "--high", "2", out=tmp_path / "out"
    )
    points = report["threats"][0]["curves"][0]["points"]
    assert [point["delta"] for point in points][:2] == [2 / 255, 4 / 255]


def test_torchscript_is_the_same_model(tmp_path: Path) -> None:
    shown, data = images(tmp_path)
    weight, bias = tiny.matched(shown)
    onnx_file = tiny.write_linear(tmp_path / "model.onnx", weight, bias, shape=("N", *SHAPE))
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 10)).eval()
    with torch.no_grad():
        module[1].weight.copy_(torch.from_numpy(weight.T))
        module[1].bias.copy_(torch.from_numpy(bias))
    script = tmp_path / "model.pt"
    torch.jit.script(module).save(str(script))
    one = scan(onnx_file, data, *QUICK, out=tmp_path / "a")
    two = scan(script, data, *QUICK, "--trust-model", out=tmp_path / "b")
    assert one["clean"] == two["clean"]
    assert (two["model"]["format"], two["model"]["gradient"]) == ("torchscript", "native")
    a, b = (radii(rows_of(tmp_path / name), "linf") for name in "ab")
    np.testing.assert_allclose(a, b, rtol=0.02)
    check_files(tmp_path / "b", onnx_file, data)


def test_no_attack_found_is_an_empty_cell(tmp_path: Path) -> None:
    """Never a zero, never 'robust': the row says that nothing is known."""
    shown, data = images(tmp_path)
    model = tiny.write_linear(tmp_path / "model.onnx", *tiny.matched(shown), shape=("N", *SHAPE))
    out = tmp_path / "out"
    options = ("--threat", "l1", "--attack", "fgsm", "--delta", "1/100000", "--order", "inf")
    report = scan(model, data, *options, out=out)
    rows = rows_of(out)
    assert all((row["l1_attacked"] == "") == (row["correct"] == "true") for row in rows)
    assert report["threats"][0]["radii"]["attacked"]["quantiles"]["0.9"] is None
    check_files(out, model, data)


def test_repeated_names_count_once(tmp_path: Path) -> None:
    shown, data = images(tmp_path)
    model = tiny.write_linear(tmp_path / "model.onnx", *tiny.matched(shown), shape=("N", *SHAPE))
    options = (
        "--threat",
        "linf,l2",
        "--threat",
        "linf",
        "--order",
        "2,inf,2.0",
        "--attack",
        "fgsm",
    )
    report = scan(model, data, *options, "--delta", ".1,0.1", out=tmp_path / "out")
    assert [threat["metric"] for threat in report["threats"]] == ["linf", "l2"]
    assert [curve["order"] for curve in report["threats"][0]["curves"]] == ["2", "inf"]
    assert [len(curve["points"]) for curve in report["threats"][0]["curves"]] == [1, 1]
    assert list(rows_of(tmp_path / "out")[0]).count("linf_attacked") == 1


def test_neighbouring_orders_keep_their_own_curves(tmp_path: Path) -> None:
    shown, data = images(tmp_path)
    model = tiny.write_linear(tmp_path / "model.onnx", *tiny.matched(shown), shape=("N", *SHAPE))
    options = ("--threat", "linf", "--order", "2,2.0000001", "--attack", "fgsm", "--delta", ".1")
    report = scan(model, data, *options, out=tmp_path / "out")
    assert [curve["order"] for curve in report["threats"][0]["curves"]] == ["2", "2.0000001"]
    assert "--order 2,2.0000001" in report["config"]["command"]


# Repeating a scan


def test_the_reproduction_command_repeats_the_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "a folder's name"
    folder.mkdir()
    shape = (3, 4, 4)
    shown, data = images(folder, shape)
    weight, bias = tiny.matched(shown.transpose(0, 2, 3, 1))
    model = tiny.write_linear(folder / "model.onnx", weight, bias, shape=("N", 4, 4, 3))
    first = scan(
        model, data, "--threat", "linf", "--threat", "l2", "--order", "inf,1.2345678901", "--delta",
        "1/255,1/3", "--attack", "pgd,fgsm", "--samples", "50", "--seed", "7", "--confidence",
        "0.9", "--batch-size", "9", "--layout", "hwc", "--mean", "1/3,0,0", "--std", "1,1/1.1,1"
        .replace("1/1.1", "10/11"), "--low", "0", "--certify", "none", "--strict", "--fail-under",
        "1/9", "--effort", "quick", out=folder / "out", code=1,
    )  # fmt: skip
    before = (
        (folder / "out/samples.csv").read_bytes(),
        dict(np.load(folder / "out/adversarial.npz")),
    )
    words = shlex.split(first["config"]["command"])
    assert words[:2] == ["audit", "scan"]
    assert audit(*words[1:]).code == 1
    second = read_report(folder / "out")
    assert (folder / "out/samples.csv").read_bytes() == before[0]
    after = np.load(folder / "out/adversarial.npz")
    assert all(np.array_equal(after[name], array) for name, array in before[1].items())
    assert without_times(second) == without_times(first)


def without_times(report: dict[str, Any]) -> dict[str, Any]:
    """The report but for the clock."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k not in ("seconds", "created")}
        return [strip(item) for item in value] if isinstance(value, list) else value

    cleaned: dict[str, Any] = strip(report)
    return cleaned


# Exit codes


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that nothing is wrong with, and samples enough for narrow intervals."""
    folder = tmp_path_factory.mktemp("good")
    shown, data = images(folder, n=600)
    weight, bias = tiny.matched(shown)
    return tiny.write_linear(folder / "m.onnx", weight, bias, shape=("N", *SHAPE)), data


def gated(good: tuple[Path, Path], out: Path, *options: object, code: int) -> dict[str, Any]:
    words = ("--threat", "linf", "--order", "inf", "--delta", "0.02", "--effort", "quick")
    return scan(*good, *words, *options, out=out, code=code)


def test_gates(good: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    point = gated(good, out, code=0)["threats"][0]["curves"][0]["points"][0]["attacked"]
    assert read_report(out)["verdict"] == "none"
    low, value = point["low"], point["value"]
    assert 0.3 < low < value - 0.01
    passed = gated(good, out, "--fail-under", low - 0.001, code=0)
    assert (passed["verdict"], passed["gates"][0]["status"]) == ("pass", "pass")
    assert passed["gates"][0]["value"] == low
    between = (low + value) / 2
    failed = gated(good, out, "--fail-under", between, code=1)
    assert (failed["verdict"], failed["gates"][0]["status"]) == ("fail", "fail")
    unsure = gated(good, out, "--fail-under", between, "--strict", code=4)
    assert (unsure["verdict"], unsure["gates"][0]["status"]) == ("inconclusive", "inconclusive")
    lost = gated(good, out, "--fail-under", value + 0.001, "--strict", code=1)
    assert lost["verdict"] == "fail"


def test_strict_with_doubtful_evidence(good: tuple[Path, Path], tmp_path: Path) -> None:
    """Fifty samples are a warning: nothing by default, inconclusive when strict."""
    report = gated(good, tmp_path / "out", "--samples", "50", code=0)
    assert "warn" in {entry["status"] for entry in report["health"]}
    gated(good, tmp_path / "out", "--samples", "50", "--strict", code=4)
    gated(good, tmp_path / "out", "--strict", code=0)


def test_a_comparison_is_doubtful(tmp_path: Path) -> None:
    """No gradient passes a comparison, so only black-box attacks run: weaker evidence, said so."""
    shown, data = images(tmp_path, n=120)
    model = tiny.write_linear(
        tmp_path / "model.onnx", *tiny.matched(shown), shape=("N", *SHAPE), step="Greater"
    )
    options = ("--threat", "linf", "--delta", "0.02,0.1")
    report = scan(model, data, *options, out=tmp_path / "out")
    assert report["model"]["gradient"] == "none"
    assert [e["status"] for e in report["health"] if e["id"] == "gradients"] == ["warn"]
    assert [attack["name"] for attack in report["threats"][0]["attacks"]] == [
        "random",
        "hopskipjump",
        "square",
    ]
    check_files(tmp_path / "out", model, data)
    scan(model, data, *options, "--strict", out=tmp_path / "out", code=4)
    # None of the attacks that are asked for can run: the numbers say nothing.
    asked = scan(model, data, *QUICK, out=tmp_path / "out", code=4)
    statuses = {attack["name"]: attack["status"] for attack in asked["threats"][0]["attacks"]}
    assert statuses == {"minimal": "not_applicable", "pgd": "not_applicable"}


@pytest.mark.parametrize("options", [(), ("--strict",), ("--fail-under", "0")])
def test_a_step_function_is_inconclusive(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Its gradients are zero, so that it withstands them says nothing."""
    shown = tiny.patterns(SHAPE)
    x, y = tiny.noisy(shown, 120)
    data = tiny.write_data(tmp_path / "data.npz", x, y)
    model = tiny.write_linear(
        tmp_path / "model.onnx", *tiny.matched(shown), shape=("N", *SHAPE), step="Sign"
    )
    report = scan(model, data, *QUICK, *options, out=tmp_path / "out", code=4)
    assert "fail" in {entry["status"] for entry in report["health"] if entry["id"] == "gradients"}
    assert report["verdict"] == "inconclusive"
    assert "RED" in audit("report", tmp_path / "out" / "report.json").out
    check_files(tmp_path / "out", model, data)


# Interrupts


def test_an_interrupt_keeps_what_was_found(
    good: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C during the second metric: the first one stays whole."""
    from audit.scanning import scan as module

    attack_all, seen = module.attack_all, []

    def stopped(state: Any, run: Any, progress: Any) -> None:
        seen.append(run.metric.name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        attack_all(state, run, progress)

    monkeypatch.setattr(module, "attack_all", stopped)
    out = tmp_path / "out"
    words = ("--threat", "linf,l2", "--delta", "0.02", "--samples", "40", "--fail-under", "0.1")
    report = scan(*good, *words, out=out, code=130)
    assert report["status"] == "interrupted"
    assert [threat["metric"] for threat in report["threats"]] == ["linf", "l2"]
    assert report["threats"][1]["attacks"] == []
    assert any("interrupted" in warning for warning in report["warnings"])
    assert report["verdict"] == "inconclusive"
    assert {gate["status"] for gate in report["gates"]} <= {"inconclusive", "fail"}
    check_files(out, *good)
    assert "INTERRUPTED" in audit("report", out / "report.json").out


def test_an_interrupt_before_anything_was_measured(
    good: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("audit.api.inputs.open_data", stopped)
    outcome = audit("scan", good[0], "--data", good[1], "--out", tmp_path / "out")
    assert outcome.code == 130
    assert re.fullmatch(r"audit: Interrupted .*\.\n", outcome.err)
    assert not (tmp_path / "out").exists()


def read_to_the_end(terminal: int) -> bytes:
    """What was written to a pseudo-terminal until its other end was closed."""
    parts = []
    with suppress(OSError):  # how Linux says that it has been closed
        while part := os.read(terminal, 65536):
            parts.append(part)
    return b"".join(parts)


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C reaches what we start, even where these tests run in the background of a shell.

    A shell without job control has its background ignore SIGINT, and that is inherited.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals and signals are of Unix")
def test_a_signal_on_a_terminal(tmp_path: Path, number: signal.Signals) -> None:
    """The progress bar is on stderr; Ctrl-C or SIGTERM after it has shown up writes a report."""
    import pty

    out = tmp_path / "out"
    ours, theirs = pty.openpty()
    # A terminal no program would clear a line on is no place for a bar.
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [*AUDIT, "scan", model_path(), "--data", data_path(), "-o", out,
         "--attack", "minimal"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, env=env,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 60
    while b": minimal" not in shown and time.monotonic() < deadline:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the other end has been closed: the process has ended
            break
    assert b": minimal" in shown, shown
    # Twice at once, as `timeout` does: the second one must not lose the report.
    process.send_signal(number)
    process.send_signal(number)
    # The bars go on: a terminal that nobody reads from fills up, and writing to it waits.
    drain = threading.Thread(target=read_to_the_end, args=(ours,))
    drain.start()
    try:
        text = process.communicate(timeout=60)[0].decode()
    finally:
        process.kill()  # one that does not listen is not left to the tests that follow
        drain.join()
        os.close(ours)
    assert process.returncode == 130
    report = read_report(out)
    assert report["status"] == "interrupted"
    assert report["data"]["evaluated"] == 1000
    assert "INTERRUPTED" in text
    assert "\x1b" not in text
    check_files(out, model_path(), data_path())


# Manners


def test_quiet_is_one_line(good: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = (
        "scan",
        good[0],
        "--data",
        good[1],
        "-o",
        out,
        "-n",
        40,
        "--attack",
        "fgsm",
        "-q",
        "--effort",
        "quick",
    )
    outcome = audit(*words)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.count("\n") == 1
    assert str(out) in outcome.out
    assert "AMBER" in outcome.out
    gated_ = audit(*words, "--delta", "0.1", "--fail-under", "0.99")
    assert gated_.code == 1
    assert "fail" in gated_.out
    assert gated_.out.count("\n") == 1


def test_piped_output_is_plain(good: tuple[Path, Path], tmp_path: Path) -> None:
    """No escape codes and no line wider than the table promises."""
    words = ("scan", good[0], "--data", good[1], "-o", tmp_path / "out", "-n", 40)
    outcome = audit(*words, "--attack", "fgsm", "--effort", "quick", "--verbose")
    assert (outcome.code, outcome.err) == (0, "")
    assert "\x1b" not in outcome.out
    assert str(tmp_path / "out" / "report.html") in outcome.out
    tables = outcome.out.split("Reproduce")[0].splitlines()
    assert max(map(len, tables)) <= 100 or any(str(tmp_path) in line for line in tables)


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of Unix")
def test_colour_on_a_terminal_only_where_wanted(good: tuple[Path, Path], tmp_path: Path) -> None:
    import pty

    shown = {}
    processes = {}
    for no_color in ("", "1"):
        ours, theirs = pty.openpty()
        env = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": no_color, "COLUMNS": "100"}
        processes[no_color] = ours, subprocess.Popen(
            [*AUDIT, "scan", good[0], "--data", good[1], "-o", tmp_path / f"out{no_color}",
             "--samples", "40", "--attack", "fgsm", "--threat", "linf", "--delta", "0.1",
             "--effort", "quick", "--certify", "none"],
            stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, env=env,
        )  # fmt: skip
        os.close(theirs)
    for no_color, (ours, process) in processes.items():
        text = read_to_the_end(ours)
        os.close(ours)
        assert process.communicate(timeout=60)[1] == b""
        assert process.returncode == 0
        assert b"reliability" in text
        shown[no_color] = text
    assert b"\x1b[" in shown[""]
    assert b"\x1b" not in shown["1"]


def test_a_reader_that_goes_changes_no_exit_code(good: tuple[Path, Path], tmp_path: Path) -> None:
    """`audit scan … | head` must not turn a failed gate into a passed one, nor the reverse."""
    out = tmp_path / "out"
    words = ["--samples", "40", "--attack", "fgsm", "--delta", "0.1", "--threat", "linf",
             "--effort", "quick", "--certify", "none"]  # fmt: skip
    gates = {"0.99": 1, "0": 0}
    processes = {}
    for minimum in gates:
        read, write = os.pipe()
        os.close(read)
        processes[minimum] = subprocess.Popen(
            [*AUDIT, "scan", good[0], "--data", good[1], *words,
             "-o", f"{out}{minimum}", "--fail-under", minimum],
            stdout=write, stderr=subprocess.PIPE,
        )  # fmt: skip
        os.close(write)
    for minimum, process in processes.items():
        assert process.communicate(timeout=60)[1] == b""
        assert process.returncode == gates[minimum]
        assert json.loads(Path(f"{out}{minimum}/report.json").read_text())["status"] == "complete"
