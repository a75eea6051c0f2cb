"""What does a trained generator break in one pass, how far is it, and what does a step cost?

Test images were never seen in training. An image counts as broken when the served model
misclassifies it and its exact distance, box and mass are inside. The image-Wasserstein attack by
gradients is listed for comparison, at the same radii, alone and started from the generator.

    audit train-attacker sinkhorn_vanilla.onnx --data train-images-idx3-ubyte.gz --epochs 12 \
        --out generator.safetensors
    OMP_NUM_THREADS=1 python -m bench.wagan --generator generator.safetensors \
        --out bench/results/wagan.md
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attackers.geometry import Wasserstein
from attackers.losses import misclassified
from attackers.random_streams import SampleGenerator
from attackers.threat import Threat
from attackers.transport import transport
from attackers.wagan.attack import wagan
from attackers.wagan.networks import Spec
from attackers.wagan.objective import VARIANTS
from attackers.wagan.training import Networks, State, step
from audit.generators import generator_files
from audit.generators.generator_files import Trained
from audit.models import Classifier, load_classifier
from bench.subjects import SUBJECTS, content_streams, first_images
from bench.table import Table, bench_parser, publish, torch_setup

RADII = (0.1, 0.2, 0.3)
FEW = 20
"""Steps of the attack that are compared with and without a start."""

TRAIN = "mnist/train-images-idx3-ubyte.gz"
Attack = Callable[..., Tensor]


def attacks(trained: Trained) -> dict[str, Attack]:
    """What is compared, by name."""
    network = trained.network

    def refined(*given: Tensor, threat: Threat, generator: SampleGenerator) -> Tensor:
        start = wagan(*given, threat=threat, generator=generator, network=network)
        return transport(*given, threat=threat, generator=generator, start=start, steps=FEW)

    return {
        "generator": partial(wagan, network=network),
        "generator, first of 4 draws": partial(wagan, network=network, draws=4),
        f"generator, then {FEW} steps": refined,
        f"{FEW} steps": partial(transport, steps=FEW),
        "100 steps": partial(transport, steps=100),
    }


def judged(
    classifier: Classifier, x0: Tensor, labels: Tensor, attack: Attack, radius: float
) -> tuple[float, float, float]:
    """Accuracy left, the largest exact distance of what is broken, milliseconds per image."""
    metric = Wasserstein()
    right = (~misclassified(classifier.deployed(x0), labels)).nonzero()[:, 0]
    x, generator = x0.clone(), content_streams(x0, 0)
    started = time.process_time()
    for rows in right.split(128):
        x[rows] = attack(
            classifier.differentiable,
            x0[rows],
            labels[rows],
            threat=Threat(metric, radius),
            generator=generator.take(rows),
        )
    spent = time.process_time() - started
    wrong = misclassified(classifier.deployed(x), labels)
    distance = metric.distance(x0[right], x[right])
    inside = torch.zeros(len(x0), dtype=torch.bool)
    inside[right] = (distance <= radius) & (x[right] >= 0).flatten(1).all(1)
    inside[right] &= (x[right] <= 1).flatten(1).all(1)
    unchanged = torch.ones(len(x0), dtype=torch.bool)
    unchanged[right] = False
    broken = wrong & (inside | unchanged)
    return (
        float((~broken).double().mean()),
        float(distance[broken[right]].max()) if bool(broken[right].any()) else 0.0,
        1e3 * spent / len(right),
    )


def strength_table(title: str, shared: Path, trained: Trained, count: int) -> Table:
    """Measure accuracies, distances and times."""
    subject = SUBJECTS["sinkhorn_vanilla"]
    x0, labels = first_images(shared, subject.data, count)
    seen, seen_labels = first_images(shared, TRAIN, count)
    classifier = load_classifier(shared / subject.model, x0[:8], subject.loading)
    table = Table(
        (
            "radius", "attack", "accuracy left, %", "on training images, %", "farthest",
            "ms per image", "times faster than 100 steps",
        ),
        title,
    )  # fmt: skip
    for radius in RADII:
        rows = []
        for name, attack in attacks(trained).items():
            left, farthest, spent = judged(classifier, x0, labels, attack, radius)
            known = "–"
            if "steps" not in name:
                known = f"{100 * judged(classifier, seen, seen_labels, attack, radius)[0]:.1f}"
            rows.append((name, left, known, farthest, spent))
            print(radius, *rows[-1], file=sys.stderr, flush=True)
        slowest = rows[-1][-1]
        table.extend(
            (
                f"{radius:g}", name, f"**{100 * left:.1f}**", known, f"{farthest:.5f}",
                f"{spent:.2f}", f"{slowest / spent:.1f}",
            )
            for name, left, known, farthest, spent in rows
        )  # fmt: skip
    return table


def cost_table(shared: Path, repeats: int) -> Table:
    """Measure a step of training on 128 images of 32×32, by head and variant."""
    subject = SUBJECTS["sinkhorn_vanilla"]
    x0, labels = first_images(shared, subject.data, 128)
    classifier = load_classifier(shared / subject.model, x0[:8], subject.loading)
    x = torch.nn.functional.pad(x0, (2, 2, 2, 2))

    def logits(image: Tensor) -> Tensor:
        return classifier.differentiable(image[..., 2:-2, 2:-2])

    table = Table(
        ("head", "variant", "ms per step", "relative to AdvGAN", "minutes per epoch of 60,000"),
        "Median time of a training step, 128 images of 32×32:",
    )
    floor = None
    for head, variant in (
        ("image", "advgan"),
        ("image", "wagan"),
        ("image", "wagan-beta-minus"),
        ("flow", "wagan"),
    ):
        networks = Networks.of(Spec(head, 1, 32, 32), 0)
        state, spent = State.of(networks), []
        for _ in range(repeats):
            started = time.perf_counter()
            state, _ = step(
                networks, state, logits, x, labels, VARIANTS[variant], radius=0.3, seed=0
            )
            spent.append(time.perf_counter() - started)
        typical = float(np.median(spent[2:]))
        floor = floor or typical
        table.add(
            head,
            variant,
            f"{1e3 * typical:.0f}",
            f"{typical / floor:.2f}",
            f"{typical * 60_000 / 128 / 60:.1f}",
        )
    return table


def main() -> None:
    """Print the tables, and write them if a file is named."""
    parser = bench_parser(__doc__)
    parser.add_argument("--generator", type=Path, help="file of a trained generator")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=12)
    args = parser.parse_args()
    tables = [cost_table(args.shared, args.repeats)]
    if args.generator is not None:
        trained = generator_files.read(args.generator, torch.device("cpu"))
        epochs = trained.record["options"]["epochs"]
        title = (
            f"A {trained.variant} generator, head {trained.network.spec.head}, trained against "
            f"sinkhorn_vanilla for {epochs} epochs up to a radius of {trained.radius:g}, on the "
            f"first {args.samples} test images, checked for exact distance, box and mass. "
            "Processor time per correctly classified image; an iterative attack stops at each "
            "image that it broke."
        )
        tables.append(strength_table(title, args.shared, trained, args.samples))
    publish(args.out, f"{torch_setup()}.", *tables)


if __name__ == "__main__":
    main()
