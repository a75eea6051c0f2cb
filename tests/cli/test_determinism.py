"""The same numbers to the bit: for any batch size, any order of the samples, and again."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import read_report, scan
from torch import nn

OPTIONS = ("--threat", "linf,l2,l1", "--order", "inf,2", "--delta", "0.03")
N = 24


def run(folder: Path, data: Path, *options: object) -> Path:
    scan(data.with_name("model.onnx"), data, *OPTIONS, *options, out=folder)
    return folder


def beside(data: Path, folder: Path, **arrays: np.ndarray) -> Path:
    """Other samples in a folder, next to a copy of the same model."""
    (folder / "model.onnx").write_bytes(data.with_name("model.onnx").read_bytes())
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def files(out: Path) -> tuple[bytes, dict[str, np.ndarray]]:
    return (out / "samples.csv").read_bytes(), dict(np.load(out / "adversarial.npz"))


def same(a: Path, b: Path) -> None:
    (table, arrays), (other_table, other_arrays) = files(a), files(b)
    assert table == other_table
    assert arrays.keys() == other_arrays.keys()
    for name, array in arrays.items():
        assert array.dtype == other_arrays[name].dtype
        assert array.tobytes() == other_arrays[name].tobytes(), name


def measured(out: Path) -> Any:
    """All that the report says of the threats and the evidence, but for the clock and the cost."""
    report = read_report(out)
    for threat in report["threats"]:
        for attack in threat["attacks"]:
            for key in ("seconds", "forwards", "gradients"):
                attack.pop(key)
        threat["certifier"].pop("seconds")
    report["model"].pop("path")
    return report["clean"], report["threats"], report["health"], report["model"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few samples next to a convolutional network: two are misclassified, two are alike."""
    folder = tmp_path_factory.mktemp("determinism")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
        ).eval()
        x = torch.rand(N, 1, 8, 8)
    x[N - 1] = x[0]
    with torch.no_grad():
        y = network(x).argmax(1)
    y[10:12] = (y[10:12] + 1) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no other package is to go
        torch.onnx.export(
            network, (x[:2],), folder / "model.onnx", dynamo=False, input_names=["x"],
            dynamic_axes={"x": {0: "n"}},
        )  # fmt: skip
    path = folder / "data.npz"
    np.savez(path, x=x.numpy(), y=y.numpy())
    return path


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    return run(tmp_path_factory.mktemp("determinism") / "auto", data)


def test_something_is_found(reference: Path) -> None:
    arrays = files(reference)[1]
    assert all(len(arrays[f"{metric}_index"]) > N / 2 for metric in ("linf", "l2", "l1"))


def test_batches_of_one(data: Path, tmp_path: Path) -> None:
    """On fewer samples: every call of the model is padded to its full size, so this is slow."""
    with np.load(data) as archive:
        few = beside(data, tmp_path, x=archive["x"][:4], y=archive["y"][:4])
    one, many = (
        run(tmp_path / name, few, "--delta", "0.02", "--batch-size", name) for name in ("1", "auto")
    )
    same(one, many)
    assert measured(one) == measured(many)


@pytest.mark.parametrize("size", [7, 64])
def test_any_batch_size(reference: Path, data: Path, tmp_path: Path, size: int) -> None:
    other = run(tmp_path / "out", data, "--batch-size", size)
    same(reference, other)
    assert measured(reference) == measured(other)


def test_again(reference: Path, data: Path, tmp_path: Path) -> None:
    other = run(tmp_path / "out", data, "--seed", 0, "--batch-size", "auto")
    same(reference, other)
    assert measured(reference) == measured(other)


def test_any_order_of_the_samples(reference: Path, data: Path, tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(N)
    with np.load(data) as archive:
        moved = beside(data, tmp_path, x=archive["x"][order], y=archive["y"][order])
    other = run(tmp_path / "out", moved)
    (table, arrays), (other_table, other_arrays) = files(reference), files(other)

    head, *rows = table.decode().splitlines()
    other_head, *other_rows = other_table.decode().splitlines()
    assert other_head == head
    contents = [row.partition(",")[2] for row in rows]
    assert [row.partition(",")[2] for row in other_rows] == [contents[i] for i in order]

    place = {int(old): new for new, old in enumerate(order)}
    for metric in ("linf", "l2", "l1"):
        rows_now = np.array([place[int(i)] for i in arrays[f"{metric}_index"]])
        sort = np.argsort(rows_now)
        assert other_arrays[f"{metric}_index"].tolist() == rows_now[sort].tolist()
        for name in (f"{metric}_x", f"{metric}_prediction"):
            assert other_arrays[name].tobytes() == arrays[name][sort].tobytes(), name

    ours, theirs = measured(reference), measured(other)
    assert ours[0] == theirs[0]
    assert ours[2:] == theirs[2:]
    curves = [[threat["curves"] for threat in part[1]] for part in (ours, theirs)]
    assert values(curves[0]) == pytest.approx(values(curves[1]), rel=1e-12)


def values(part: Any) -> list[float]:
    """All numbers in plain data, in order."""
    if isinstance(part, dict):
        part = list(part.values())
    if isinstance(part, list):
        return [number for item in part for number in values(item)]
    return [part] if isinstance(part, float) else []


def test_another_seed_is_another_search(reference: Path, data: Path, tmp_path: Path) -> None:
    """Only the random numbers differ: what is correct does not, and radii stay close."""
    other = run(tmp_path / "out", data, "--seed", 1)
    assert read_report(other)["clean"] == read_report(reference)["clean"]
    a, b = (files(out)[1]["linf_index"] for out in (reference, other))
    assert np.array_equal(a, b)


def test_the_subset_depends_on_the_seed_alone(data: Path, tmp_path: Path) -> None:
    def chosen(name: str, *options: object) -> list[str]:
        words = ("--samples", 12, "--attack", "fgsm", "--threat", "linf", "--effort", "quick")
        scan(data.with_name("model.onnx"), data, *words, *options, out=tmp_path / name)
        lines = (tmp_path / name / "samples.csv").read_text().splitlines()[1:]
        return [line.split(",")[0] for line in lines]

    first = chosen("a", "--seed", 3)
    assert first == chosen("b", "--seed", 3, "--batch-size", 5)
    assert first != chosen("c", "--seed", 4)
    assert len(set(first)) == 12
    assert first != [str(i) for i in range(12)]
