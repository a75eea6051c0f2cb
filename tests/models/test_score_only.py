"""Models without gradients: trees, support vectors, labels alone, foreign operators."""

from pathlib import Path

import makers
import numpy as np
import onnx
import pytest
import torch
from makers import node
from onnx import TensorProto, helper

from audit.errors import ModelError
from audit.models import Classifier, LoadOptions, load_classifier
from audit.models.finish import labels_as_scores
from tests.cli import tiny
from tests.cli.command import audit, scan

ML = "ai.onnx.ml"
CUTS = (0.4, 0.7)
"""The trees' classes are those of the first of two features, cut here."""


def trees(labels: tuple[int, ...] | tuple[str, ...] = (0, 1, 2)) -> onnx.NodeProto:
    """A tree for the three classes: x_0 <= 0.4, x_0 <= 0.7, the rest."""
    named = isinstance(labels[0], str)
    key = "classlabels_strings" if named else "classlabels_int64s"
    return node(
        "TreeEnsembleClassifier", "x", "label scores", domain=ML,
        nodes_treeids=[0] * 5, nodes_nodeids=[0, 1, 2, 3, 4], nodes_featureids=[0] * 5,
        nodes_modes=["BRANCH_LEQ", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[CUTS[0], 0.0, CUTS[1], 0.0, 0.0],
        nodes_truenodeids=[1, 0, 3, 0, 0], nodes_falsenodeids=[2, 0, 4, 0, 0],
        class_treeids=[0] * 9, class_nodeids=[1] * 3 + [3] * 3 + [4] * 3,
        class_ids=[0, 1, 2] * 3, class_weights=[0.8, 0.1, 0.1, 0.2, 0.6, 0.2, 0.0, 0.1, 0.9],
        post_transform="NONE", **{key: list(labels)},
    )  # fmt: skip


LABEL = makers.tensor("label", makers.INT64, ["N"])
SCORES = makers.tensor("scores", makers.FLOAT, ["N", 3])
SOURCE = makers.tensor("x", makers.FLOAT, ["N", 2])
MAPS = helper.make_value_info(
    "maps",
    helper.make_sequence_type_proto(
        helper.make_map_type_proto(
            TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
        )
    ),
)


def with_scores() -> onnx.ModelProto:
    return makers.graph([trees()], SOURCE, [LABEL, SCORES])


def with_maps() -> onnx.ModelProto:
    zipped = node("ZipMap", "scores", "maps", domain=ML, classlabels_int64s=[0, 1, 2])
    return makers.graph([trees(), zipped], SOURCE, [LABEL, MAPS])


def with_labels() -> onnx.ModelProto:
    return makers.graph([trees()], SOURCE, [LABEL])


def with_argmax() -> onnx.ModelProto:
    top = node("ArgMax", "scores", "top", axis=1, keepdims=0)
    return makers.graph([trees(), top], SOURCE, [makers.tensor("top", makers.INT64, ["N"])])


def support_vectors() -> onnx.ModelProto:
    """Two classes divided at x_0 = 1/2 by two support vectors, one of each."""
    machine = node(
        "SVMClassifier", "x", "label scores", domain=ML, kernel_type="LINEAR",
        kernel_params=[1.0, 0.0, 3.0], classlabels_ints=[0, 1], vectors_per_class=[1, 1],
        support_vectors=[0.25, 0.5, 0.75, 0.5], coefficients=[8.0, -8.0], rho=[2.0],
        post_transform="NONE",
    )  # fmt: skip
    return makers.graph([machine], SOURCE, [LABEL, makers.tensor("scores", makers.FLOAT, ["N", 2])])


FORMS = {
    "scores": (with_scores, "probabilities", CUTS),
    "maps": (with_maps, "probabilities", CUTS),
    "labels": (with_labels, "labels", CUTS),
    "argmax": (with_argmax, "labels", CUTS),
    "support vectors": (support_vectors, "logits", (0.5,)),
}


def points(n: int = 200) -> np.ndarray:
    """Points of the unit square, none at a cut."""
    x = np.random.default_rng(5).random((n, 2), dtype=np.float32)
    return x[np.abs(x[:, :1] - np.array([*CUTS, 0.5])).min(1) > 1e-3]


def truth(x: np.ndarray, cuts: tuple[float, ...]) -> np.ndarray:
    return (x[:, :1] > np.array(cuts)).sum(1)


def load(path: Path, *, classes: int = 3, **options: object) -> Classifier:
    given = LoadOptions(device="cpu", **options)
    return load_classifier(path, torch.from_numpy(points()[:8]), given, label_classes=classes)


@pytest.mark.parametrize("form", FORMS)
def test_only_scores_are_there(form: str, tmp_path: Path) -> None:
    make, output, cuts = FORMS[form]
    classifier = load(makers.save(make(), tmp_path / "m.onnx"), classes=len(cuts) + 1)
    assert classifier.gradient == "none"
    assert classifier.white_box is None
    assert (classifier.output, classifier.classes) == (output, len(cuts) + 1)
    operator = "SVMClassifier" if form == "support vectors" else "TreeEnsembleClassifier"
    assert operator in classifier.notes[0]
    assert classifier.notes[0].startswith("No gradients: ")
    # The runtime gives the decision values of two classes in the order 1, 0 (onnxruntime 1.31).
    swapped = any("opposite order of the labels" in note for note in classifier.notes)
    assert swapped == (form == "support vectors")
    x = points()
    assert classifier.predict(torch.from_numpy(x)).tolist() == truth(x, cuts).tolist()
    scores = classifier.deployed(torch.from_numpy(x))
    if output == "labels":
        one = torch.nn.functional.one_hot(torch.from_numpy(truth(x, cuts)), len(cuts) + 1)
        assert torch.equal(scores, one.float())
    if output == "probabilities":
        assert torch.allclose(scores.sum(1), torch.ones(len(x)))


@pytest.mark.parametrize("form", FORMS)
def test_a_scan_says_that_its_evidence_is_weak(form: str, tmp_path: Path) -> None:
    make, output, cuts = FORMS[form]
    model, out = makers.save(make(), tmp_path / "m.onnx"), tmp_path / "out"
    x = points()
    data = tiny.write_data(tmp_path / "data.npz", x, truth(x, cuts))
    report = scan(
        model, data, "--threat", "linf", "--delta", "0.05,0.3", "--attack", "random,pgd,minimal",
        out=out,
    )  # fmt: skip
    assert report["clean"]["value"] == 1
    assert (report["model"]["gradient"], report["model"]["output"]) == ("none", output)
    assert any("No gradients" in warning for warning in report["warnings"])
    health = {entry["id"]: entry for entry in report["health"]}
    assert health["gradients"]["status"] == "warn"
    assert "weaker evidence" in health["gradients"]["finding"]
    for check in ("parity", "finite_differences", "unbounded_attack", "budget_monotone"):
        assert health[check]["status"] == "not_applicable", check
    (threat,) = report["threats"]
    attacks = {attack["name"]: attack for attack in threat["attacks"]}
    assert attacks["random"]["status"] == "ran"
    assert attacks["random"]["gradients"] == 0
    for name in ("pgd", "minimal"):
        assert attacks[name]["status"] == "not_applicable"
        assert "gradients" in attacks[name]["detail"]
        assert attacks[name]["broken"] is None
    # Only a sample nearer to a cut than the budget can break, and of those most do.
    reach = np.abs(x[:, :1] - np.array(cuts)).min(1)
    curve = next(c for c in threat["curves"] if c["order"] == "inf")
    for delta in (0.05, 0.3):
        point = next(p for p in curve["points"] if p["delta"] == delta)
        assert (reach > delta).mean() <= point["attacked"]["value"]
        assert point["attacked"]["value"] <= (reach > 0.8 * delta).mean()
    archive = np.load(out / "adversarial.npz")
    moved = np.abs(archive["linf_x"] - x[archive["linf_index"]]).max(1)
    assert (moved >= reach[archive["linf_index"]] - 1e-6).all()
    text = audit("report", out / "report.json").out
    html = (out / "report.html").read_text(encoding="utf-8")
    for shown in (text, html):
        assert "weaker evidence" in shown


def test_the_default_attacks_are_black_box(tmp_path: Path) -> None:
    model, x = makers.save(with_scores(), tmp_path / "m.onnx"), points(60)
    data = tiny.write_data(tmp_path / "data.npz", x, truth(x, CUTS))
    report = scan(model, data, "--threat", "linf", "--delta", "0.1", out=tmp_path / "out")
    (threat,) = report["threats"]
    assert [(a["name"], a["status"]) for a in threat["attacks"]] == [
        ("random", "ran"),
        ("hopskipjump", "ran"),
        ("square", "ran"),
    ]


# Labels


def test_a_label_beyond_the_classes_is_never_correct() -> None:
    scores = labels_as_scores(lambda x: x, 3)(torch.tensor([0.0, 2.0, 3.0, -1.0, 7.0]))
    assert scores.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_classes_that_the_data_does_not_show_are_counted(tmp_path: Path) -> None:
    """Data of two classes does not make a model of three one of two."""
    made = makers.graph([trees((0, 1, 7))], SOURCE, [LABEL])
    classifier = load(makers.save(made, tmp_path / "m.onnx"), classes=2)
    assert classifier.classes == 8
    x = points()
    expected = np.array([0, 1, 7])[truth(x, CUTS)]
    assert classifier.predict(torch.from_numpy(x)).tolist() == expected.tolist()


def test_a_predicted_class_unknown_to_the_data_is_an_error(tmp_path: Path) -> None:
    model, x = makers.save(with_argmax(), tmp_path / "m.onnx"), points()
    known = truth(x, CUTS) < 2
    y = np.where(known, truth(x, CUTS), 1)  # what the model calls 2 is labelled 1
    data = tiny.write_data(tmp_path / "data.npz", x, y)
    report = scan(model, data, "--threat", "linf", "--delta", "0.1", out=tmp_path / "out")
    assert report["data"]["correct"] == known.sum()


def test_a_huge_label_does_not_ask_for_as_many_classes(tmp_path: Path) -> None:
    made = makers.graph([trees((0, 1, 10**12))], SOURCE, [LABEL])
    assert load(makers.save(made, tmp_path / "m.onnx")).classes == 3


def test_names_alone_are_refused(tmp_path: Path) -> None:
    output = makers.tensor("label", TensorProto.STRING, ["N"])
    made = makers.graph([trees(("ham", "jam", "spam"))], SOURCE, [output])
    with pytest.raises(ModelError, match=r"'label' does not contain numbers.*export the model"):
        load(makers.save(made, tmp_path / "m.onnx"))


def test_names_beside_scores_do_no_harm(tmp_path: Path) -> None:
    output = makers.tensor("label", TensorProto.STRING, ["N"])
    made = makers.graph([trees(("ham", "jam", "spam"))], SOURCE, [output, SCORES])
    x = points()
    classifier = load(makers.save(made, tmp_path / "m.onnx"))
    assert classifier.predict(torch.from_numpy(x)).tolist() == truth(x, CUTS).tolist()


# Operators of another domain


def foreign() -> onnx.ModelProto:
    """A linear model of `makers.images` behind an operator that only the runtime knows."""
    weight, bias = tiny.matched(tiny.patterns(makers.SHAPE))
    nodes = [
        node("Flatten", "x", "flat"),
        node("Gemm", "flat weight bias", "logits"),
        node("QuickGelu", "logits", "y", domain="com.microsoft", name="last", alpha=1.0),
    ]
    source = makers.tensor("x", makers.FLOAT, ["N", *makers.SHAPE])
    output = makers.tensor("y", makers.FLOAT, ["N", 10])
    return makers.graph(nodes, source, [output], weight=weight, bias=bias)


def test_a_foreign_operator_needs_permission(tmp_path: Path) -> None:
    model = makers.save(foreign(), tmp_path / "m.onnx")
    data = tiny.write_data(tmp_path / "data.npz", *makers.images())
    out = tmp_path / "out"
    options = ("--threat", "linf", "--delta", "0.3")
    for other in ((), ("--allow-domain", "org.example"), ("--allow-domain", "com.microsoft.x")):
        outcome = audit("scan", model, "--data", data, "--out", out, *options, *other)
        assert outcome.code == 2
        assert "node 'last' is com.microsoft::QuickGelu" in outcome.err
        assert "--allow-domain com.microsoft" in outcome.err
        assert outcome.err.count("\n") == 1
        assert not out.exists()
    report = scan(model, data, *options, "--allow-domain", "com.microsoft", out=out)
    assert report["model"]["gradient"] == "none"
    assert any("QuickGelu" in warning for warning in report["warnings"])
    assert {entry["id"]: entry["status"] for entry in report["health"]}["gradients"] == "warn"
    assert report["clean"]["value"] > 0.8
