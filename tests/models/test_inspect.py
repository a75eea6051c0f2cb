"""`audit inspect`: what it finds, and that the command it prints does what it says."""

import shlex
from pathlib import Path

import makers
import numpy as np
import onnx
import pytest
import torch
from makers import FLOAT, node, tensor
from PIL import Image
from torch import nn

from audit.demo import data_path, model_path
from audit.models.files import digest
from tests.cli import tiny
from tests.cli.command import audit, read_report


def inspected(*words: object) -> tuple[dict[str, str], list[str]]:
    """The facts by name, and the printed command's words."""
    outcome = audit("inspect", *words)
    assert (outcome.code, outcome.err) == (0, "")
    shown, _, command = outcome.out.partition("\nScan it with:\n  ")
    facts: dict[str, str] = {}
    for line in shown.splitlines():
        facts.setdefault(line[:16].strip(), line[16:])
    return facts, shlex.split(command)


def runs(command: list[str], out: Path, *options: object, code: int = 0) -> dict[str, object]:
    """Run a printed command as it stands; only less work and another folder are added."""
    assert command[:2] == ["audit", "scan"]
    outcome = audit(*command[1:], "--out", out, *options)
    assert outcome.code == code, outcome.err
    assert outcome.err == ""
    return read_report(out)


QUICK = ("--attack", "minimal", "--effort", "quick", "--delta", "0.1")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny.write_data(tmp_path / "data.npz", *makers.images(100))


# ONNX


def test_the_demo_model_with_data(tmp_path: Path) -> None:
    facts, command = inspected(model_path(), "--data", data_path())
    assert facts["file"] == f"{model_path()}, {model_path().stat().st_size:,} bytes"
    assert facts["sha256"] == digest(model_path())
    assert facts["format"] == "onnx"
    made = onnx.load(model_path())
    assert facts["opset"] == f"ai.onnx {made.opset_import[0].version}"
    assert facts["operators"] == "Conv ×2, Gemm ×2, Relu ×3, Reshape ×1"
    assert facts["importer"] == "every operator is supported"
    weights = [stored for stored in made.graph.initializer if stored.data_type == FLOAT]
    total = sum(int(np.prod(stored.dims)) for stored in weights)
    assert facts["parameters"] == f"{total:,} in {len(weights)} float initializers"
    assert facts["served output"] == "logits (logits)"
    assert facts["model input"] == "(N, 1, 28, 28) float32, layout chw"
    assert (facts["classes"], facts["output"]) == ("10", "logits")
    assert facts["parity"].endswith("on 256 inputs")
    assert facts["gradients"] == "lifted; 0 of 256 zero, 0 not finite"
    for name in ("gradient time", "served time"):
        number, unit = facts[name].split()[:2]
        assert (float(number) > 0, unit) == (True, "ms"), facts[name]
    assert int(facts["gradient memory"].split()[1].replace(",", "")) > 4 * 28 * 28
    assert facts["sample memory"] == "3,136 bytes as float32"
    assert "on 256 of 1000 samples" in facts["clean accuracy"]
    assert facts["preprocessing"] == "fits: accuracy is well above chance"
    words = ["audit", "scan", str(model_path()), "--data", str(data_path())]
    assert command == [*words, "--threat", "linf,l2", "--samples", "1000"]
    options = ("--samples", "20", "--threat", "linf", "--certify", "none")
    report = runs(command, tmp_path / "out", *QUICK, *options)
    assert report["model"]["sha256"] == digest(model_path())


def test_the_demo_model_without_data() -> None:
    facts, command = inspected(model_path())
    assert facts["parity"].endswith("on 8 inputs")
    assert facts["gradients"].startswith("lifted; ")
    assert "clean accuracy" not in facts
    assert "preprocessing" not in facts
    assert command == []


def test_a_model_of_unknown_size_without_data(tmp_path: Path) -> None:
    made = makers.graph(
        [node("GlobalAveragePool", "x", "p"), node("Flatten", "p", "y")],
        tensor("x", FLOAT, ["N", 3, "H", "W"]),
        [tensor("y", FLOAT, ["N", 3])],
    )
    facts, command = inspected(makers.save(made, tmp_path / "m.onnx"))
    assert facts["inputs"] == "x float (N, 3, H, W)"
    assert "pass --data" in facts["input"]
    assert command == []


def test_an_unsupported_operator_is_named(tmp_path: Path, data: Path) -> None:
    weight, bias = tiny.matched(tiny.patterns(makers.SHAPE))
    made = makers.graph(
        [
            node("Flatten", "x", "flat"),
            node("Gemm", "flat weight bias", "logits"),
            node("QuickGelu", "logits", "y", domain="com.microsoft", name="last"),
        ],
        tensor("x", FLOAT, ["N", *makers.SHAPE]),
        [tensor("y", FLOAT, ["N", 10])],
        weight=weight,
        bias=bias,
    )
    model = makers.save(made, tmp_path / "m.onnx")
    facts, command = inspected(model, "--data", data, "--allow-domain", "com.microsoft")
    for text in ("not supported", "node 'last'", "com.microsoft::QuickGelu", "opset 1"):
        assert text in facts["importer"]
    assert "QuickGelu ×1" in facts["operators"]
    assert "only black-box attacks" in facts["gradients"]
    assert "parity" not in facts
    report = runs(command, tmp_path / "out", "--delta", "0.1", "--samples", "30")
    assert report["model"]["gradient"] == "none"


# Wrong preprocessing is found, and the command puts it right


def scaled(folder: Path) -> tuple[Path, tiny.Floats, np.ndarray]:
    """A model of inputs from 0 to 255."""
    weight, bias = tiny.matched(tiny.patterns(makers.SHAPE))
    shape = ("N", *makers.SHAPE)
    model = tiny.write_linear(folder / "m.onnx", weight, bias, shape=shape, scale=1 / 255)
    return model, *makers.images(100)


def transposed(folder: Path) -> tuple[Path, tiny.Floats, np.ndarray]:
    """A flat model of channels-last images."""
    shown = tiny.patterns((3, 5, 4))
    weight, bias = tiny.matched(shown.transpose(0, 2, 3, 1))
    model = tiny.write_linear(folder / "m.onnx", weight, bias, shape=("N", 60))
    return model, *tiny.noisy(shown, 200)


@pytest.mark.parametrize(
    ("make", "advice", "flag"),
    [(scaled, "--std 1/255", "--std"), (transposed, "--layout hwc", "--layout")],
)
def test_wrong_preprocessing_is_found_and_put_right(
    tmp_path: Path, make: object, advice: str, flag: str
) -> None:
    model, x, y = make(tmp_path)
    data = tiny.write_data(tmp_path / "data.npz", x, y)
    facts, command = inspected(model, "--data", data)
    assert "at chance" in facts["preprocessing"]
    assert advice in facts["preprocessing"]
    assert "looks right" in facts["preprocessing"]
    assert flag in command
    report = runs(command, tmp_path / "out", *QUICK)
    assert report["clean"]["value"] > 0.8


def test_a_superfluous_option_is_left_out(tmp_path: Path, data: Path) -> None:
    model = tiny.write_linear(
        tmp_path / "m.onnx",
        *tiny.matched(tiny.patterns(makers.SHAPE)),
        shape=("N", *makers.SHAPE),
    )
    facts, command = inspected(model, "--data", data, "--mean", "30")
    assert "no --mean and --std looks right" in facts["preprocessing"]
    assert "--mean" not in command
    runs(command, tmp_path / "out", *QUICK)


def test_without_a_remedy_there_is_no_command(tmp_path: Path) -> None:
    x, y = makers.images(100)
    data = tiny.write_data(tmp_path / "data.npz", x, (y + 3) % 10)
    model = tiny.write_linear(
        tmp_path / "m.onnx",
        *tiny.matched(tiny.patterns(makers.SHAPE)),
        shape=("N", *makers.SHAPE),
    )
    facts, command = inspected(model, "--data", data)
    assert "check that labels" in facts["preprocessing"]
    assert command == []


# The command repeats what the inspection was told


def test_the_command_keeps_the_options(tmp_path: Path) -> None:
    folder = tmp_path / "my images"
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(40):
        size = (8, 9 + i % 3)
        picture = rng.integers(0, 100, size) + (i % 2) * 120
        Image.fromarray(picture.astype(np.uint8)).save(folder / "ab"[i % 2] / f"{i}.png")
    made = makers.graph(
        [node("Flatten", "x", "flat"), node("Gemm", "flat weight", "y")],
        tensor("x", FLOAT, ["N", 6, 6, 1]),
        [tensor("y", FLOAT, ["N", 2])],
        weight=np.tile(np.array([[-1.0, 1.0]], np.float32), (36, 1)),
    )
    model = makers.save(made, tmp_path / "m.onnx")
    given = [
        "--low", "-1.0", "--high", "3.0", "--mean", "1.0", "--std", "0.5", "--resize", "6x6",
        "--layout", "hwc", "--device", "cpu",
    ]  # fmt: skip
    facts, command = inspected(model, "--data", folder, *given)
    assert facts["preprocessing"] == "fits: accuracy is well above chance", facts
    for flag, value in zip(given[::2], given[1::2], strict=True):
        assert command[command.index(flag) + 1] == value
    report = runs(command, tmp_path / "out", *QUICK)
    assert report["model"]["input"]["shape"] == [None, 6, 6, 1]
    assert (report["model"]["input"]["low"], report["model"]["input"]["high"]) == (-1, 3)


# Archives that run code


@pytest.mark.parametrize("how", ["script", "export"])
def test_an_archive_with_and_without_trust(tmp_path: Path, data: Path, how: str) -> None:
    model, module = tmp_path / "m.bin", makers.linear(nn.Softmax(dim=1))
    if how == "script":
        makers.script(module, model)
    else:
        example = torch.zeros(2, *makers.SHAPE)
        makers.export(module, model, example, batch=torch.export.Dim("batch"))
    kind = "torchscript" if how == "script" else "torch.export"

    facts, command = inspected(model)
    assert (facts["format"], facts["sha256"]) == (kind, digest(model))
    assert "--trust-model" in facts["opened"]
    assert "parameters" not in facts
    assert command == []

    refused = audit("inspect", model, "--data", data)
    assert (refused.code, refused.out) == (2, "")
    assert "--trust-model" in refused.err

    facts, command = inspected(model, "--trust-model")
    assert facts["parameters"] == "370 in 2 tensors"
    if how == "script":
        assert "pass --data" in facts["input"]
    else:
        assert facts["model input"].startswith("(N, 1, 6, 6) float32")
    assert command == []

    facts, command = inspected(model, "--trust-model", "--data", data)
    assert (facts["classes"], facts["output"]) == ("10", "probabilities")
    assert facts["gradients"] == "lifted; 0 of 100 zero, 0 not finite"
    assert "--trust-model" in command
    runs(command, tmp_path / "out", *QUICK)


def test_what_is_no_model(tmp_path: Path) -> None:
    for name, content in (("empty", b""), ("text", b"hello, this is no model\n" * 9)):
        file = tmp_path / name
        file.write_bytes(content)
        outcome = audit("inspect", file)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.count("\n") == 1


# Labels and data that do not fit


@pytest.mark.parametrize("served", ["logits", "labels"])
@pytest.mark.parametrize(("shift", "first"), [(5, 10), (-1, -1), (-20, None)])
def test_labels_that_the_model_cannot_name(
    tmp_path: Path, served: str, shift: int, first: int | None
) -> None:
    """The message and the exit code of a scan."""
    x, y = makers.images(60)
    data = tiny.write_data(tmp_path / "data.npz", x, y + shift)
    weight, bias = tiny.matched(tiny.patterns(makers.SHAPE))
    nodes = [node("Flatten", "x", "flat"), node("Gemm", "flat weight bias", "z")]
    nodes.append(node("ArgMax", "z", "y", axis=1) if served == "labels" else node("Tanh", "z", "y"))
    kind, width = (makers.INT64, 1) if served == "labels" else (FLOAT, 10)
    made = makers.graph(
        nodes,
        tensor("x", FLOAT, ["N", *makers.SHAPE]),
        [tensor("y", kind, ["N", width])],
        weight=weight,
        bias=bias,
    )
    model = makers.save(made, tmp_path / "m.onnx")
    seen = audit("inspect", model, "--data", data)
    told = audit("scan", model, "--data", data, "--out", tmp_path / "out")
    assert seen.code == told.code == 2
    assert seen.err == told.err
    assert f"label {first if first is not None else y[0] + shift} in row" in seen.err


@pytest.mark.parametrize(
    ("count", "size", "code", "text"),
    [
        (0, 6, 5, "holds no samples"),
        (1, 6, 0, "on 1 of 1 samples"),
        (2, 6, 0, "on 2 of 2 samples"),
        (20, 7, 2, "one sample has shape (1, 7, 7)"),
    ],
)
def test_data_of_any_size(tmp_path: Path, count: int, size: int, code: int, text: str) -> None:
    x, y = tiny.noisy(tiny.patterns((1, size, size)), count)
    data = tiny.write_data(tmp_path / "data.npz", x, y)
    weight, bias = tiny.matched(tiny.patterns(makers.SHAPE))
    model = tiny.write_linear(tmp_path / "m.onnx", weight, bias, shape=("N", *makers.SHAPE))
    outcome = audit("inspect", model, "--data", data)
    assert outcome.code == code, outcome.err
    assert text in outcome.out + outcome.err


def class_folders(root: Path, names: str = "ab") -> Path:
    """Dark images in the first folder, bright ones in the second, of unlike sizes."""
    rng = np.random.default_rng(0)
    for i in range(40):
        picture = rng.integers(0, 100, (8, 9 + i % 3)) + (i % 2) * 120
        (root / names[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.astype(np.uint8)).save(root / names[i % 2] / f"{i}.png")
    return root


def of_brightness(
    path: Path, shape: tuple[int, ...], *, middle: float, sign: float = 1.0, domain: bool = False
) -> Path:
    """Class 1 of images brighter than the middle, in the units that the model sees."""
    nodes = [node("Flatten", "x", "flat"), node("Gemm", "flat weight bias", "z")]
    nodes.append(
        node("QuickGelu", "z", "y", domain="com.microsoft") if domain else node("Tanh", "z", "y")
    )
    made = makers.graph(
        nodes,
        tensor("x", FLOAT, ["N", *shape]),
        [tensor("y", FLOAT, ["N", 2])],
        weight=np.tile(sign * np.array([[-0.1, 0.1]], np.float32), (36, 1)),
        bias=sign * np.array([3.6, -3.6], np.float32) * middle,
    )
    return makers.save(made, path)


OPTIONS: dict[str, tuple[tuple[str, ...], dict[str, object]]] = {
    "plain": ((), {}),
    "class map": (("--class-map", "classes of mine.txt"), {"sign": -1.0}),
    "device": (("--device", "cpu"), {}),
    "layout": (("--layout", "hwc"), {}),
    "mean": (("--mean", "0.25"), {"middle": 0.25}),
    "std": (("--std", "0.5"), {"middle": 1.0}),
    "low": (("--low", "-1.0"), {"middle": 0.0}),
    "high": (("--high", "3.0"), {"middle": 1.5}),
    "allow domain": (("--allow-domain", "com.microsoft"), {"domain": True}),
    "trust model": (("--trust-model",), {}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_printed_command_runs_with_every_option(name: str, tmp_path: Path) -> None:
    given, how = OPTIONS[name]
    data = class_folders(tmp_path / "my images")
    options = [*given, "--resize", "6x6"]
    if name == "class map":
        order = tmp_path / given[1]
        order.write_text("b\na\n", encoding="utf-8")
        options[1] = str(order)
    shape = (6, 6, 1) if name == "layout" else (1, 6, 6)
    if name == "trust model":
        module = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).eval()
        with torch.no_grad():
            module[1].weight.copy_(torch.tensor([[-0.1], [0.1]]).expand(2, 36))
            module[1].bias.copy_(torch.tensor([1.8, -1.8]))
        model = makers.script(module, tmp_path / "m.pt")
    else:
        model = of_brightness(tmp_path / "m.onnx", shape, **{"middle": 0.5, **how})
    facts, command = inspected(model, "--data", data, *options)
    assert facts["clean accuracy"].startswith("100.0%")
    for word in options:
        assert word in command
    quick = ("-n", "8", "--effort", "quick", "--certify", "none", "--attack", "fgsm")
    if name == "allow domain":
        quick = (*quick[:-1], "random")  # fgsm needs gradients
    outcome = audit(*command[1:], *quick, "--threat", "linf", "--out", tmp_path / "out")
    assert outcome.code in (0, 4), outcome.err  # so few samples and steps may not be believed
    assert read_report(tmp_path / "out")["clean"]["value"] == 1
