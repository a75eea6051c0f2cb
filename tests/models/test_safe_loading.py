"""What a hostile file asks for, and does not get."""

import os
from pathlib import Path

import makers
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from makers import FLOAT, node, tensor
from onnx import TensorProto

from audit.errors import ModelError
from audit.models import LoadOptions, load_classifier
from audit.models.onnx import reader
from tests.cli import tiny
from tests.cli.command import audit, scan


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny.write_data(tmp_path / "data.npz", *makers.images())


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What onnxruntime is asked to load."""
    given: list[object] = []
    real = onnxruntime.InferenceSession

    def session(model: object, *arguments: object, **options: object) -> object:
        given.append(model)
        return real(model, *arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return given


def refused(model: Path, data: Path, *options: str) -> str:
    """What a scan and an inspection say of a file that neither opens; nothing is written."""
    out = data.parent / "out"
    first = audit("scan", model, "--data", data, "--out", out, *options)
    second = audit("inspect", model, "--data", data, *options)
    for outcome in (first, second):
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith("audit: ")
        assert outcome.err.count("\n") == 1
        assert "internal error" not in outcome.err
    assert not out.exists()
    with pytest.raises(ModelError):
        load_classifier(model, torch.zeros(2, *makers.SHAPE), LoadOptions(device="cpu"))
    assert first.err == second.err
    return first.err


def linear(path: Path) -> Path:
    return tiny.write_linear(
        path, *tiny.matched(tiny.patterns(makers.SHAPE)), shape=("N", *makers.SHAPE)
    )


# Sizes


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, runtime: list[object]
) -> None:
    model = linear(tmp_path / "m.onnx")
    monkeypatch.setattr(reader, "MAX_BYTES", model.stat().st_size - 1)
    monkeypatch.setattr(reader, "_parse_model", None)
    assert f"at most {model.stat().st_size - 1} are supported" in refused(model, data)
    assert runtime == []


def test_a_file_just_small_enough_is_read(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = linear(tmp_path / "m.onnx")
    monkeypatch.setattr(reader, "MAX_BYTES", model.stat().st_size)
    scan(model, data, "--attack", "fgsm", "--delta", "0.1", out=tmp_path / "out")


def test_a_sparse_file_of_many_gigabytes(tmp_path: Path, data: Path) -> None:
    model = tmp_path / "m.onnx"
    with model.open("wb") as file:
        file.truncate(2**33)
    assert "at most" in refused(model, data)


# External data


def external(folder: Path, location: str, **entries: object) -> tuple[Path, bytes]:
    """The linear model in a folder of its own, its weight elsewhere; the weight's bytes."""
    folder.mkdir()
    made = onnx.load(linear(folder / "m.onnx"))
    (weight,) = (stored for stored in made.graph.initializer if stored.name == "weight")
    content = weight.raw_data
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        entry = weight.external_data.add()
        entry.key, entry.value = key, str(value)
    return makers.save(made, folder / "m.onnx"), content


def test_external_data_beside_the_model(tmp_path: Path, data: Path, runtime: list[object]) -> None:
    model, content = external(tmp_path / "model", "weights.bin")
    (model.parent / "weights.bin").write_bytes(content)
    report = scan(model, data, "--attack", "fgsm", "--delta", "0.1", out=tmp_path / "out")
    assert report["clean"]["value"] > 0.8
    (given,) = runtime
    assert isinstance(given, bytes)
    assert content in given


@pytest.mark.parametrize(
    "way", ["parent", "detour", "absolute", "symlink", "folder link", "hard link", "device"]
)
def test_external_data_from_elsewhere(
    tmp_path: Path, data: Path, runtime: list[object], way: str
) -> None:
    secret = tmp_path / "secret.bin"
    location = {
        "parent": "../secret.bin",
        "detour": "a/../../secret.bin",
        "absolute": str(secret),
        "folder link": "linked/secret.bin",
        "device": "/dev/zero",
    }.get(way, "weights.bin")
    model, content = external(tmp_path / "model", location, length=1440)
    secret.write_bytes(content)
    link = model.parent / "weights.bin"
    if way == "symlink":
        link.symlink_to(secret)
    elif way == "folder link":
        (model.parent / "linked").symlink_to(tmp_path)
    elif way == "hard link":
        os.link(secret, link)
    elif way == "detour":
        (model.parent / "a").mkdir()
    refused(model, data)
    assert runtime == []


@pytest.mark.parametrize(
    "entries",
    [{"length": 4000}, {"offset": -4}, {"offset": 10**6}, {"length": 10**12}, {"length": "much"}],
    ids=str,
)
def test_external_data_of_a_wrong_length(
    tmp_path: Path, data: Path, runtime: list[object], entries: dict[str, object]
) -> None:
    model, content = external(tmp_path / "model", "weights.bin", **entries)
    (model.parent / "weights.bin").write_bytes(content)
    refused(model, data)
    assert runtime == []


def test_missing_external_data(tmp_path: Path, data: Path) -> None:
    model, _ = external(tmp_path / "model", "weights.bin")
    assert "missing from the folder of the model" in refused(model, data)


# Shapes that ask for all memory


def bomb(kind: str) -> onnx.ModelProto:
    """A graph of a few bytes that makes a tensor of 2**36 values."""
    huge = 2**36
    nodes = {
        "ConstantOfShape": [node("ConstantOfShape", "size", "big")],
        "Expand": [node("Expand", "one size", "big")],
        "Tile": [node("Tile", "one size", "big")],
        "by the data": [
            node("Flatten", "x", "column", axis=4),
            node("Expand", "column size", "big"),
        ],
        "tiled data": [
            node("Flatten", "x", "column", axis=4),
            node("Tile", "column twice", "big"),
        ],
    }[kind]
    stored = {
        "size": np.array([1, huge] if kind == "by the data" else [huge]),
        "one": np.ones(1, np.float32),
        "twice": np.array([1, huge]),
    }
    used = {name for each in nodes for name in each.input}
    nodes = [
        *nodes,
        node("ReduceMax", "big", "top", keepdims=0),
        node("Flatten", "x", "flat"),
        node("Add", "flat top", "y"),
    ]
    source = tensor("x", FLOAT, ["N", *makers.SHAPE])
    target = tensor("y", FLOAT, ["N", 36])
    return makers.graph(
        nodes, source, [target], **{name: v for name, v in stored.items() if name in used}
    )


@pytest.mark.parametrize("kind", ["ConstantOfShape", "Expand", "Tile", "by the data", "tiled data"])
def test_a_shape_is_bounded(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It is the importer that says so: the runtime is not even asked to load such a graph."""
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    said = refused(makers.save(bomb(kind), tmp_path / "m.onnx"), data)
    assert "tensor of shape" in said
    assert "elements are allowed" in said


# Checkpoints


@pytest.mark.parametrize("what", ["weights", "module", "legacy"])
def test_checkpoints_are_refused_with_and_without_trust(
    tmp_path: Path, data: Path, what: str
) -> None:
    model = tmp_path / "m.onnx"
    held = makers.linear() if what == "module" else makers.linear().state_dict()
    torch.save(held, model, _use_new_zipfile_serialization=what != "legacy")
    for options in ((), ("--trust-model",)):
        said = refused(model, data, *options)
        assert "export the model to ONNX or TorchScript" in said


# The runtime is given bytes, never a path


@pytest.mark.parametrize("command", ["scan", "inspect"])
def test_the_runtime_gets_bytes(
    tmp_path: Path, data: Path, runtime: list[object], command: str
) -> None:
    model = linear(tmp_path / "m.onnx")
    words = ["--out", tmp_path / "out", "--attack", "fgsm", "--delta", "0.1"]
    outcome = audit(command, model, "--data", data, *(words if command == "scan" else ()))
    assert outcome.code == 0, outcome.err
    assert runtime
    assert all(isinstance(given, bytes) for given in runtime)
    assert onnx.load_from_string(runtime[0]).graph.node[0].op_type == "Mul"


def test_the_runtime_cannot_register_operators() -> None:
    """A library of operators is code: nothing in the program ever loads one."""
    root = Path(__file__).resolve().parents[2] / "audit"
    for file in root.rglob("*.py"):
        assert "register_custom_ops" not in file.read_text(encoding="utf-8"), file
        assert "weights_only=False" not in file.read_text(encoding="utf-8"), file
