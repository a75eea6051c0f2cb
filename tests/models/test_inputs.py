"""What a model takes: integers, half and double precision, layouts, sizes, fixed batches."""

import csv
import itertools
from collections.abc import Callable
from pathlib import Path

import makers
import numpy as np
import onnx
import pytest
import torch
from makers import FLOAT, node, tensor
from onnx import TensorProto
from torch import Tensor

from attackers.geometry import METRICS
from audit.errors import ModelError
from audit.evidence.judge import judge_candidates
from audit.models import Classifier, LoadOptions, load_classifier
from audit.models.preprocess import as_dtype, make_spec
from tests.cli import tiny
from tests.cli.command import scan

INTEGERS = {
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
}
STEP = 1 / 255
NORMS = {"linf": np.inf, "l2": 2, "l1": 1}


def load(made: onnx.ModelProto, folder: Path, x: Tensor, **options: object) -> Classifier:
    path = makers.save(made, folder / "m.onnx")
    return load_classifier(path, x, LoadOptions(device="cpu", **options))


def rand(*shape: int, seed: int = 3) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def weights(*shape: int, seed: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def gradient(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(run(x).square().sum(), x)
    return found


# Integers


def integer_linear(
    kind: str = "uint8", *, scale: float = STEP, last: bool = False, shape: tuple[int, ...] = ()
) -> onnx.ModelProto:
    """The linear model of `makers.images` behind a cast and a scale; ``last``: channels last."""
    shape = shape or makers.SHAPE
    weight, bias = tiny.matched(tiny.patterns(shape))
    channels, *rest = shape
    nodes = [
        node("Cast", "x", "real", to=FLOAT),
        node("Mul", "real scale", "scaled"),
        node("Transpose", "scaled", "image", perm=[0, 3, 1, 2] if last else [0, 1, 2, 3]),
        node("Flatten", "image", "flat"),
        node("Gemm", "flat weight bias", "y"),
    ]
    taken = [*rest, channels] if last else [*shape]
    return makers.graph(
        nodes,
        tensor("x", INTEGERS[kind], ["N", *taken]),
        [tensor("y", FLOAT, ["N", 10])],
        scale=np.float32(scale),
        weight=weight,
        bias=bias,
    )


def on_lattice(x: np.ndarray, step: float = STEP) -> bool:
    """Whether float32 values are float32 multiples of the step."""
    return bool(np.abs(x / step - np.round(x / step)).max(initial=0) < 1e-3)


@pytest.mark.parametrize("kind", INTEGERS)
def test_gradients_go_through_the_first_cast(kind: str, tmp_path: Path) -> None:
    """(x / std) is what the model is given, so the derivative is that of the float model."""
    step = 1 / 127 if kind == "int8" else STEP
    x = (rand(5, *makers.SHAPE) / step).round() * step
    made = integer_linear(kind, scale=step)
    classifier = load(made, tmp_path, x, std=(step,))
    assert classifier.gradient == "lifted"
    assert classifier.notes == ()
    module = makers.linear()
    expected = module(x).detach()
    torch.testing.assert_close(classifier.deployed(x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(classifier.copied(x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        gradient(classifier.differentiable, x), gradient(module, x), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_what_is_reported_can_be_given_to_an_integer_model(last: bool, tmp_path: Path) -> None:
    """Every example lies on the lattice, and its distance is that of the rounded example."""
    shape = (3, 4, 4)
    x, y = tiny.noisy(tiny.patterns(shape), 60)
    x = (np.round(x * 255) / 255).astype(np.float32)
    data = tiny.write_data(tmp_path / "data.npz", x, y)
    model = makers.save(integer_linear(last=last, shape=shape), tmp_path / "m.onnx")
    out = tmp_path / "out"
    report = scan(
        model, data, "--std", "1/255", "--threat", "linf,l2,l1", "--delta", "0.05,0.3", out=out
    )
    assert report["clean"]["value"] > 0.8
    assert report["model"]["gradient"] == "lifted"
    assert report["model"]["input"]["layout"] == ("hwc" if last else "chw")
    archive = np.load(out / "adversarial.npz")
    rows = list(csv.DictReader((out / "samples.csv").read_text(encoding="utf-8").splitlines()))
    weight, bias = (value.astype(np.float64) for value in tiny.matched(tiny.patterns(shape)))
    for metric, order in NORMS.items():
        index, examples = archive[f"{metric}_index"], archive[f"{metric}_x"]
        assert len(index) >= 0.7 * report["data"]["correct"]
        assert on_lattice(examples)
        moved = (examples.astype(np.float64) - x[index]).reshape(len(index), -1)
        distance = np.linalg.norm(moved, order, axis=1)
        said = np.array([float(rows[i][f"{metric}_attacked"]) for i in index])
        np.testing.assert_allclose(said, distance, rtol=1e-12)
        if metric == "linf":
            assert on_lattice(said)
        assert said.min() >= STEP * 0.999
        # Rounded to the pixel they stand for, they are misclassified.
        pixels = np.round(examples.astype(np.float64) * 255) / 255
        scores = pixels.reshape(len(index), -1) @ weight + bias
        own = np.take_along_axis(scores, y[index][:, None], 1)[:, 0].copy()
        np.put_along_axis(scores, y[index][:, None], -np.inf, 1)
        assert (own - scores.max(1)).max() < 1e-4


def test_rounding_costs_no_example(tmp_path: Path) -> None:
    x, y = makers.images()
    x = (np.round(x * 255) / 255).astype(np.float32)
    data = tiny.write_data(tmp_path / "data.npz", x, y)
    model = makers.save(integer_linear(), tmp_path / "m.onnx")
    options = ("--std", "1/255", "--threat", "linf", "--delta", "0.5", "--attack", "minimal")
    report = scan(model, data, *options, out=tmp_path / "out")
    attacks = {attack["name"]: attack for attack in report["threats"][0]["attacks"]}
    assert attacks["minimal"]["broken"] == report["data"]["correct"]


def test_the_judge_rounds_before_it_measures(tmp_path: Path) -> None:
    x, y = makers.images(40)
    x0 = torch.from_numpy(np.round(x * 255) / 255).float()
    classifier = load(integer_linear(), tmp_path, x0, std=(STEP,))
    labels = torch.from_numpy(y)
    correct = classifier.predict(x0) == labels
    x0, labels = x0[correct], labels[correct]
    target = makers.linear()[1].weight[(labels + 1) % 10].reshape(x0.shape).detach().sign()
    for metric in METRICS.values():
        geometry = metric(low=0.0, high=1.0)
        candidates = (x0 + 0.3 * target + 0.3 * STEP).clamp(0, 1)
        verdict = judge_candidates(classifier, geometry, x0, candidates, labels)
        assert verdict.broken.sum() > 0.5 * len(x0)
        assert on_lattice(verdict.x.numpy())
        assert (classifier.predict(verdict.x) != labels)[verdict.broken].all()
        expected = geometry.distance(x0, verdict.x)[verdict.broken]
        assert torch.equal(verdict.distance[verdict.broken], expected)
        # A move that rounding takes back is no move.
        still = judge_candidates(classifier, geometry, x0, (x0 + 0.4 * STEP).clamp(0, 1), labels)
        assert not still.broken.any()


@pytest.mark.parametrize(
    ("mean", "std", "low", "high"),
    [(None, 1 / 255, 0.0, 1.0), (0.5, 1 / 255, 0.0, 1.0), (None, None, 0.0, 255.0),
     (None, None, -3.0, 300.0), (0.1307, 0.01, 0.0, 1.0), (0.0, 1 / 255, 0.1, 0.9)],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_representable_values(
    mean: float | None, std: float | None, low: float, high: float, dtype: torch.dtype
) -> None:
    """Inside the box, given to the model without a further change, nearest, and idempotent."""
    given = {"mean": None if mean is None else (mean,), "std": None if std is None else (std,)}
    spec = make_spec(
        sample=(50,), shape=(None, 50), dtype=dtype, layout=None, low=low, high=high, **given
    )
    x = low + rand(20, 50) * (high - low)
    x[0], x[1] = low, high
    found = spec.representable(x)
    assert found.min() >= low
    assert found.max() <= high
    torch.testing.assert_close(spec.representable(found), found, rtol=0, atol=1e-6)
    prepared = spec.prepare(found)
    served = as_dtype(prepared, dtype).float()
    assert (served - prepared).abs().max() < 2e-3
    # Every value of the lattice inside the box, and the nearest of them.
    limits, m, s = torch.iinfo(dtype), mean or 0.0, std or 1.0
    steps = torch.arange(max(limits.min, -400), min(limits.max, 400) + 1).double()
    lattice = steps * s + m
    lattice = lattice[(lattice >= low - 1e-6) & (lattice <= high + 1e-6)]
    nearest = (x.double()[..., None] - lattice).abs().amin(-1)
    torch.testing.assert_close((x - found).abs().double(), nearest, rtol=0, atol=1e-5 * high)


def test_float_inputs_are_not_rounded() -> None:
    spec = make_spec(
        sample=(3,), shape=(None, 3), dtype=torch.float32, layout=None, low=0.0, high=1.0,
        mean=None, std=(STEP,),
    )  # fmt: skip
    x = rand(4, 3)
    assert spec.representable(x) is x


def test_integers_do_not_wrap_around() -> None:
    x = torch.tensor([-3.0, -0.4, 0.5, 1.5, 254.6, 300.0])
    assert as_dtype(x, torch.uint8).tolist() == [0, 0, 0, 2, 255, 255]
    assert as_dtype(x, torch.int8).tolist() == [-3, 0, 0, 2, 127, 127]


def test_an_integer_that_is_computed_with_has_no_gradient(tmp_path: Path) -> None:
    """An index is not a number that could be a little larger."""
    nodes = [node("Gather", "table x", "rows"), node("ReduceMean", "rows", "y", axes=[1])]
    made = makers.graph(
        nodes,
        tensor("x", TensorProto.INT64, ["N", 4]),
        [tensor("y", FLOAT, ["N", 3])],
        table=weights(8, 3),
    )
    x = (7 * rand(5, 4)).round()
    classifier = load(made, tmp_path, x, high=7.0)
    assert classifier.gradient == "none"
    assert "no differentiable path" in classifier.notes[0]


# Clips that would hide the gradient


@pytest.mark.parametrize("kind", ["Clip", "Relu"])
def test_a_clip_of_the_input_hides_no_gradient(kind: str, tmp_path: Path) -> None:
    """Samples at the box's corners, where the derivative of a clip is a matter of taste."""
    first = node("Clip", "x low high", "seen") if kind == "Clip" else node("Relu", "x", "seen")
    nodes = [first, node("Gemm", "seen weight", "y")]
    stored = {"low": np.float32(0), "high": np.float32(1)} if kind == "Clip" else {}
    source, target = tensor("x", FLOAT, ["N", 12]), tensor("y", FLOAT, ["N", 3])
    made = makers.graph(nodes, source, [target], weight=weights(12, 3), **stored)
    x = (rand(6, 12) > 0.5).float()
    classifier = load(made, tmp_path, x)
    expected = gradient(lambda x: x @ torch.from_numpy(weights(12, 3)), x)
    torch.testing.assert_close(gradient(classifier.differentiable, x), expected)


# Precision


@pytest.mark.parametrize("kind", ["float16", "float64"])
def test_half_and_double_precision(kind: str, tmp_path: Path) -> None:
    code = TensorProto.FLOAT16 if kind == "float16" else TensorProto.DOUBLE
    weight, bias = weights(12, 3).astype(kind), weights(3).astype(kind)
    nodes = [node("Gemm", "x weight bias", "z"), node("Softmax", "z", "y", axis=1)]
    made = makers.graph(
        nodes,
        tensor("x", code, ["N", 12]),
        [tensor("y", code, ["N", 3])],
        weight=weight,
        bias=bias,
    )
    x = rand(9, 12)
    classifier = load(made, tmp_path, x)
    z = x.numpy().astype(kind).astype(np.float64) @ weight.astype(np.float64) + bias
    logits = torch.from_numpy(z).float()
    tolerance = {"rtol": 1e-2, "atol": 1e-2} if kind == "float16" else {"rtol": 1e-5, "atol": 1e-6}
    assert classifier.deployed(x).dtype == torch.float32
    torch.testing.assert_close(classifier.deployed(x), logits.softmax(1), **tolerance)
    torch.testing.assert_close(classifier.copied(x), logits.softmax(1), **tolerance)
    found = classifier.differentiable(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, logits, **tolerance)
    expected = gradient(lambda x: x.double() @ torch.from_numpy(weight).double(), x)
    assert gradient(classifier.differentiable, x).dtype == torch.float32
    biased = gradient(
        lambda x: x.double() @ torch.from_numpy(weight).double() + torch.from_numpy(bias).double(),
        x,
    )
    assert not torch.allclose(expected, biased, **tolerance)
    torch.testing.assert_close(gradient(classifier.differentiable, x), biased, **tolerance)


# Mean, standard deviation and layout


def layered(axes: str, *, flat: bool) -> onnx.ModelProto:
    sizes = dict(zip("chw", (3, 5, 4), strict=True))
    taken = [60] if flat else [sizes[axis] for axis in axes]
    nodes = [node("Flatten", "x", "flat"), node("Gemm", "flat weight", "y")]
    source, target = tensor("x", FLOAT, ["N", *taken]), tensor("y", FLOAT, ["N", 7])
    return makers.graph(nodes, source, [target], weight=weights(60, 7))


@pytest.mark.parametrize("flat", [False, True], ids=["image", "flat"])
@pytest.mark.parametrize("axes", ["".join(p) for p in itertools.permutations("chw")])
def test_normalised_then_permuted(axes: str, flat: bool, tmp_path: Path) -> None:
    x, mean, std = rand(5, 3, 5, 4), (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    made = layered(axes, flat=flat)
    given = {"layout": axes} if flat else {}  # the sizes tell the axes of an image apart
    classifier = load(made, tmp_path, x, mean=mean, std=std, **given)
    assert classifier.spec.layout == axes
    m, s = (np.array(v).reshape(1, 3, 1, 1) for v in (mean, std))
    order = [0, *("chw".index(axis) + 1 for axis in axes)]
    normal = ((x.numpy().astype(np.float64) - m) / s).transpose(order)
    expected = torch.from_numpy(normal.reshape(5, 60) @ weights(60, 7)).float()
    torch.testing.assert_close(classifier.deployed(x), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(classifier.differentiable(x), expected, rtol=1e-5, atol=1e-5)


# Sizes


def pooled() -> onnx.ModelProto:
    nodes = [
        node("Conv", "x kernel", "z", pads=[1, 1, 1, 1]),
        node("Relu", "z", "r"),
        node("GlobalAveragePool", "r", "p"),
        node("Flatten", "p", "y"),
    ]
    source, target = tensor("x", FLOAT, ["N", 2, "H", "W"]), tensor("y", FLOAT, ["N", 5])
    return makers.graph(nodes, source, [target], kernel=weights(5, 2, 3, 3))


@pytest.mark.parametrize("size", [(4, 4), (7, 5), (1, 9)])
def test_any_height_and_width(size: tuple[int, int], tmp_path: Path) -> None:
    x = rand(5, 2, *size)
    classifier = load(pooled(), tmp_path, x)
    assert classifier.spec.shape == (None, 2, None, None)
    kernel = torch.from_numpy(weights(5, 2, 3, 3))
    expected = torch.conv2d(x, kernel, padding=1).relu().mean((2, 3))
    torch.testing.assert_close(classifier.deployed(x), expected)
    torch.testing.assert_close(classifier.differentiable(x), expected)


def test_other_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"\(N, 2, N, N\).*\(3, 5, 7\).*--layout"):
        load(pooled(), tmp_path, rand(4, 3, 5, 7))


def insisting(batch: int) -> onnx.ModelProto:
    """A graph whose constants hold its batch size."""
    nodes = [
        node("Reshape", "x shape", "flat"),
        node("Gemm", "flat weight", "z"),
        node("Add", "z bias", "y"),
    ]
    return makers.graph(
        nodes,
        tensor("x", FLOAT, [batch, 2, 3]),
        [tensor("y", FLOAT, [batch, 4])],
        shape=np.array([batch, 6]),
        weight=weights(6, 4),
        bias=weights(4),
    )


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("rows", [1, 3, 4, 9, 33])
def test_a_fixed_batch_is_called_again_and_again(batch: int, rows: int, tmp_path: Path) -> None:
    sample, x = rand(8, 2, 3), rand(rows, 2, 3, seed=6)
    classifier = load(insisting(batch), tmp_path, sample)
    assert classifier.spec.batch == batch
    expected = x.flatten(1) @ torch.from_numpy(weights(6, 4)) + torch.from_numpy(weights(4))
    for run in (classifier.deployed, classifier.copied, classifier.differentiable):
        together = run(x)
        assert together.shape == (rows, 4)
        torch.testing.assert_close(together, expected)
        single = torch.cat([run(row[None]) for row in x])
        assert torch.equal(together, single)


def test_one_probability_of_two_classes(tmp_path: Path) -> None:
    nodes = [node("Gemm", "x weight", "z"), node("Sigmoid", "z", "y")]
    source, target = tensor("x", FLOAT, ["N", 6]), tensor("y", FLOAT, ["N", 1])
    made = makers.graph(nodes, source, [target], weight=weights(6, 1))
    x = rand(9, 6)
    classifier = load(made, tmp_path, x)
    z = x @ torch.from_numpy(weights(6, 1))
    p = z.sigmoid()
    assert (classifier.output, classifier.classes) == ("probabilities", 2)
    torch.testing.assert_close(classifier.deployed(x), torch.cat([1 - p, p], 1))
    torch.testing.assert_close(classifier.differentiable(x), torch.cat([torch.zeros_like(z), z], 1))


# A sample and its neighbours


def convolution(batch: int | str = "N") -> onnx.ModelProto:
    nodes = [
        node("Conv", "x kernel", "z", pads=[1, 1, 1, 1]),
        node("Relu", "z", "r"),
        node("Flatten", "r", "f"),
        node("Gemm", "f weight", "l"),
        node("Softmax", "l", "y", axis=1),
    ]
    return makers.graph(
        nodes,
        tensor("x", FLOAT, [batch, *makers.SHAPE]),
        [tensor("y", FLOAT, [batch, 10])],
        kernel=weights(16, 1, 3, 3),
        weight=weights(576, 10),
    )


def served(kind: str, folder: Path) -> Path:
    path = folder / "m"
    if kind == "script":
        return makers.script(makers.net(), path)
    if kind == "export":
        return makers.export(
            makers.net(), path, rand(2, *makers.SHAPE), batch=torch.export.Dim("batch")
        )
    batch = {"onnx": "N", "onnx of batch 1": 1, "onnx of batch 4": 4}[kind]
    return makers.save(convolution(batch), path)


@pytest.mark.parametrize("kind", ["onnx", "onnx of batch 1", "onnx of batch 4", "script", "export"])
def test_a_row_does_not_depend_on_its_neighbours(kind: str, tmp_path: Path) -> None:
    x = rand(70, *makers.SHAPE)
    options = LoadOptions(device="cpu", trust_model=True)
    classifier = load_classifier(served(kind, tmp_path), x[:8], options)
    order = torch.randperm(70, generator=torch.Generator().manual_seed(0))
    back = order.argsort()

    def slope(x: Tensor) -> Tensor:
        return gradient(classifier.differentiable, x)

    for run in (classifier.deployed, classifier.copied, classifier.differentiable, slope):
        together = run(x)
        assert torch.equal(run(x[order])[back], together)
        for start, stop in ((0, 1), (3, 8), (31, 64), (40, 70)):
            assert torch.equal(run(x[start:stop]), together[start:stop])
