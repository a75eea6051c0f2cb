import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from graphs import random
from onnx import TensorProto, helper

from audit.errors import AuditError
from audit.models.onnx import lift

ML = "ai.onnx.ml"
WEIGHTS = random(12).tolist()


def served_by(nodes, output, kind=TensorProto.FLOAT):
    """Graph over x (N, 4), with the outputs that scikit-learn's converters declare."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    y = helper.make_tensor_value_info(output, kind, ["N", "C"])
    graph = helper.make_graph(nodes, "g", [x], [y])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def linear(transform, rows=3, labels=(0, 1, 2)):
    return helper.make_node(
        "LinearClassifier", ["x"], ["label", "y"], domain=ML, classlabels_ints=list(labels),
        coefficients=WEIGHTS[: 4 * rows], intercepts=[0.1, -0.2, 0.3][:rows],
        post_transform=transform, multi_class=0,
    )  # fmt: skip


def one(kind, **attributes):
    return helper.make_node(kind, ["x"], ["y"], domain=ML, **attributes)


@pytest.mark.parametrize(
    "node",
    [
        one("Scaler", offset=[1.0, 2.0, 3.0, 4.0], scale=[0.5, 1.0, 2.0, 4.0]),
        one("Scaler", offset=[1.0], scale=[0.5]),
        one("Normalizer", norm="MAX"),
        one("Normalizer", norm="L1"),
        one("Normalizer", norm="L2"),
        one("LinearRegressor", coefficients=WEIGHTS, intercepts=[0.1, 0.2, 0.3], targets=3),
        one("Binarizer", threshold=0.25),
        linear("NONE"),
        linear("LOGISTIC"),
        linear("SOFTMAX"),
        linear("NONE", rows=2, labels=(0, 1)),
        linear("LOGISTIC", rows=2, labels=(0, 1)),
        linear("SOFTMAX", rows=2, labels=(0, 1)),
        linear("NONE", rows=1, labels=(0, 1)),
        linear("LOGISTIC", rows=1, labels=(0, 1)),
        linear("SOFTMAX", rows=1, labels=(0, 1)),
    ],
    ids=lambda node: node.op_type + "".join(str(a.s or a.type)[:9] for a in node.attribute),
)
def test_an_operator_has_the_values_of_the_runtime_or_is_refused(node):
    made = served_by([node], "y")
    x = torch.from_numpy(random(6, 4, seed=4))
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(["y"], {"x": x.numpy()})[0]
    try:
        got = lift(made)(x)
    except AuditError:
        assert node.op_type == "LinearClassifier"
        assert "SOFTMAX" in str(node)
        return
    assert got.shape == expected.shape
    assert np.allclose(got.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2])
def test_two_classes_are_attacked_at_their_own_boundary(rows):
    lifted = lift(served_by([linear("LOGISTIC", rows=rows, labels=(0, 1))], "y"))
    x = torch.from_numpy(random(50, 4, seed=4))
    assert torch.equal(lifted.logits(x).argmax(1), lifted(x).argmax(1))
    assert lifted.logits(x).min() < 0


@pytest.mark.parametrize("transform", ["LOGISTIC", "SOFTMAX"])
def test_labels_are_those_of_the_runtime(transform):
    made = served_by([linear(transform, labels=(7, 3, 5))], "label", TensorProto.INT64)
    made.graph.output[0].type.tensor_type.shape.dim.pop()
    x = torch.from_numpy(random(6, 4, seed=4))
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    lifted = lift(made)
    assert lifted.head == "labels"
    assert lifted(x).tolist() == session.run(["label"], {"x": x.numpy()})[0].tolist()


def test_a_map_per_row_is_served_as_its_scores():
    names = ["ham", "jam", "spam"]
    zipped = helper.make_node("ZipMap", ["y"], ["maps"], domain=ML, classlabels_strings=names)
    made = served_by([linear("SOFTMAX"), zipped], "maps")
    made.graph.output[0].type.Clear()
    maps = made.graph.output[0].type.sequence_type.elem_type.map_type
    maps.key_type = TensorProto.STRING
    maps.value_type.tensor_type.elem_type = TensorProto.FLOAT
    onnx.checker.check_model(made)
    x = torch.from_numpy(random(6, 4, seed=4))
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = [[row[name] for name in names] for row in session.run(["maps"], {"x": x.numpy()})[0]]
    lifted = lift(made)
    assert lifted.head == "probabilities"
    assert np.allclose(lifted(x).numpy(), expected, atol=1e-6)
    assert lifted.logits(x).min() < 0
