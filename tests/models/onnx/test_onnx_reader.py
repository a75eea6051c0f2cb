import contextlib
import os

import numpy as np
import onnx
import pytest
import torch
from graphs import model, node, random
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from audit.errors import AuditError, ModelError
from audit.models.onnx import lift, read_model
from audit.models.onnx import reader as onnx_reader


def small():
    stored = {"w": random(4, 3), "b": random(3), "shape": np.array([-1, 4])}
    nodes = [
        node("Reshape", "x shape", "f"),
        node("Gemm", "f w b", "z"),
        node("Softmax", "z", "y", axis=-1),
    ]
    return model(nodes, stored, ["N", 2, 2])


@pytest.fixture
def saved(tmp_path):
    def save(data, name="m.onnx"):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.SerializeToString())
        return path

    return save


def test_a_good_file_is_read(saved):
    assert read_model(saved(small())) == small()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"# my notes about the model\n" * 3, "text file"),
        (b"<html><body>404</body></html>", "text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(40), "zip archive"),
        (bytes(100), "not a complete ONNX model"),
        (b"\x08\x07", "contains no ONNX graph"),
    ],
)
def test_what_is_not_a_model_is_named(saved, data, message):
    with pytest.raises(ModelError, match=message):
        read_model(saved(data))


def test_a_truncated_file_is_refused(saved):
    data = small().SerializeToString()
    for cut in range(1, len(data), 7):
        with pytest.raises(ModelError):
            read_model(saved(data[:cut]))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ModelError, match="No such file"):
        read_model(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="not a file"):
        read_model(tmp_path)


def test_the_size_is_checked_before_reading(saved, monkeypatch):
    monkeypatch.setattr(onnx_reader, "MAX_BYTES", 10)
    with pytest.raises(ModelError, match="at most 10"):
        read_model(saved(small()))


def external(location, **entries):
    made = small()
    tensor = made.graph.initializer[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    return made, data


def test_external_data_is_held_inside(saved, tmp_path):
    made, data = external("weights.bin")
    (tmp_path / "weights.bin").write_bytes(data)
    loaded = read_model(saved(made))
    assert numpy_helper.to_array(loaded.graph.initializer[0]).tobytes() == data
    assert not loaded.graph.initializer[0].external_data


@pytest.mark.parametrize("way", ["parent", "absolute", "symlink", "hardlink", "missing", "long"])
def test_external_data_cannot_leave_the_folder(saved, tmp_path, way):
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(4096))
    location, entries = "weights.bin", {}
    if way == "parent":
        location = "../secret.bin"
    elif way == "absolute":
        location = str(secret)
    elif way == "symlink":
        (folder / location).symlink_to(secret)
    elif way == "hardlink":
        os.link(secret, folder / location)
    elif way == "long":
        (folder / location).write_bytes(bytes(48))
        entries = {"offset": 0, "length": 10**12}
    made, _ = external(location, **entries)
    with pytest.raises(ModelError, match=r"external data|missing from the folder of the model"):
        read_model(saved(made, "model/m.onnx"))


def test_foreign_operators_need_permission(saved):
    made = small()
    made.graph.node[1].domain = "com.example"
    made.graph.node[1].op_type = "Mystery"
    made.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(ModelError, match=r"com\.example::Mystery"):
        read_model(saved(made))
    assert read_model(saved(made), allow_domains=frozenset({"com.example"})) == made


def test_a_broken_graph_is_refused(saved):
    made = small()
    made.graph.node[1].input[0] = "nowhere"
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        read_model(saved(made))


@pytest.mark.parametrize("version", [6, 999])
def test_an_unknown_opset_is_refused(saved, version):
    made = small()
    made.opset_import[0].version = version
    with pytest.raises(ModelError, match=f"opset {version}"):
        read_model(saved(made))


@pytest.mark.parametrize("as_constant", [True, False])
def test_dropout_in_training_mode_is_refused(saved, as_constant):
    nodes = [node("Dropout", "x r t", "y")]
    stored = {"r": np.float32(0.5), "t": np.array(True)}
    if as_constant:
        nodes.insert(0, node("Constant", "", "t", value=numpy_helper.from_array(stored.pop("t"))))
    with pytest.raises(ModelError, match=r"Dropout.*training mode"):
        read_model(saved(model(nodes, stored, ["N", 2])))


def test_batch_normalization_in_training_mode_is_refused(saved):
    stored = {name: np.ones(3, np.float32) for name in "sbmv"}
    nodes = [node("BatchNormalization", "x s b m v", "y m2 v2", training_mode=1)]
    with pytest.raises(ModelError, match=r"BatchNormalization.*training mode"):
        read_model(saved(model(nodes, stored, ["N", 3, 4, 4])))


def test_functions_of_the_model_are_inlined(saved):
    made = small()
    body = helper.make_function(
        "local", "Twice", ["a"], ["c"], [node("Add", "a a", "c")], [helper.make_opsetid("", 17)]
    )
    made.functions.append(body)
    made.opset_import.append(helper.make_opsetid("local", 1))
    made.graph.node.append(helper.make_node("Twice", ["y"], ["yy"], domain="local"))
    made.graph.output[0].name = "yy"
    lifted = lift(read_model(saved(made)))
    assert torch.allclose(lifted(torch.ones(1, 2, 2)).sum(), torch.tensor(2.0))


@settings(
    max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 40),
)
def test_mutated_files_end_in_one_family_of_errors(saved, edits, cut):
    data = bytearray(small().SerializeToString())
    for place, byte in edits:
        data[place % len(data)] = byte
    with contextlib.suppress(AuditError):
        lifted = lift(read_model(saved(bytes(data[: len(data) - cut // 8]))))
        lifted(torch.ones(1, 2, 2))


@settings(max_examples=100, deadline=2000)
@given(
    which=st.integers(0, 2),
    value=st.sampled_from([-(2**40), -1, 0, 1, 2, 3, 2**20, 2**40]),
    target=st.sampled_from(["axis", "dims", "input", "shape"]),
)
def test_mutated_graphs_end_in_one_family_of_errors(which, value, target):
    made = small()
    if target == "axis":
        made.graph.node[2].attribute[0].i = value
    elif target == "dims":
        made.graph.initializer[which].dims[0] = value
    elif target == "input":
        made.graph.node[which].input[0] = ["", "y", "z"][value % 3]
    else:
        made.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.array([value, 4]), "shape"))
    with contextlib.suppress(AuditError):
        lift(made)(torch.ones(1, 2, 2))
