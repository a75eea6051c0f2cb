"""Public models and data, where they lie beside the repository: numbers that others measured."""

import csv
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from command import scan

from attackers import ATTACKS
from attackers.geometry import METRICS
from attackers.random_streams import SampleGenerator
from attackers.threat import Threat
from audit.data import Dataset, open_data
from audit.evidence.judge import judge_candidates
from audit.models import LoadOptions, load_classifier

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)

MODELS = [
    ("mnist/sinkhorn_vanilla.onnx", 98.89, {}),
    ("mnist/sinkhorn_vanilla.torchscript.pt", 98.89, {}),
    ("mnist/sinkhorn_wasserstein_adv.onnx", 97.28, {}),
    ("mnist/sinkhorn_binarize.onnx", 98.73, {}),
    ("mnist/fast_adversarial_pgd_madry.onnx", 98.99, {}),
    ("mnist/madry_cnn_tiny.onnx", 97.94, {}),
    ("mnist/convex_adversarial_mnist.onnx", 98.20, {}),
    ("mnist/mnist-8.onnx", 98.91, {"std": (1 / 255,)}),
    ("mnist/Convnet_maxpool.onnx", 97.92, {}),
    ("mnist/mnist-net_256x2.onnx", 98.08, {}),
    ("mnist/ffnnSIGMOID__Point_6x200.onnx", 97.66, {}),
    ("mnist/marabou_mnist5x20_leaky_relu.onnx", 94.51, {}),
    ("mnist/marabou_softmax-last-layer.onnx", 88.95, {}),
    ("mnist/marabou_cnn_max_mninst2.onnx", 98.23, {"layout": "hwc"}),
    ("mnist/cora_mnist-point.onnx", 98.17, {"layout": "cwh"}),
    ("cifar10/resnet_2b.onnx", 69.25, {"mean": CIFAR_MEAN, "std": CIFAR_STD}),
    ("cifar10/cifar_base_kw.onnx", 58.53, {"mean": (0.485, 0.456, 0.406), "std": (0.225,)}),
    ("cifar10/cifar10_small.onnx", 63.14, {"layout": "hwc"}),
    ("cifar10/squeezenet_cifar10.onnx", 77.06, {"layout": "hwc"}),
    (
        "cifar10/eran_conv_small_pgd.onnx",
        62.92,
        {"mean": CIFAR_MEAN, "std": (0.2023, 0.1994, 0.2010)},
    ),
    ("imagenet/efficientnet_lite0.onnx", 88.6, {"mean": (127 / 255,), "std": (128 / 255,)}),
]


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not (folder / "models").is_dir():
        pytest.skip("the folder ../shared does not exist next to this repository")
    return folder


def data_of(shared: Path, family: str) -> Dataset:
    path = {
        "mnist": "mnist/t10k-images-idx3-ubyte.gz",
        "cifar10": "cifar10/cifar10_test_first2000.bin",
        "imagenet": "imagenet/labels.csv",
    }[family]
    resize = (224, 224) if family == "imagenet" else None
    return open_data(shared / path, low=0.0, high=1.0, resize=resize)


def find(shared: Path, name: str) -> Path:
    path = shared / "models" / name
    if not path.exists():
        pytest.skip(f"{name} is not there")
    return path


@pytest.mark.parametrize(("name", "accuracy", "options"), MODELS, ids=[name for name, *_ in MODELS])
def test_every_model_loads_and_is_as_accurate_as_stated(
    shared: Path, name: str, accuracy: float, options: dict[str, object]
) -> None:
    data = data_of(shared, name.split("/")[0])
    rows = np.arange(min(200, len(data)))
    x, labels = torch.from_numpy(data.read(rows)), torch.from_numpy(data.labels[rows])
    classifier = load_classifier(
        find(shared, name),
        x[:8],
        LoadOptions(trust_model=True, **options),  # type: ignore[arg-type]
    )
    assert classifier.classes in (10, 1000)
    scores = classifier.deployed(x)
    assert scores.shape == (len(x), classifier.classes)
    # Two hundred samples: three standard deviations are at most eleven points, at 90 % six.
    found = 100 * float((scores.argmax(1) == labels).double().mean())
    assert abs(found - accuracy) <= 8
    if classifier.has_copy:
        few = x[:16]
        served, copied = classifier.deployed(few), classifier.copied(few)
        assert (served - copied).abs().max() <= 1e-3 * max(1, served.abs().max())


def test_every_model_file_is_listed(shared: Path) -> None:
    listed = {name.split("/")[1].split(".")[0] for name, *_ in MODELS}
    there = {p.name.split(".")[0] for p in (shared / "models").rglob("*.onnx")}
    assert there <= listed | {"convex_adversarial_fashion"}


@pytest.mark.parametrize("suffix", [".onnx", ".torchscript.pt"])
def test_lenet_is_broken(shared: Path, tmp_path: Path, suffix: str) -> None:
    """Clean accuracy is onnxruntime's own on the same samples, attacked accuracy nearly nothing."""
    model = find(shared, f"mnist/sinkhorn_vanilla{suffix}")
    images = shared / "mnist/t10k-images-idx3-ubyte.gz"
    report = scan(
        model, images, "--samples", 60, "--threat", "linf", "--delta", "0.1", "--order", "inf,2",
        "--effort", "quick", "--trust-model", out=tmp_path / "out",
    )  # fmt: skip
    with (tmp_path / "out/samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    index = np.array([int(row["index"]) for row in rows])
    data = data_of(shared, "mnist")
    session = onnxruntime.InferenceSession(
        str(find(shared, "mnist/sinkhorn_vanilla.onnx")), providers=["CPUExecutionProvider"]
    )
    (scores,) = session.run(None, {session.get_inputs()[0].name: data.read(index)})
    assert report["clean"]["value"] == np.mean(scores.argmax(1) == data.labels[index])
    for curve in report["threats"][0]["curves"]:
        assert curve["points"][0]["attacked"]["value"] <= 0.13
    pointwise, mean = (c["points"][0]["attacked"]["value"] for c in report["threats"][0]["curves"])
    assert mean <= pointwise


def test_a_step_function_is_not_robust(shared: Path, tmp_path: Path) -> None:
    report = scan(
        find(shared, "mnist/sinkhorn_binarize.onnx"), shared / "mnist/t10k-images-idx3-ubyte.gz",
        "--samples", 50, "--threat", "linf", "--delta", "0.1", "--strict", "--effort", "quick",
        out=tmp_path / "out", code=4,
    )  # fmt: skip
    (entry,) = (entry for entry in report["health"] if entry["id"] == "gradients")
    assert entry["status"] in ("warn", "fail")
    assert report["verdict"] != "pass"


def test_moving_mass_breaks_lenet(shared: Path) -> None:
    """At a tenth of the mass by a pixel: measured, 52 % of the first fifty stand."""
    data = data_of(shared, "mnist")
    rows = np.arange(50)
    x0, labels = torch.from_numpy(data.read(rows)), torch.from_numpy(data.labels[rows])
    path = find(shared, "mnist/sinkhorn_vanilla.onnx")
    classifier = load_classifier(path, x0[:8], LoadOptions())
    metric = METRICS["wasserstein"]()
    streams = SampleGenerator.seeded([row.numpy().tobytes() for row in x0], 0)
    x = ATTACKS["transport"](
        classifier.differentiable, x0, labels, Threat(metric, 0.1), generator=streams
    )
    assert (metric.distance(x0, x) <= 0.1).all()
    assert ((x >= 0) & (x <= 1)).all()
    assert ((x.double() - x0.double()).sum((1, 2, 3)).abs() <= 1e-6 * metric.mass(x0)).all()
    standing = (classifier.predict(x) == labels).double().mean()
    assert standing <= 0.6


def test_no_attack_breaks_what_is_proven_robust(shared: Path) -> None:
    """Verdicts that complete verifiers agree on; and of the broken ones PGD finds some."""
    verdicts = json.loads((shared / "specs/verdicts.json").read_text())
    fast = [entry for entry in verdicts if entry["model"] in ("models/mnist/mnist-net_256x2.onnx",)]
    data = data_of(shared, "mnist")
    metric = METRICS["linf"](low=0.0, high=1.0)
    outcomes: dict[str, list[bool]] = {"robust": [], "broken": []}
    for entry in fast[:20]:
        row = np.array([entry["test_index"]])
        x, label = torch.from_numpy(data.read(row)), torch.tensor([entry["label"]])
        assert data.labels[row[0]] == entry["label"]
        pair = x.repeat(2, 1, 1, 1)
        classifier = load_classifier(shared / entry["model"], pair, LoadOptions())
        candidate = ATTACKS["pgd"](
            classifier.differentiable, x, label, Threat(metric, entry["linf_radius"]),
            generator=SampleGenerator.seeded([x.numpy().tobytes()], 0),
        )  # fmt: skip
        verdict = judge_candidates(classifier, metric, x, candidate, label)
        assert not verdict.broken or verdict.distance <= entry["linf_radius"] * (1 + 1e-6)
        outcomes[entry["verdict"]].append(bool(verdict.broken))
    assert len(outcomes["robust"]) >= 5
    assert not any(outcomes["robust"])
    assert len(outcomes["broken"]) >= 3
    assert any(outcomes["broken"])
