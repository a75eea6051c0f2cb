"""Ours (minimal radii and exact budget allocation) against W-PGD, on the same samples.

W-PGD is the attack of Bai, He, Jiang, Obloj (NeurIPS 2023) with its constants: 50 steps of
1.875·delta/50, the whole sample as one law, the best of its three losses. Both numbers are upper
bounds on the same distributional adversarial accuracy; the lower one is the better attack. The
judge is the served model for both.

    python bench/distributional.py --models resnet_2b --samples 200 --deltas 2/255,4/255
"""

import argparse
import sys
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from attackers.geometry import METRICS
from attackers.losses import LOSSES, misclassified
from attackers.threat import Threat
from attackers.wdro import power_mean, w_pgd
from audit import scan
from audit.config import ScanConfig
from audit.data import open_data
from audit.distributional import adversarial_accuracy
from audit.models import LoadOptions, load_classifier
from audit.state import Scan

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)


@dataclass(frozen=True)
class Subject:
    """A model of `../shared/data` with its data and preprocessing."""

    model: str
    data: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


SUBJECTS = {
    "resnet_2b": Subject(
        "models/cifar10/resnet_2b.onnx",
        "cifar10/cifar10_test_first2000.bin",
        CIFAR_MEAN,
        (0.2471, 0.2435, 0.2616),
    ),
    "eran_conv_small_pgd": Subject(
        "models/cifar10/eran_conv_small_pgd.onnx",
        "cifar10/cifar10_test_first2000.bin",
        CIFAR_MEAN,
        (0.2023, 0.1994, 0.2010),
    ),
    "sinkhorn_vanilla": Subject(
        "models/mnist/sinkhorn_vanilla.onnx", "mnist/t10k-images-idx3-ubyte.gz"
    ),
}


def prepare(shared: Path, subject: Subject, config: ScanConfig) -> Scan:
    dataset = open_data(shared / subject.data, low=0.0, high=1.0)
    loading = LoadOptions(mean=subject.mean, std=subject.std)
    model = shared / subject.model
    return scan.prepare(dataset, config, lambda x, _: load_classifier(model, x, loading))


def published(prepared: Scan, metric: str, delta: float, order: float) -> dict[str, float]:
    """Accuracy that W-PGD leaves, per loss, judged by the served model; its budget is asserted."""
    samples, classifier = prepared.samples, prepared.classifier
    threat = Threat(METRICS[metric](), delta, order)
    left = {}
    for loss in ("ce", "dlr", "redlr"):
        x = w_pgd(
            classifier.differentiable,
            samples.x,
            samples.labels,
            threat,
            loss=LOSSES[loss],
            rows=prepared.batch,
        )
        moved = threat.metric.distance(samples.x, x)
        spent = float(power_mean(moved, order) if np.isfinite(order) else moved.max())
        assert spent <= delta * (1 + 1e-5), f"W-PGD overspent: {spent} > {delta}"
        wrong = misclassified(classifier.deployed(x), samples.labels)
        left[loss] = 1 - float(wrong.double().mean())
    return left


def row(name: str, prepared: Scan, metric: str, delta: float, order: float) -> list[str]:
    radii = prepared.runs[0].frontier.radius.numpy()
    ours = float(adversarial_accuracy(radii, [delta], order)[0])
    pointwise = float(adversarial_accuracy(radii, [delta], float("inf"))[0])
    theirs = published(prepared, metric, delta, order)
    best = min(theirs.values())
    return [
        name,
        metric,
        f"{order:g}",
        str(Fraction(delta).limit_denominator(1000)),
        f"{100 * prepared.samples.accuracy:.1f}",
        f"{100 * pointwise:.1f}",
        *(f"{100 * theirs[loss]:.1f}" for loss in ("ce", "dlr", "redlr")),
        f"**{100 * ours:.1f}**",
        f"{100 * (best - ours):.1f}",
    ]


HEADER = [
    "model", "metric", "order", "delta", "clean", "ours, order inf",
    "W-PGD ce", "W-PGD dlr", "W-PGD redlr", "ours", "points below W-PGD",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    root = Path(__file__).resolve().parents[1]
    parser.add_argument("--shared", type=Path, default=root.parent / "shared" / "data")
    parser.add_argument("--models", default=",".join(SUBJECTS))
    parser.add_argument("--metric", default="linf", choices=list(METRICS))
    parser.add_argument("--deltas", default="2/255,4/255")
    parser.add_argument("--orders", default="2")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    deltas = tuple(float(Fraction(text)) for text in options.deltas.split(","))
    orders = tuple(float(text) for text in options.orders.split(","))

    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    for name in options.models.split(","):
        config = ScanConfig(
            metrics=(options.metric,),
            orders=(float("inf"), *orders),
            deltas=deltas,
            samples=options.samples,
            seed=options.seed,
        )
        started = time.perf_counter()
        prepared = scan.run(prepare(options.shared, SUBJECTS[name], config))
        print(f"{name}: scan {time.perf_counter() - started:.0f} s", file=sys.stderr)
        for order in orders:
            for delta in deltas:
                cells = row(name, prepared, options.metric, delta, order)
                lines.append("| " + " | ".join(cells) + " |")
                print(lines[-1], file=sys.stderr)
    text = "\n".join(
        [
            f"{options.samples} samples, seed {options.seed}, torch {torch.__version__}, "
            f"{torch.get_num_threads()} threads. Accuracy left, in %; lower is the better attack.",
            "",
            *lines,
            "",
        ]
    )
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
