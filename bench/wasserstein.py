"""How strong, how feasible and how fast is the image-Wasserstein attack?

The first test images of MNIST, as the published attacks report them: accuracy that is left, with
each image's exact distance, the mass outside the box and the change of mass, measured the same way
for every method. ART's port of the projected-Sinkhorn attack is run beside ours where it is
installed; the research codes of Wong et al. 2019 (projected Sinkhorn), Wu et al. 2020 (dual
projection, Frank-Wolfe) and Hu et al. 2020 are no packages: their rows were measured once by
running them on these models and images, one thread, and are marked so.

    python -m bench.wasserstein --out bench/results/wasserstein.md
    bench/.peers/bin/python -m bench.wasserstein --art 10
"""

import argparse
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from attackers.geometry import Wasserstein
from attackers.losses import misclassified
from attackers.minimal import minimal_radius
from attackers.random_streams import SampleGenerator
from attackers.threat import Threat
from attackers.transport import transport
from audit.data import open_data
from audit.evidence.samples import read_samples
from audit.models import Classifier, load_classifier
from audit.scanning.effort import EFFORTS
from bench.subjects import SHARED, SUBJECTS, Subject

RADII = {
    "sinkhorn_vanilla": (0.05, 0.1, 0.2, 0.3),
    "sinkhorn_wasserstein_adv": (0.05, 0.1, 0.3),
    "fast_adversarial_pgd_madry": (0.1, 0.3),
}
"""Radii at which the attacks are compared, in pixels × fraction of mass."""

LARGER = {
    "resnet_2b": ((0.01, 0.05), 200),
    "efficientnet_lite0": ((0.001, 0.005), 20),
}
"""Models of colour images: radii and images."""

EXTRA = {
    "sinkhorn_wasserstein_adv": Subject(
        "models/mnist/sinkhorn_wasserstein_adv.onnx", SUBJECTS["sinkhorn_vanilla"].data
    ),
    "efficientnet_lite0": Subject(
        "models/imagenet/efficientnet_lite0.onnx",
        "imagenet/labels.csv",
        (127 / 255,),
        (128 / 255,),
    ),
}


@dataclass(frozen=True)
class Measured:
    """One method on one model at one radius; shares of all images, distances in the unit.

    Attributes:
        accuracy: left, every misclassified image counting whatever it cost.
        feasible: left, where only images inside ball, box and mass count as broken.
        seconds: of the processor, per 100 images.
        farthest: largest exact distance of a broken image.
        outside: largest share of an image's mass outside the box.
        lost: largest relative change of an image's mass.
    """

    accuracy: float
    feasible: float
    seconds: float
    farthest: float
    outside: float
    lost: float


PUBLISHED = (
    ("sinkhorn_vanilla", 0.1, "Wu et al., Frank-Wolfe", "54, 49 clamped", "13.2", "0.100", "5.6 %"),
    ("sinkhorn_vanilla", 0.1, "Wu et al., dual projection (50)", "62", "36", "0.099", "3.1 %"),
    ("sinkhorn_vanilla", 0.1, "Hu et al. (50)", "74", "77", "1.13 × claimed", "0"),
    ("sinkhorn_vanilla", 0.2, "Wu et al., Frank-Wolfe", "1", "13.3", "0.284 clamped", "9.2 %"),
    ("sinkhorn_vanilla", 0.2, "Hu et al. (50)", "24", "77", "1.13 × claimed", "0"),
    ("sinkhorn_vanilla", 0.3, "Wong et al., projected Sinkhorn (50)", "78", "78", "0.261", "2.6 %"),
    ("sinkhorn_wasserstein_adv", 0.1, "Wu et al., Frank-Wolfe", "3", "13", "0.093", "0.1 %"),
    (
        "sinkhorn_wasserstein_adv",
        0.1,
        "Wu et al., dual projection (50)",
        "8",
        "36",
        "0.094",
        "<0.1 %",
    ),
    ("sinkhorn_wasserstein_adv", 0.1, "Hu et al. (50)", "56", "32", "2.5 × claimed", "0"),
    (
        "sinkhorn_wasserstein_adv",
        0.3,
        "Wong et al., projected Sinkhorn (50)",
        "94",
        "133",
        "0.168",
        "5 %",
    ),
    ("fast_adversarial_pgd_madry", 0.3, "Wu et al., Frank-Wolfe", "29", "10", "0.236", "5.5 %"),
)
"""Measured once by running the public codes: accuracy in % of the first 100 images (or of as many
as stand in brackets), processor seconds per 100, largest exact distance, largest mass outside."""


def images(shared: Path, name: str, count: int) -> tuple[Classifier, Tensor, Tensor]:
    """The served model and the first images with their labels."""
    subject = {**SUBJECTS, **EXTRA}[name]
    resize = (224, 224) if subject.data.startswith("imagenet") else None
    dataset = open_data(shared / subject.data, low=0.0, high=1.0, resize=resize)
    rows = np.arange(min(count, len(dataset)))
    x = read_samples(dataset, rows)
    labels = torch.from_numpy(np.asarray(dataset.labels)[rows].astype(np.int64))
    return load_classifier(shared / subject.model, x[:8], subject.loading), x, labels


def measured(
    classifier: Classifier, x0: Tensor, x: Tensor, labels: Tensor, radius: float, seconds: float
) -> Measured:
    """Measure what an attack returned, all samples alike."""
    metric = Wasserstein()
    wrong = misclassified(classifier.deployed(x.float()), labels)
    changed = (x != x0).flatten(1).any(1)
    mass = metric.mass(x0).clamp_min(1e-12)
    beyond = (x - x.clamp(0, 1)).abs().double().flatten(1).sum(1) / mass
    lost = (metric.mass(x) - mass).abs() / mass
    # Exact distances of what lost mass or left the box: of the part of equal mass.
    costs = [sum(plan.cost for plan in plans) for plans in metric.plans(x0, x)]
    distance = torch.tensor(costs, dtype=torch.float64) / mass
    inside = (distance <= radius * (1 + 1e-6)) & (beyond <= 1e-6) & (lost <= 1e-6)
    broken = wrong & changed
    return Measured(
        accuracy=float((~wrong).double().mean()),
        feasible=float((~(wrong & (inside | ~changed))).double().mean()),
        seconds=100 * seconds / len(x0),
        farthest=float(torch.where(broken, distance, 0.0).max()),
        outside=float(torch.where(broken, beyond, 0.0).max()),
        lost=float(torch.where(broken, lost, 0.0).max()),
    )


def ours(classifier: Classifier, x0: Tensor, labels: Tensor, radius: float, seed: int) -> Measured:
    """One run of 100 steps on the correct samples."""
    threat = Threat(Wasserstein(), radius)
    right = ~misclassified(classifier.deployed(x0), labels)
    x, started = x0.clone(), time.process_time()
    for rows in right.nonzero()[:, 0].split(128):
        x[rows] = transport(
            classifier.differentiable,
            x0[rows],
            labels[rows],
            threat,
            generator=streams(x0[rows], seed),
        )
    return measured(classifier, x0, x, labels, radius, time.process_time() - started)


def streams(x0: Tensor, seed: int) -> SampleGenerator:
    """Random streams keyed by content."""
    return SampleGenerator.seeded([row.numpy().tobytes() for row in x0], seed)


def art(
    classifier: Classifier, x0: Tensor, labels: Tensor, radius: float, steps: int
) -> Measured | None:
    """ART's Wasserstein attack at a fixed radius, its sign-step variant; None where not there.

    Its default step is inert, and its radius grows unless told otherwise: 1.000001 is the least
    factor that it takes.
    """
    try:
        from art.attacks.evasion import Wasserstein as Art
        from art.estimators.classification import PyTorchClassifier
    except ImportError:
        return None

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return classifier.differentiable(x)

    estimator = PyTorchClassifier(
        Net(), nn.CrossEntropyLoss(), tuple(x0.shape[1:]), classifier.classes, clip_values=(0, 1)
    )
    attack = Art(
        estimator,
        regularization=1000,
        p=2,
        kernel_size=5,
        eps_step=min(0.1, radius),
        norm="inf",
        eps=radius,
        eps_factor=1.000001,
        max_iter=steps,
        batch_size=len(x0),
        verbose=False,
    )
    started = time.process_time()
    x = torch.from_numpy(attack.generate(x0.numpy(), labels.numpy()))
    return measured(classifier, x0, x, labels, radius, time.process_time() - started)


def row(model: str, radius: float, method: str, found: Measured) -> str:
    """A line of the table."""
    cells = (
        model,
        f"{radius:g}",
        method,
        f"{100 * found.accuracy:.0f}",
        f"**{100 * found.feasible:.0f}**" if "ours" in method else f"{100 * found.feasible:.0f}",
        f"{found.seconds:.1f}",
        f"{found.farthest:.6f}",
        f"{found.outside:.1e}",
        f"{found.lost:.1e}",
    )
    return "| " + " | ".join(cells) + " |"


def radii_row(model: str, classifier: Classifier, x0: Tensor, labels: Tensor, seed: int) -> str:
    """Minimal radii of the correct images, at standard effort."""
    (stage, *_), metric = EFFORTS["standard"].stages["minimal"], Wasserstein()
    right = ~misclassified(classifier.deployed(x0), labels)
    x0, labels = x0[right], labels[right]
    started = time.process_time()
    x = minimal_radius(
        classifier.differentiable,
        x0,
        labels,
        metric,
        generator=streams(x0, seed),
        hunts=stage.runs,
        steps=stage.steps,
    )
    seconds = time.process_time() - started
    radius = torch.where(
        misclassified(classifier.deployed(x), labels), metric.distance(x0, x), torch.inf
    )
    low, middle, high = (
        float(radius.sort().values[int(q * (len(radius) - 1))]) for q in (0.1, 0.5, 0.9)
    )
    found = f"{100 * float(radius.isfinite().double().mean()):.0f}"
    cells = (model, len(x0), found, f"{low:.4f}", f"**{middle:.4f}**", f"{high:.4f}")
    return "| " + " | ".join(map(str, cells)) + f" | {100 * seconds / len(x0):.1f} |"


def report(args: argparse.Namespace) -> list[str]:
    """All tables, line by line."""
    names = list(RADII)
    lines = [
        f"First {args.samples} test images (or as many as stated), seed {args.seed}, torch "
        f"{torch.__version__}, {torch.get_num_threads()} thread(s). Accuracy in %: `left` counts "
        "every misclassified image, `left, feasible` only those inside ball, box and mass "
        "(1e-6). Distances are exact (linear program), seconds are of the processor per 100.",
        "",
        "| model | radius | method | left | left, feasible | s / 100 | farthest | "
        "outside the box | mass changed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        classifier, x0, labels = images(args.shared, name, args.samples)
        for radius in RADII[name]:
            lines.append(row(name, radius, "ours", ours(classifier, x0, labels, radius, args.seed)))
            if args.art:
                few = slice(args.art)
                found = art(classifier, x0[few], labels[few], radius, args.art_steps)
                if found is not None:
                    label = f"ART Wasserstein, {args.art_steps} steps, first {args.art}"
                    lines.append(row(name, radius, label, found))
            print(lines[-1], file=sys.stderr, flush=True)
    for name, (radii, count) in LARGER.items() if args.larger else ():
        classifier, x0, labels = images(args.shared, name, count)
        for radius in radii:
            found = ours(classifier, x0, labels, radius, args.seed)
            lines.append(row(f"{name} ({len(x0)})", radius, "ours", found))
            print(lines[-1], file=sys.stderr, flush=True)
    lines += ["", "Minimal radii of the correct images, `standard` effort:", ""]
    lines += [
        "| model | images | broken, % | 10 % | median | 90 % | s / 100 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        lines.append(radii_row(name, *images(args.shared, name, args.samples), args.seed))
        print(lines[-1], file=sys.stderr, flush=True)
    lines += [
        "",
        "Public codes, measured once on the same models and images:",
        "",
        "| model | radius | method | left | s / 100 | farthest | outside the box, at most |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += ["| " + " | ".join(map(str, entry)) + " |" for entry in PUBLISHED]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [*lines, "", f"Peak memory {peak:.2f} GiB."]


def main() -> None:
    """Print the tables, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--larger", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--art", type=int, default=0, help="images for ART's attack, which is slow")
    parser.add_argument("--art-steps", type=int, default=10)
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    args = parser.parse_args()
    text = "\n".join(report(args)) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
