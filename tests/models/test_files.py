"""The kind of a model file is read from its bytes."""

import hashlib
import os
import pickle
import zipfile
from pathlib import Path

import makers
import pytest
import torch

from audit.demo import model_path
from audit.errors import ModelError
from audit.models.files import digest, identify


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of one file of every kind."""
    folder = tmp_path_factory.mktemp("files")
    module = makers.linear()
    files = {
        "torchscript": makers.script(module, folder / "script"),
        "torch.export": makers.export(module, folder / "export", torch.zeros(2, *makers.SHAPE)),
        "onnx": model_path(),
    }
    torch.save(module.state_dict(), folder / "weights")
    torch.save(module, folder / "module")
    torch.save(module.state_dict(), folder / "legacy", _use_new_zipfile_serialization=False)
    files |= {name: folder / name for name in ("weights", "module", "legacy")}
    return {name: file.read_bytes() for name, file in files.items()}


@pytest.mark.parametrize("name", ["m.onnx", "m.pt", "m.pt2", "m.bin", "m", "m.zip"])
@pytest.mark.parametrize("kind", ["onnx", "torchscript", "torch.export"])
def test_the_suffix_says_nothing(
    made: dict[str, bytes], tmp_path: Path, kind: str, name: str
) -> None:
    file = tmp_path / name
    file.write_bytes(made[kind])
    assert identify(file) == kind


def test_a_link_is_what_it_points_to(made: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(made["torchscript"])
    (tmp_path / "m.onnx").symlink_to(tmp_path / "real")
    assert identify(tmp_path / "m.onnx") == "torchscript"


def test_an_export_of_older_versions_needs_trust_too(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("serialized_state_dict.pt", b"")
        archive.writestr("version", "8.4")
    assert identify(file) == "torch.export"


def test_a_graph_with_an_archive_behind_it_is_the_archive(
    made: dict[str, bytes], tmp_path: Path
) -> None:
    """What torch would open needs trust, whatever the first bytes look like."""
    file = tmp_path / "m.onnx"
    file.write_bytes(made["onnx"] + made["torchscript"])
    assert identify(file) == "torchscript"


@pytest.mark.parametrize("name", ["m.onnx", "m.pt", "m.pt2"])
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("weights", "checkpoint: it contains weights without the code"),
        ("module", "checkpoint: it contains weights without the code"),
        ("legacy", "is a Python pickle. Opening one runs code"),
    ],
)
def test_checkpoints_are_refused(
    made: dict[str, bytes], tmp_path: Path, kind: str, says: str, name: str
) -> None:
    file = tmp_path / name
    file.write_bytes(made[kind])
    with pytest.raises(ModelError, match=says):
        identify(file)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_are_refused(tmp_path: Path, protocol: int) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(pickle.dumps({"weight": [1.0]}, protocol=protocol))
    with pytest.raises(ModelError, match="pickle"):
        identify(file)


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("notes/code.txt", "constants.pkl")
    with pytest.raises(ModelError, match="without a model: expected an ONNX file"):
        identify(file)


@pytest.mark.parametrize("kind", ["torchscript", "torch.export", "weights"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_archive_is_damaged(
    made: dict[str, bytes], tmp_path: Path, kind: str, share: float
) -> None:
    file = tmp_path / "m.pt"
    file.write_bytes(made[kind][: int(share * len(made[kind]))])
    with pytest.raises(ModelError, match="damaged archive"):
        identify(file)


def test_a_broken_directory_is_a_damaged_archive(made: dict[str, bytes], tmp_path: Path) -> None:
    """The end of the file is in place, the list of members before it is not."""
    data = bytearray(made["torchscript"])
    start = data.rfind(b"PK\x01\x02")
    data[start : start + 4] = b"ABCD"
    file = tmp_path / "m.pt"
    file.write_bytes(data)
    with pytest.raises(ModelError, match="damaged archive"):
        identify(file)


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "broken.onnx").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name, says in {
        "none.onnx": "no model file at .*none.onnx",
        "broken.onnx": "no model file at",
        "empty.onnx/m.onnx": "no model file at",
        "empty.onnx": "empty",
        "": "is a folder",
        "pipe": "not a regular file",
        "n" * 300: "cannot be read",
    }.items():
        with pytest.raises(ModelError, match=says):
            identify(tmp_path / name)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_000])
def test_the_digest_is_that_of_the_whole_file(tmp_path: Path, size: int) -> None:
    data = bytes(i % 251 for i in range(1000)) * (size // 1000 + 1)
    (tmp_path / "m").write_bytes(data[:size])
    assert digest(tmp_path / "m") == hashlib.sha256(data[:size]).hexdigest()
