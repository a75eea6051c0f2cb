"""The shipped model and data are small, valid, and as accurate as their README states."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from audit.data import check_labels, open_data
from audit.demo import data_path, model_path


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(model_path())


def recorded(what: str) -> float:
    """Return the number that the README states after the given words."""
    text = model_path().with_name("README.md").read_text(encoding="utf-8")
    match = re.search(rf"{what}: ([0-9.]+[0-9])", text)
    assert match is not None
    return float(match[1])


def test_sizes() -> None:
    assert model_path().stat().st_size <= 1_000_000
    assert data_path().stat().st_size <= 700_000


def test_the_model_is_one_valid_file(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    assert 17 <= model.opset_import[0].version <= 20
    assert all(
        tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer
    )
    (image,), (logits,) = model.graph.input, model.graph.output
    assert (image.name, logits.name) == ("image", "logits")
    batch, *sample = image.type.tensor_type.shape.dim
    assert batch.dim_param
    assert [dim.dim_value for dim in sample] == [1, 28, 28]


def test_the_model_tells_nothing_about_where_it_was_made(model: onnx.ModelProto) -> None:
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert b".py" not in Path(model_path()).read_bytes()


def test_the_data() -> None:
    data = open_data(data_path(), low=0.0, high=1.0)
    assert len(data) == 1000
    assert data.shape == (1, 28, 28)
    assert (np.bincount(data.labels) > 50).all()
    check_labels(data, 10)


def test_clean_accuracy_is_the_recorded_one() -> None:
    data = open_data(data_path(), low=0.0, high=1.0)
    session = onnxruntime.InferenceSession(
        model_path().read_bytes(), providers=["CPUExecutionProvider"]
    )
    (logits,) = session.run(["logits"], {"image": data.read(np.arange(len(data)))})
    accuracy = np.mean(np.argmax(logits, axis=1) == data.labels)
    assert accuracy >= 0.84
    assert accuracy == pytest.approx(recorded("clean accuracy, through onnxruntime"), abs=1e-9)
    # Robust enough for a curve that falls slowly, but not so robust that the curve is flat.
    assert 0.3 < recorded("at linf 0.05") < accuracy
