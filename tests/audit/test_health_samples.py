"""Duplicates, majorities and ties are found, in the health checks and in the error at chance."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import classifier, inputs, linear, model_subject, samples_of
from torch import Tensor

from audit.errors import DataError
from audit.evidence.chance import require_better_than_chance, tie_sentence
from audit.evidence.samples import Samples
from audit.health import CHECKS
from audit.health.samples import MOST_TIES
from audit.models.classifier import Classifier
from audit.schema import Health
from tests.cli import tiny
from tests.cli.command import audit, scan

X = inputs(120)
MODEL = classifier(linear)


def of_model(check: str, model: Classifier, samples: Samples, **changes: Any) -> Health:
    return CHECKS[check](model_subject(model, samples, **changes))


def constant(label: int) -> Classifier:
    """Names one class whatever it sees."""
    one_hot = torch.nn.functional.one_hot(torch.tensor(label), 2).float()
    return classifier(lambda x: one_hot.expand(len(x), 2) + 0 * x[:, :1])


@pytest.mark.parametrize(("copies", "expected"), [(0, "pass"), (12, "pass"), (13, "warn")])
def test_duplicates_are_counted_by_content(copies: int, expected: str) -> None:
    x = torch.cat([X[: 120 - copies], X[:copies]])
    entry = of_model("distinct", MODEL, samples_of(MODEL, x))
    assert (entry.id, entry.status) == ("distinct", expected)
    assert f"{120 - copies} of 120" in entry.finding


def test_equal_inputs_of_other_labels_are_distinct() -> None:
    x = X[:1].repeat(10, 1)
    samples = samples_of(MODEL, x, torch.arange(10) % 2)
    assert "2 of 10" in of_model("distinct", MODEL, samples).finding


@pytest.mark.parametrize(
    ("right", "expected"), [(70, "warn"), (80, "warn"), (81, "pass"), (100, "pass")]
)
def test_majority(right: int, expected: str) -> None:
    """80 of 100 samples are of class 1; the model is right on so many."""
    labels = torch.tensor([1] * 80 + [0] * 20)
    told = torch.where(torch.arange(100) >= 100 - right, labels, 1 - labels)
    x = torch.stack([told.float(), torch.arange(100) / 100], dim=1)
    model = classifier(lambda v: torch.stack([0.5 - v[:, 0], v[:, 0] - 0.5], 1), sample=(2,))
    entry = of_model("majority", model, samples_of(model, x, labels), class_names=("cat", "dog"))
    assert (entry.id, entry.status) == ("majority", expected)
    for text in (f"{right} of 100", "80 of 100 (80.0%)", "class 1 (dog)"):
        assert text in entry.finding
    assert "for every sample" not in entry.finding


def test_a_constant_prediction_is_named() -> None:
    labels = (torch.arange(120) < 6).long()
    samples = samples_of(constant(0), X, labels)
    assert samples.constant == 0
    require_better_than_chance(constant(0), samples)  # no error above the level of chance
    entry = of_model("majority", MODEL, samples, class_names=("cat", "dog"))
    assert entry.status == "warn"
    assert "the model predicts class 0 (cat) for every sample." in entry.finding
    accuracy = of_model("clean_accuracy", MODEL, samples)
    assert accuracy.status == "warn"
    assert "114 of 120" in accuracy.finding
    assert samples_of(MODEL, X).constant is None


def test_names_may_be_fewer_than_classes() -> None:
    found = of_model("majority", MODEL, samples_of(constant(1), X), class_names=("cat",))
    assert "class 1:" in found.finding


@pytest.mark.parametrize("count", [0, 1, 2, 60])
def test_ties_are_counted(count: int) -> None:
    order = X[:, 3].argsort()
    x = X[order]
    least = float(x[count - 1, 3]) if count else -1.0

    def run(v: Tensor) -> Tensor:
        return torch.where((v[:, 3] <= least)[:, None], 0.0, linear(v))

    samples = samples_of(classifier(run), x, linear(x).argmax(1))
    entry = of_model("ties", classifier(run), samples)
    right = int((linear(x).argmax(1)[:count] == 0).sum())
    assert entry.status == ("warn" if count > MOST_TIES * len(x) else "pass")
    if count:
        assert f"On {count} of 120 samples" in entry.finding
        assert f"({right} of them would be correct" in entry.finding


def test_labels_have_no_ties() -> None:
    model = classifier(lambda x: 0 * linear(x), output="labels")
    assert of_model("ties", model, samples_of(model, X)).status == "not_applicable"


def test_nan_is_no_tie() -> None:
    model = classifier(lambda x: linear(x) * torch.nan)
    samples = samples_of(model, X, linear(X).argmax(1))
    assert of_model("ties", model, samples).status == "pass"


def three_saturated(x: Tensor) -> Tensor:
    return (60 * x[:, :3]).sigmoid()


def test_ties_that_explain_the_errors_suggest_no_normalisation() -> None:
    x = torch.rand((200, 4), generator=torch.Generator().manual_seed(0))
    model = classifier(three_saturated, classes=3)
    samples = samples_of(model, x)
    assert samples.accuracy < 0.4
    with pytest.raises(DataError) as caught:
        require_better_than_chance(model, samples)
    message = str(caught.value)
    count = len(x) - int(samples.correct.sum())
    assert tie_sentence(count, 200).strip() in message
    assert "would be right on 200 samples" in message
    assert "serve logits" in message
    assert "--std" not in message
    assert "--mean" not in message


def test_ties_that_explain_nothing_are_counted_beside_the_advice() -> None:
    model = classifier(lambda x: 0 * linear(x))
    samples = samples_of(model, X, linear(X).argmax(1))
    with pytest.raises(DataError) as caught:
        require_better_than_chance(model, samples)
    assert "On 120 of 120 samples" in str(caught.value)
    assert "Tried on 120 samples" in str(caught.value)


# On the command line


def test_a_scan_of_a_majority_is_amber(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = np.repeat(rng.uniform(0, 0.5, (25, 4)).astype(np.float32), 4, axis=0)
    y = (np.arange(100) >= 92).astype(np.int64)
    data = tiny.write_data(tmp_path / "d.npz", x, y)
    weight = np.array([[-1, 1], [0, 0], [0, 0], [0, 0]], np.float32)
    bias = np.array([0.999, -0.999], np.float32)
    model = tiny.write_linear(tmp_path / "m.onnx", weight, bias, shape=("N", 4))
    few = ("--threat", "linf", "--delta", "0.01", "--attack", "minimal", "--effort", "quick")
    report = scan(model, data, *few, "--certify", "none", out=tmp_path / "out")
    found = {entry["id"]: entry for entry in report["health"]}
    for check in ("majority", "distinct", "clean_accuracy"):
        assert found[check]["status"] == "warn", check
    assert "of 100 samples are distinct" in found["distinct"]["finding"]
    assert found["ties"]["status"] == "pass"
    outcome = audit("inspect", model, "--data", data)
    assert "well above chance" not in outcome.out
    assert "always predicting this class would do as well" in outcome.out


def test_inspect_names_ties_and_prints_no_command(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(0, 1, (200, 3)).astype(np.float32)
    weight, bias = 60 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32)
    y = (1 / (1 + np.exp(-(60 * x)))).astype(np.float32).argmax(1)
    data = tiny.write_data(tmp_path / "d.npz", x, y)
    model = tiny.write_linear(tmp_path / "m.onnx", weight, bias, shape=("N", 3), head="Sigmoid")
    outcome = audit("inspect", model, "--data", data)
    assert outcome.code == 0
    assert "shares the top score" in outcome.out
    assert "serve logits" in outcome.out
    assert "audit scan" not in outcome.out
    refused = audit("scan", model, "--data", data, "--out", tmp_path / "out")
    assert refused.code == 2
    assert "shares the top score" in refused.err
    assert "--std" not in refused.err
