"""`audit scan --smooth`: the smoothed model from the command line to the report."""

from pathlib import Path

import numpy as np
import pytest
import tiny
from command import audit, scan

SHAPE = (1, 5, 5)
OPTIONS = ("--effort", "quick", "--order", "inf", "--attack", "minimal")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear model of three patterns, and faint samples of them."""
    out = tmp_path_factory.mktemp("smooth")
    shown = tiny.patterns(SHAPE, classes=3)
    weight, bias = tiny.matched(shown)
    tiny.write_linear(out / "model.onnx", weight, bias, shape=("N", *SHAPE))
    tiny.write_data(out / "data.npz", *tiny.noisy(shown, 20))
    return out


def certified(report: dict, order: int = 0) -> list[float]:
    curve = report["threats"][0]["curves"][order]
    return [point["certified"]["value"] for point in curve["points"]]


def test_the_smoothed_model_is_audited_and_named_everywhere(folder: Path, tmp_path: Path) -> None:
    files = folder / "model.onnx", folder / "data.npz"
    options = (*OPTIONS, "--threat", "l2", "--delta", "0.05,0.2", "--smooth", "1/10")
    report = scan(*files, *options, out=tmp_path)
    assert report["model"]["smoothed"] == report["config"]["smooth"] == 0.1
    assert "--smooth 0.1" in report["config"]["command"]
    assert any("All numbers are those of the smoothed model" in text for text in report["warnings"])
    (threat,) = report["threats"]
    assert threat["certifier"]["name"] == "smoothing"
    assert threat["certifier"]["failure_probability"] * 20 == pytest.approx(0.001)
    assert "1,000 more estimate its probability" in threat["certifier"]["detail"]
    values = certified(report)
    assert values[0] > 0.5
    assert values == sorted(values, reverse=True)
    for name in ("html", "text"):
        shown = audit("report", tmp_path / "report.json", "--format", name).out
        assert "smoothed with sigma 0.1" in " ".join(shown.split())
    # The same numbers, however many samples are attacked together, and again.
    scan(*files, *options, "--batch-size", "7", out=tmp_path / "again")
    table = (tmp_path / "samples.csv").read_bytes()
    assert table == (tmp_path / "again" / "samples.csv").read_bytes()


def test_images_are_smoothed_by_moving_mass(folder: Path, tmp_path: Path) -> None:
    report = scan(
        folder / "model.onnx", folder / "data.npz", *OPTIONS, "--threat", "wasserstein",
        "--delta", "0.001,0.01", "--smooth", "0.01", out=tmp_path,
    )  # fmt: skip
    (threat,) = report["threats"]
    assert "Laplace flows of mass between pixels" in threat["certifier"]["detail"]
    assert certified(report)[0] > 0.5
    quantiles = threat["radii"]
    for key, value in quantiles["certified"]["quantiles"].items():
        attacked = quantiles["attacked"]["quantiles"][key]
        assert attacked is None or value <= attacked


def test_without_the_option_nothing_is_smoothed(folder: Path, tmp_path: Path) -> None:
    report = scan(
        folder / "model.onnx", folder / "data.npz", *OPTIONS, "--threat", "l2", "--delta", "0.1",
        out=tmp_path,
    )  # fmt: skip
    assert report["model"]["smoothed"] is None
    assert report["config"]["smooth"] is None
    assert "--smooth" not in report["config"]["command"]
    assert report["threats"][0]["certifier"]["name"] != "smoothing"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--smooth", "0"), "--smooth must be positive and finite, found 0"),
        (("--smooth", "-0.1"), "--smooth must be positive and finite, found -0.1"),
        (("--smooth", "inf"), "--smooth must be positive and finite, found inf"),
        (("--smooth", "nan"), "--smooth takes numbers or fractions"),
        (("--smooth", "much"), "--smooth takes numbers or fractions"),
        (("--smooth", "0.1", "--threat", "l2,wasserstein"), "scan wasserstein alone"),
    ],
)
def test_noise_that_cannot_be_meant(
    folder: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    outcome = audit(
        "scan", folder / "model.onnx", "--data", folder / "data.npz", "--out", tmp_path, *words
    )
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


def test_samples_as_rows_of_numbers_can_be_smoothed(tmp_path: Path) -> None:
    weight = np.eye(4, 2, dtype=np.float32)
    x = np.random.default_rng(0).random((20, 4)).astype(np.float32)
    y = (x[:, 1] > x[:, 0]).astype(np.int64)
    model = tiny.write_linear(tmp_path / "m.onnx", weight, np.zeros(2, np.float32), shape=("N", 4))
    data = tiny.write_data(tmp_path / "d.npz", x, y)
    report = scan(
        model, data, *OPTIONS, "--threat", "linf", "--delta", "0.01", "--smooth", "0.05",
        out=tmp_path / "out",
    )  # fmt: skip
    assert certified(report)[0] > 0.5
    assert "over the root of the dimension" in report["threats"][0]["certifier"]["detail"]
