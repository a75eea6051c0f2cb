"""`audit scan --threat wasserstein` from the command line: files, refusals, exit codes."""

import csv
from pathlib import Path

import numpy as np
import ot
import pytest
import tiny
from command import audit, scan

SHAPE = (1, 6, 6)
QUICK = ("--effort", "quick", "--order", "inf", "--delta", "0.05")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Ten patterns, and samples that show them faintly."""
    folder = tmp_path_factory.mktemp("pictures")
    shown = tiny.patterns(SHAPE)
    model = tiny.write_linear(folder / "model.onnx", *tiny.matched(shown), shape=("n", *SHAPE))
    return model, tiny.write_data(folder / "data.npz", *tiny.noisy(shown, 6))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same without rows and columns."""
    folder = tmp_path_factory.mktemp("table")
    shown = tiny.patterns((36,))
    model = tiny.write_linear(folder / "model.onnx", *tiny.matched(shown), shape=("n", 36))
    return model, tiny.write_data(folder / "data.npz", *tiny.noisy(shown, 12))


def distance(x0: np.ndarray, x: np.ndarray) -> float:
    """All mass of one image to all of the other, by POT alone."""
    a, b = (np.asarray(image, dtype=np.float64).ravel() for image in (x0, x))
    where = np.stack(np.divmod(np.arange(36), 6), 1).astype(np.float64)
    return float(ot.emd2(a / a.sum(), b / b.sum(), ot.dist(where, where, metric="euclidean")))


def test_files_hold_what_another_solver_confirms(
    pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    model, data = pictures
    out = tmp_path / "out"
    report = scan(model, data, "--threat", "wasserstein", *QUICK, out=out)
    (threat,) = report["threats"]
    assert threat["metric"] == "wasserstein"
    assert [attack["name"] for attack in threat["attacks"]] == [
        "fgsm", "minimal", "transport", "w-fgsm",
    ]  # fmt: skip
    assert {attack["status"] for attack in threat["attacks"]} == {"ran"}
    with (out / "samples.csv").open(newline="") as file:
        rows = {int(row["index"]): row for row in csv.DictReader(file)}
    with np.load(out / "adversarial.npz") as archive, np.load(data) as known:
        index, examples, x0 = archive["wasserstein_index"], archive["wasserstein_x"], known["x"]
    assert len(index) == report["data"]["correct"] > 3
    assert ((examples >= 0) & (examples <= 1)).all()
    for row, x in zip(index, examples, strict=True):
        assert x.sum(dtype=np.float64) == pytest.approx(x0[row].sum(dtype=np.float64), rel=1e-6)
        told = float(rows[int(row)]["wasserstein_attacked"])
        assert told == pytest.approx(distance(x0[row], x), rel=1e-4)
    (point,) = threat["curves"][0]["points"]
    radii = np.array([float(row["wasserstein_attacked"]) for row in rows.values()])
    assert point["attacked"]["value"] == pytest.approx((radii > 0.05).mean())


def test_tables_are_refused_in_a_sentence(table: tuple[Path, Path], tmp_path: Path) -> None:
    model, data = table
    outcome = audit(
        "scan", model, "--data", data, "--threat", "wasserstein", "--out", tmp_path / "out"
    )
    assert outcome.code == 2
    assert outcome.out == ""
    assert "moves mass between the pixels of images" in " ".join(outcome.err.split())
    assert "choose linf, l2 or l1" in " ".join(outcome.err.split())
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "out").exists()


def test_beside_a_norm_the_norm_is_measured(table: tuple[Path, Path], tmp_path: Path) -> None:
    report = scan(*table, "--threat", "linf,wasserstein", *QUICK, out=tmp_path / "out")
    assert [threat["metric"] for threat in report["threats"]] == ["linf"]
    (entry,) = [entry for entry in report["health"] if entry["id"] == "wasserstein"]
    assert entry["status"] == "not_applicable"
    assert entry["finding"] in report["warnings"]
    text = audit("report", tmp_path / "out/report.json").out
    assert "not applicable to other inputs" in " ".join(text.split())
