"""A binary model with one output column: a probability is cut at one half, a logit at zero."""

from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest
import torch
from makers import FLOAT, INT64, node, tensor
from torch import Tensor, nn

from audit.hardening.weights import open_trainable
from audit.models import Classifier, LoadOptions, load_classifier
from audit.models.classifier import log_odds
from tests.cli import tiny
from tests.cli.command import audit, read_report

SIZE = 6
WEIGHT = np.array([9.0, -7.0, 5.0, -3.0, 6.0, -8.0], np.float32)
READ_SO = "lies in [0, 1] on the samples and on random inputs"


def points(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Samples and the decision of `WEIGHT` at the middle of the box, the classes in blocks."""
    x = np.random.default_rng(3).uniform(0.1, 0.9, (n, SIZE)).astype(np.float32)
    y = ((x - 0.5) @ WEIGHT > 0).astype(np.int64)
    order = np.argsort(y, kind="stable")
    return x[order], y[order]


def radii(x: np.ndarray) -> np.ndarray:
    """Exact linf radii of the decision in the unit box, by bisection."""
    z = (x - 0.5).astype(np.float64) @ WEIGHT
    room = np.where((WEIGHT > 0) == (z[:, None] > 0), x, 1 - x)
    low, high = np.zeros(len(x)), np.ones(len(x))
    for _ in range(50):
        middle = (low + high) / 2
        broken = (np.minimum(room, middle[:, None]) * np.abs(WEIGHT)).sum(1) >= np.abs(z)
        low, high = np.where(broken, low, middle), np.where(broken, middle, high)
    return low


HEADS = {
    "mean": [node("Sigmoid", "z", "s"), node("ReduceMean", "s", "y", axes=[1], keepdims=1)],
    "clip": [node("Sigmoid", "z", "s"), node("Clip", "s low high", "y")],
    "squeeze": [node("Sigmoid", "z", "s"), node("Squeeze", "s one", "y")],
    "clip and reshape": [
        node("Sigmoid", "z", "s"),
        node("Clip", "s low high", "c"),
        node("Reshape", "c column", "y"),
    ],
    "two heads": [
        node("Sigmoid", "z", "s"),
        node("Neg", "z", "n"),
        node("Sigmoid", "n", "m"),
        node("Sub", "high m", "other"),
        node("Add", "s other", "sum"),
        node("Mul", "sum half", "y"),
    ],
    "clipped linear": [
        node("Mul", "z twentieth", "h"),
        node("Add", "h half", "shifted"),
        node("Clip", "shifted low high", "y"),
    ],
    "logit": [node("Mul", "z twentieth", "y")],
    "no gradient": [
        node("Sigmoid", "z", "s"),
        node("Clip", "s low high", "c"),
        node("Identity", "c", "d"),
        node("FusedMatMul", "d unit", "y", domain="com.microsoft"),
    ],
}


def onnx_file(head: str, path: Path) -> Path:
    nodes = [
        node("Sub", "x half", "centred"),
        node("MatMul", "centred weight", "z"),
        *HEADS[head],
    ]
    made = makers.graph(
        nodes,
        tensor("x", FLOAT, ["N", SIZE]),
        [tensor("y", FLOAT, ["N"] if head == "squeeze" else ["N", 1])],
        weight=WEIGHT[:, None],
        half=np.float32(0.5),
        twentieth=np.float32(0.05),
        low=np.float32(0),
        high=np.float32(1),
        one=np.array([1]),
        column=np.array([-1, 1]),
        unit=np.ones((1, 1), np.float32),
    )
    return makers.save(made, path)


class Squashed(nn.Module):
    """A probability behind operations that hide the sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(WEIGHT[:, None]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid((x - 0.5) @ self.weight).clamp(0.0, 1.0)


class Logit(nn.Module):
    """A logit, which is in [0, 1] on some samples."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(WEIGHT[:, None]))
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * ((x - 0.5) @ self.weight)


def model_file(kind: str, module: nn.Module, folder: Path) -> Path:
    x = torch.from_numpy(points()[0][:4])
    if kind == "torchscript":
        return makers.script(module, folder / "m.pt")
    if kind == "torch.export":
        return makers.export(module, folder / "m.pt2", x, batch=torch.export.Dim("n", min=1))
    return onnx_file("clip" if isinstance(module, Squashed) else "logit", folder / "m.onnx")


def load(path: Path, x: np.ndarray) -> Classifier:
    options = LoadOptions(
        trust_model=True, device="cpu", allow_domains=frozenset(["com.microsoft"])
    )
    return load_classifier(path, torch.from_numpy(x), options)


@pytest.mark.parametrize("head", [head for head in HEADS if head != "logit"])
def test_an_onnx_probability_is_cut_at_one_half(head: str, tmp_path: Path) -> None:
    x, y = points()
    model = load(onnx_file(head, tmp_path / "m.onnx"), x)
    assert (model.output, model.classes) == ("probabilities", 2)
    if head == "squeeze":
        # The importer sees the sigmoid, and its logit is what is attacked.
        assert (model.threshold, model.notes) == (0, ())
    else:
        assert READ_SO in " ".join(model.notes)
    assert_decides(model, x, y, gradient=head != "no gradient")


def assert_decides(model: Classifier, x: np.ndarray, y: np.ndarray, *, gradient: bool) -> None:
    served = model.deployed(torch.from_numpy(x))
    assert torch.equal(served.argmax(1), torch.from_numpy(y))
    torch.testing.assert_close(served.sum(1), torch.ones(len(x)))
    if not gradient:
        assert model.gradient == "none"
        return
    assert torch.equal(model.copied(torch.from_numpy(x)).argmax(1), torch.from_numpy(y))
    at = torch.from_numpy(x).requires_grad_()
    logits = model.differentiable(at)
    assert torch.equal(logits.argmax(1), torch.from_numpy(y))
    (slope,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), at)
    middle = np.abs((x - 0.5) @ WEIGHT) < 0.9
    assert (slope[torch.from_numpy(middle)].sign() == torch.from_numpy(WEIGHT).sign()).all()


@pytest.mark.parametrize("kind", ["onnx", "torchscript", "torch.export"])
def test_every_format_reads_a_probability(kind: str, tmp_path: Path) -> None:
    x, y = points()
    model = load(model_file(kind, Squashed(), tmp_path), x)
    assert (model.output, model.threshold) == ("probabilities", 0.5)
    assert READ_SO in " ".join(model.notes)
    assert_decides(model, x, y, gradient=True)


@pytest.mark.parametrize("kind", ["onnx", "torchscript", "torch.export"])
def test_a_logit_stays_a_logit(kind: str, tmp_path: Path) -> None:
    """Also where the samples at hand, of one class, have logits in [0, 1] alone."""
    x, y = points()
    module = Logit(0.05)
    inside = x[(y == 1)]
    assert (module(torch.from_numpy(inside)) <= 1).all()
    model = load(model_file(kind, module, tmp_path), inside)
    assert (model.output, model.threshold, model.notes) == ("logits", 0, ())
    served = model.deployed(torch.from_numpy(x))
    assert torch.equal(served.argmax(1), torch.from_numpy(y))
    assert (served[:, 0] == 0).all()


def test_log_odds_have_a_gradient_everywhere() -> None:
    p = torch.tensor([0, 1e-38, 1e-8, 0.3, 0.5, 0.7, 1 - 2**-24, 1.0]).requires_grad_()
    z = log_odds(p)
    (slope,) = torch.autograd.grad(z.sum(), p)
    assert z.isfinite().all()
    assert slope.isfinite().all()
    assert (slope > 0).all()
    assert torch.equal(z > 0, p > 0.5)
    assert torch.equal(z < 0, p < 0.5)
    assert (z.diff() >= 0).all()
    torch.testing.assert_close(z[3:6], p[3:6].logit())


def test_float_labels_are_cut_at_one_half(tmp_path: Path) -> None:
    """A decision that is served as 0.0 or 1.0 names two classes, not one."""
    nodes = [
        node("Sub", "x half", "centred"),
        node("MatMul", "centred weight", "z"),
        node("Greater", "z zero", "above"),
        node("Cast", "above", "y", to=FLOAT),
    ]
    made = makers.graph(
        nodes,
        tensor("x", FLOAT, ["N", SIZE]),
        [tensor("y", FLOAT, ["N", 1])],
        weight=WEIGHT[:, None],
        half=np.float32(0.5),
        zero=np.float32(0),
    )
    x, y = points()
    model = load(makers.save(made, tmp_path / "m.onnx"), x)
    assert torch.equal(model.predict(torch.from_numpy(x)), torch.from_numpy(y))


@pytest.mark.parametrize("head", ["clip", "logit"])
def test_hardening_trains_what_is_attacked(head: str, tmp_path: Path) -> None:
    x, _ = points()
    path = onnx_file(head, tmp_path / "m.onnx")
    model = load(path, x)
    at = torch.from_numpy(x)
    trained = open_trainable(path, model, LoadOptions(device="cpu"), at).logits(at)
    assert trained.shape == (len(x), 2)
    torch.testing.assert_close(trained, model.differentiable(at))


# Scans


def weakly(model: Path, data: Path, *options: object, out: Path) -> dict[str, Any]:
    """Scan with an attack that leaves much, so that it does not bound the certificates."""
    few = ("--threat", "linf", "--delta", "0.02", "--attack", "fgsm", "--effort", "quick")
    outcome = audit("scan", model, "--data", data, "--out", out, *few, *options)
    assert outcome.code in (0, 4), outcome.err  # the attack may be too weak to be believed
    return read_report(out)


@pytest.mark.parametrize("head", ["clip", "two heads", "clipped linear"])
@pytest.mark.parametrize("how", ["crown", "crown-ibp"])
def test_certificates_are_below_attacks(head: str, how: str, tmp_path: Path) -> None:
    """The bounds are those of p - 1/2: certified <= exact <= attacked, and not by much."""
    x, y = points(80)
    data = tiny.write_data(tmp_path / "d.npz", x, y)
    model = onnx_file(head, tmp_path / "m.onnx")
    out = tmp_path / "out"
    report = weakly(model, data, "--certify", how, out=out)
    assert report["clean"]["value"] == 1
    assert report["model"]["output"] == "probabilities"
    assert any(READ_SO in warning for warning in report["warnings"])
    rows = np.genfromtxt(out / "samples.csv", delimiter=",", names=True, dtype=None, encoding=None)
    certified, attacked = rows["linf_certified"], rows["linf_attacked"]
    exact = radii(x)
    assert (certified <= exact * (1 + 1e-5)).all()
    assert (np.nan_to_num(attacked, nan=np.inf) >= exact * (1 - 1e-5)).all()
    assert (certified > 0.3 * exact).mean() > 0.7
    assert report["threats"][0]["certifier"]["status"] == "ran"
    found = {entry["id"]: entry["status"] for entry in report["health"]}
    assert found["output"] == "warn"
    assert found["certified_below_attacked"] == "pass"


@pytest.mark.parametrize("kind", ["torchscript", "torch.export"])
def test_certificates_of_archives(kind: str, tmp_path: Path) -> None:
    x, y = points(60)
    data = tiny.write_data(tmp_path / "d.npz", x, y)
    model = model_file(kind, Squashed(), tmp_path)
    report = weakly(model, data, "--trust-model", "--certify", "crown-ibp", out=tmp_path / "out")
    (point,) = [p for p in report["threats"][0]["curves"][0]["points"] if p["delta"] == 0.02]
    true = float((radii(x) > 0.02).mean())
    assert point["certified"]["value"] <= true + 1e-9
    assert point["attacked"]["value"] >= true - 1e-9
    assert point["certified"]["value"] > true - 0.1


def test_inspect_says_how_the_column_is_read(tmp_path: Path) -> None:
    x, y = points()
    data = tiny.write_data(tmp_path / "d.npz", x, y)
    outcome = audit("inspect", onnx_file("clip", tmp_path / "m.onnx"), "--data", data)
    assert outcome.code == 0, outcome.err
    assert READ_SO in outcome.out
    assert "100.0% on 200 of 200 samples" in outcome.out
    assert "y (logits)" not in outcome.out


def test_labels_alone_are_no_probability(tmp_path: Path) -> None:
    """Integers 0 and 1 are class indices, as before."""
    nodes = [node("Concat", "x x", "both", axis=1), node("ArgMax", "both", "y", axis=1, keepdims=0)]
    made = makers.graph(nodes, tensor("x", FLOAT, ["N", 1]), [tensor("y", INT64, ["N"])])
    model = load(makers.save(made, tmp_path / "m.onnx"), np.zeros((4, 1), np.float32))
    assert model.output == "labels"
