"""Another reading of outputs, labels or channels is named where it fits clearly better."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fakes import classifier, dataset_of, inputs, linear, noisy_labels, samples_of
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import Tensor

from audit.evidence.readings import LEVEL, Finding, findings, spread
from audit.models.preprocess import InputSpec
from tests.cli import tiny
from tests.cli.command import Outcome, audit, read_report

CLASSES, SIDE = 12, 6
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
FEW = ("--threat", "linf", "--delta", "0.01", "--attack", "fgsm", "--effort", "quick")


def scanned(model: Path, data: Path, *options: object, out: Path) -> dict[str, Any]:
    outcome = audit(
        "scan", model, "--data", data, *FEW, "--certify", "none", *options, "--out", out
    )
    assert outcome.code in (0, 4), outcome.err
    return read_report(out)


def reading_of(report: dict[str, Any]) -> tuple[str, str]:
    (found,) = [entry for entry in report["health"] if entry["id"] == "reading"]
    return found["status"], found["finding"]


def inspected(model: Path, data: Path, *options: object) -> Outcome:
    outcome = audit("inspect", model, "--data", data, *options)
    assert outcome.code == 0, outcome.err
    return outcome


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    shape: tuple[int, ...],
    outputs: list[onnx.ValueInfoProto],
    **stored: np.ndarray,
) -> Path:
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", FLOAT, ["N", *shape])],
            outputs,
            [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=8,
    )
    onnx.checker.check_model(made)
    onnx.save(made, path)
    return path


def scores(name: str, width: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, FLOAT, ["N", width])


# Class folders --------------------------------------------------------------------------------


def folders(
    root: Path, names: list[str], per_class: int = 8, more: int = 0
) -> tuple[Path, np.ndarray]:
    """Images of 8 bits, ``more`` of 0 and 1, and the pattern of each folder in this order."""
    shown = tiny.patterns((1, SIDE, SIDE), classes=len(names))
    rng = np.random.default_rng(0)
    for name, pattern in zip(names, shown, strict=True):
        (root / name).mkdir(parents=True)
        for i in range(per_class + (more if name in ("0", "1") else 0)):
            x = 0.5 + 0.3 * pattern[0] + rng.normal(0, 0.05, (SIDE, SIDE))
            picture = Image.fromarray((255 * np.clip(x, 0, 1)).astype(np.uint8))
            picture.save(root / name / f"{i}.png")
    return root, shown


def trained_on(names: list[str], shown: np.ndarray, order: list[str], path: Path) -> Path:
    """A model whose class k is the folder at position k of an order."""
    weight, bias = tiny.matched(shown[[names.index(name) for name in order]])
    return tiny.write_linear(path, weight, bias, shape=("N", 1, SIDE, SIDE))


def test_numbered_folders_in_text_order(tmp_path: Path) -> None:
    names = [str(k) for k in range(CLASSES)]
    data, shown = folders(tmp_path / "data", names, more=4)
    model = trained_on(names, shown, sorted(names), tmp_path / "m.onnx")
    report = scanned(model, data, out=tmp_path / "out")
    status, detail = reading_of(report)
    assert status == "warn"
    assert report["clean"]["value"] == pytest.approx(24 / 104)  # only 0 and 1 keep their place
    for text in (
        "in text order",
        "0, 1, 10, 11, 2, 3, …, 9",
        "100.0% instead of 23.1%",
        "--class-map",
    ):
        assert text in detail
    assert any("in text order" in warning for warning in report["warnings"])
    outcome = inspected(model, data)
    assert "in text order" in outcome.out
    # What the sentence says to do puts it right.
    order = tmp_path / "classes.txt"
    order.write_text("\n".join(sorted(names)) + "\n", encoding="utf-8")
    mended = scanned(model, data, "--class-map", order, out=tmp_path / "again")
    assert mended["clean"]["value"] == 1
    assert reading_of(mended)[0] == "pass"


def test_numbered_folders_in_their_own_order_are_no_finding(tmp_path: Path) -> None:
    names = [str(k) for k in range(CLASSES)]
    data, shown = folders(tmp_path / "data", names)
    report = scanned(trained_on(names, shown, names, tmp_path / "m.onnx"), data, out=tmp_path / "o")
    assert reading_of(report)[0] == "pass"
    assert not any("order" in warning for warning in report["warnings"])


def test_labels_beyond_the_classes_name_the_text_order(tmp_path: Path) -> None:
    """Folders 1..K: the message of the labels, and the numbering that fits, measured."""
    names = [str(k + 1) for k in range(CLASSES)]
    data, shown = folders(tmp_path / "data", names)
    model = trained_on(names, shown, sorted(names), tmp_path / "m.onnx")
    for command in ("scan", "inspect"):
        out = () if command == "inspect" else ("--out", tmp_path / "out")
        outcome = audit(command, model, "--data", data, *out)
        assert outcome.code == 2
        for text in ("label 12 in row", "subtract 1", "in text order", "100.0% of 96 samples"):
            assert text in outcome.err


def test_folders_counted_from_one(tmp_path: Path) -> None:
    """Three of the folders, whose model has more classes: nothing stops the scan."""
    names = [str(k + 1) for k in range(5)]
    data, shown = folders(tmp_path / "data", names, per_class=20)
    more = np.concatenate([shown, -shown])
    weight, bias = tiny.matched(more)
    model = tiny.write_linear(tmp_path / "m.onnx", weight, bias, shape=("N", 1, SIDE, SIDE))
    outcome = audit("scan", model, "--data", data, *FEW, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "at chance" in outcome.err
    assert "numbered" in outcome.err or "counted from one" in outcome.err
    assert "100.0% instead of 0.0%" in outcome.err


# Outputs --------------------------------------------------------------------------------------


def two_heads(path: Path, first: np.ndarray, second: np.ndarray) -> Path:
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["shape"]),
        helper.make_node("MatMul", ["x", "b"], ["colour"]),
    ]
    outputs = [scores("shape", first.shape[1]), scores("colour", second.shape[1])]
    return save(path, nodes, (len(first),), outputs, a=first, b=second)


def tasks() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Data whose labels the second head knows, and the first knows for three samples in four."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (200, 4)).astype(np.float32)
    x[:, 2] = np.where(rng.random(200) < 0.75, x[:, 0], 1 - x[:, 0])
    x[:, 3] = 1
    label = (x[:, 0] > 0.5).astype(np.int64)
    good = np.array([[-1, 1], [0, 0], [0, 0], [0.5, -0.5]], np.float32)
    poor = np.array([[0, 0], [0, 0], [-1, 1], [0.5, -0.5]], np.float32)
    return x, label, good, poor


def test_a_better_output_is_named(tmp_path: Path) -> None:
    x, y, good, poor = tasks()
    data = tiny.write_data(tmp_path / "d.npz", x, y)
    model = two_heads(tmp_path / "m.onnx", poor, good)
    report = scanned(model, data, out=tmp_path / "out")
    status, detail = reading_of(report)
    assert status == "warn"
    for text in (
        "2 float outputs (shape, colour)",
        "shape, is used",
        "100.0% instead of",
        "alone",
    ):
        assert text in detail
    assert detail in report["warnings"]
    assert detail in inspected(model, data).out


def test_the_better_output_first_is_stated_and_no_doubt(tmp_path: Path) -> None:
    x, y, good, poor = tasks()
    data = tiny.write_data(tmp_path / "d.npz", x, y)
    report = scanned(two_heads(tmp_path / "m.onnx", good, poor), data, out=tmp_path / "out")
    assert reading_of(report)[0] == "pass"
    assert any("shape, is used as the scores." in warning for warning in report["warnings"])


def test_outputs_that_the_samples_do_not_tell_apart(tmp_path: Path) -> None:
    x, y, good, _ = tasks()
    other = good + np.array([[0, 0.05], [0, 0], [0, 0], [0, 0]], np.float32)
    data = tiny.write_data(tmp_path / "d.npz", x, y)
    report = scanned(two_heads(tmp_path / "m.onnx", good, other), data, out=tmp_path / "out")
    status, detail = reading_of(report)
    assert status == "warn"
    assert "do not distinguish it from colour" in detail


def test_an_output_at_chance_names_the_other_one(tmp_path: Path) -> None:
    x, y, good, _ = tasks()
    wide = np.zeros((4, 16), np.float32)
    wide[3, 5] = 1
    data = tiny.write_data(tmp_path / "d.npz", x, y)
    model = two_heads(tmp_path / "m.onnx", wide, good)
    outcome = audit("scan", model, "--data", data, *FEW, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "With the output colour 100.0% instead of" in outcome.err


# Labels of the file ---------------------------------------------------------------------------


def listing(path: Path, **lists: object) -> Path:
    """Three classes of the first three inputs, under labels that the file lists."""
    node = helper.make_node(
        "LinearClassifier",
        ["x"],
        ["label", "scores"],
        domain="ai.onnx.ml",
        coefficients=[float(v) for v in np.eye(3).ravel()],
        intercepts=[0.0] * 3,
        post_transform="NONE",
        **lists,
    )
    kind = TensorProto.STRING if "classlabels_strings" in lists else INT64
    outputs = [helper.make_tensor_value_info("label", kind, ["N"]), scores("scores", 3)]
    return save(path, [node], (3,), outputs)


def points(positions: list[int], n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    place = np.array(positions)[np.arange(n) % len(positions)]
    x = 0.3 + 0.4 * np.eye(3)[place] + rng.uniform(-0.1, 0.1, (n, 3))
    return x.astype(np.float32), place


def test_data_in_the_labels_of_the_file(tmp_path: Path) -> None:
    """Labels 0 and 2 of (0, 2, 3): read as positions, half are wrong; nothing stops the scan."""
    x, place = points([0, 1])
    data = tiny.write_data(tmp_path / "d.npz", x, np.array([0, 2, 3])[place])
    model = listing(tmp_path / "m.onnx", classlabels_ints=[0, 2, 3])
    status, detail = reading_of(scanned(model, data, out=tmp_path / "out"))
    assert status == "warn"
    for text in ("lists the labels 0, 2, 3", "100.0% instead of 50.0%", "position in that list"):
        assert text in detail
    assert detail in inspected(model, data).out


@pytest.mark.parametrize("listed", [[3, 5, 8], [-1, 1, 4], [1, 2, 3]])
def test_labels_beyond_the_classes_name_those_of_the_file(
    tmp_path: Path, listed: list[int]
) -> None:
    x, place = points([0, 1, 2])
    data = tiny.write_data(tmp_path / "d.npz", x, np.array(listed)[place])
    model = listing(tmp_path / "m.onnx", classlabels_ints=listed)
    for command in ("scan", "inspect"):
        out = () if command == "inspect" else ("--out", tmp_path / "out")
        outcome = audit(command, model, "--data", data, *out)
        assert outcome.code == 2
        assert f"lists the labels {', '.join(map(str, listed))}" in outcome.err
        assert "100.0% of 120 samples" in outcome.err


@pytest.mark.parametrize("listed", [[3, 5, 8], [0, 1, 2], [1, 2, 3]])
def test_data_in_positions_is_no_doubt(tmp_path: Path, listed: list[int]) -> None:
    x, place = points([0, 1, 2])
    data = tiny.write_data(tmp_path / "d.npz", x, place)
    report = scanned(
        listing(tmp_path / "m.onnx", classlabels_ints=listed), data, out=tmp_path / "o"
    )
    assert reading_of(report)[0] == "pass"


def test_few_samples_do_not_settle_the_labels_of_the_file(tmp_path: Path) -> None:
    x, place = points([1, 2], n=4)
    data = tiny.write_data(tmp_path / "d.npz", x, place)
    model = listing(tmp_path / "m.onnx", classlabels_ints=[2, 1, 0])
    status, detail = reading_of(scanned(model, data, out=tmp_path / "out"))
    assert status == "warn"
    assert "do not show" in detail


def test_names_in_another_order_than_those_of_the_file(tmp_path: Path) -> None:
    root, shown = folders(tmp_path / "data", ["ant", "bee", "cat"], per_class=40)
    weight, bias = tiny.matched(shown[[1, 0, 2]])
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node(
            "LinearClassifier",
            ["flat"],
            ["label", "scores"],
            domain="ai.onnx.ml",
            coefficients=[float(v) for v in weight.T.ravel()],
            intercepts=[float(v) for v in bias],
            classlabels_strings=["bee", "ant", "cat"],
            post_transform="NONE",
        ),
    ]
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.STRING, ["N"]),
        scores("scores", 3),
    ]
    model = save(tmp_path / "m.onnx", nodes, (1, SIDE, SIDE), outputs)
    outcome = audit("scan", model, "--data", root, *FEW, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "lists the labels bee, ant, cat" in outcome.err
    order = tmp_path / "classes.txt"
    order.write_text("bee\nant\ncat\n", encoding="utf-8")
    report = scanned(model, root, "--class-map", order, out=tmp_path / "again")
    assert report["clean"]["value"] == 1


# Channels and thresholds ----------------------------------------------------------------------

MEAN = (0.2, 0.5, 0.7)


def coloured(n: int = 120) -> tuple[Tensor, Tensor]:
    """Images whose class is whether the first channel is brighter than the last."""
    x = 0.5 + 0.3 * (torch.rand((n, 3, 2, 2), generator=torch.Generator().manual_seed(0)) - 0.5)
    labels = torch.arange(n) % 3
    x[labels == 0, 0] += 0.25
    x[labels == 1, 2] += 0.25
    x[labels == 2, 1] += 0.25
    return x, labels


def channels(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def bgr(x: Tensor) -> Tensor:
    return channels(x).flip(1)[:, [0, 2, 1]]


def rgb(x: Tensor) -> Tensor:
    return channels(x)[:, [0, 2, 1]]


def found_by(run: Callable[[Tensor], Tensor], **spec: Any) -> tuple[Finding, ...]:
    x, labels = coloured()
    reading = InputSpec((3, 2, 2), (), torch.float32, "chw", **spec)
    model = classifier(run, classes=3, spec=reading)
    return findings(model, samples_of(model, x, labels), dataset_of(x, labels))


def test_reversed_channels_are_named() -> None:
    assert found_by(rgb) == ()
    (finding,) = found_by(bgr)
    assert finding.doubtful
    assert "BGR" in finding.text
    assert "100.0% instead of 33.3% of 120 samples" in finding.text


def test_reversed_channels_with_a_mean() -> None:
    """The means of the colours stay with them, or with the places: the one that fits is named."""

    def with_colours(x: Tensor) -> Tensor:
        """Expects BGR with the means of `MEAN` by colour."""
        return bgr(x + torch.tensor(MEAN[::-1]).reshape(3, 1, 1))

    def with_places(x: Tensor) -> Tensor:
        """Expects BGR with the means of `MEAN` by place."""
        return bgr(x + torch.tensor(MEAN).reshape(3, 1, 1))

    (finding,) = found_by(with_colours, mean=MEAN)
    assert "reversed with them" in finding.text
    assert "reverse --mean and --std" in finding.text
    (finding,) = found_by(with_places, mean=MEAN)
    assert "keep --mean and --std" in finding.text


def test_grey_images_have_no_order_of_channels() -> None:
    x, labels = coloured()
    grey = x.mean(1, keepdim=True).expand_as(x).contiguous()
    model = classifier(bgr, classes=3, spec=InputSpec((3, 2, 2), (), torch.float32, "chw"))
    assert findings(model, samples_of(model, grey, labels), dataset_of(grey, labels)) == ()


def test_a_column_trained_on_targets_of_zero_and_one() -> None:
    """Not a probability, since it leaves [0, 1], but its decision is at one half all the same."""
    x = inputs(120)
    labels = linear(x).argmax(1)

    def target(v: Tensor) -> Tensor:
        return 0.5 + (linear(v)[:, 1:] * 4).clamp(-0.6, 0.6)

    model = classifier(target)
    (finding,) = findings(model, samples_of(model, x, labels), dataset_of(x, labels))
    assert finding.doubtful
    assert "cut at 0.5" in finding.text
    model = classifier(lambda v: linear(v)[:, 1:])
    assert findings(model, samples_of(model, x, labels), dataset_of(x, labels)) == ()


# The test -------------------------------------------------------------------------------------


def test_a_small_difference_is_not_clear() -> None:
    """Six samples gained of 120 and none lost have p = 2/2**6 > 0.01; nine have less."""
    x = inputs(120)
    for gained, expected in ((6, 0), (9, 1)):
        z = linear(x)[:, 1]
        labels = (z > 0).long()
        order = z.abs().argsort()

        def column(v: Tensor, gained: int = gained, order: Tensor = order) -> Tensor:
            """Right at 0.5 on all samples, and at 0 on all but some of class 0."""
            below = linear(x)[:, 1][order[linear(x)[:, 1][order] < 0][:gained]].min()
            value = linear(v)[:, 1:]
            return torch.where(
                (value < 0) & (value >= below), 0.25, torch.where(value > 0, 2.0, -2.0)
            )

        model = classifier(column)
        samples = samples_of(model, x, labels)
        assert int((~samples.correct).sum()) == gained
        assert len(findings(model, samples, dataset_of(x, labels))) == expected
    assert 2 / 2**6 > LEVEL > 2 / 2**9


def test_rows_are_spread_over_the_samples() -> None:
    assert spread(5).tolist() == [0, 1, 2, 3, 4]
    rows = spread(10_000)
    assert len(rows) == 256
    assert (rows[0], rows[-1]) == (0, 9_999)
    assert spread(1).tolist() == [0]


def test_models_without_doubt_have_no_finding() -> None:
    x = inputs(120)
    labels = noisy_labels(x)
    model = classifier(linear)
    assert findings(model, samples_of(model, x, labels), dataset_of(x, labels)) == ()
