"""Who finds the nearer adversarial examples for the same number of gradients?

Attacks of least distance from other libraries get 100, 200 and 500 gradients per sample, and so do
those of ours that can be told; every peer is set against the best of ours that took no more. All
attack the same plain differentiable model. A point counts when the served model misclassifies it;
its distance is computed in float64. A sample without one counts with the diameter of the box.

    bench/.peers/bin/python -m bench.minimal --cache FOLDER --out bench/results/minimal.md

`--cache` keeps the peers' distances, so that ours can be run again without them.
"""

import argparse
import inspect
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import attackers
from attackers.geometry import METRICS, Metric
from attackers.losses import outvoted
from attackers.rows import over
from audit.models.execution import Counted
from audit.options import ScanConfig
from audit.scanning.subject import Subject
from bench import peers
from bench.subjects import SHARED, SUBJECTS, Plain, prepare

MODELS = ("sinkhorn_vanilla", "fast_adversarial_pgd_madry", "resnet_2b", "eran_conv_small_pgd")

OURS: dict[str, Callable[..., Tensor]] = {
    name: entry.run
    for name, entry in attackers.ATTACKS.items()
    if entry.kind == "minimal" and "gradients" in entry.needs
}
"""Our attacks of least distance: (logits, x0, labels, metric, generator=…) -> points."""

OUTWARDS = (1.0, 1 + 1e-5, 1 + 1e-4, 1 + 1e-3)
"""A point on the boundary may fall back when other kernels evaluate it: it may move out by this."""


@dataclass(frozen=True)
class Found:
    """What an attack found.

    Attributes:
        distance: (N,) float64 of the correct samples, the box's diameter where nothing was found.
        found: share of them with an adversarial example.
        gradients, forwards: spent per sample; each gradient needs one of the forward passes.
        seconds: of the processor.
    """

    distance: NDArray[np.float64]
    found: float
    gradients: float
    forwards: float
    seconds: float


@dataclass(frozen=True)
class Task:
    """The correct samples of a subject, and its model."""

    prepared: Subject
    model: nn.Module
    x0: Tensor
    labels: Tensor
    rows: Tensor

    @classmethod
    def of(cls, prepared: Subject) -> "Task":
        """Everything of a scan that is ready."""
        samples = prepared.samples
        rows = samples.correct.nonzero()[:, 0]
        model = Plain(prepared.classifier, samples.x)
        return cls(prepared, model, samples.x[rows], samples.labels[rows], rows)


class CountedModule(nn.Module):
    """`Counted` for peers, which want a module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.count = Counted(model)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Count and evaluate."""
        return self.count(x)


def measured(task: Task, metric: Metric, attack: Callable[[nn.Module], Tensor]) -> Found:
    """Run an attack, count its gradients, and judge what it returns."""
    model = CountedModule(task.model)
    torch.manual_seed(0)
    started = time.process_time()
    x = attack(model)
    seconds = time.process_time() - started
    distance = judged(task, metric, x.detach())
    found = distance.isfinite()
    return Found(
        torch.where(found, distance, metric.diameter(task.x0).double()).numpy(),
        float(found.double().mean()),
        model.count.counter.gradients / len(task.x0),
        model.count.counter.forwards / len(task.x0),
        seconds,
    )


def judged(task: Task, metric: Metric, x: Tensor) -> Tensor:
    """Distances of what the served model misclassifies, ``inf`` elsewhere; (N,) float64."""
    nearest = torch.full((len(x),), torch.inf, dtype=torch.float64)
    for factor in OUTWARDS:
        point = metric.clamp(task.x0 + factor * (x - task.x0)) if factor > 1 else x
        inside = ((point >= metric.low) & (point <= metric.high)).flatten(1).all(1)
        point = torch.where(over(inside, point), point, task.x0)
        wrong = outvoted(task.prepared.classifier.deployed(point), task.labels)
        fresh = wrong & nearest.isinf()
        nearest = torch.where(fresh, metric.distance(task.x0, point), nearest)
    return nearest


def theirs(task: Task, metric: Metric, name: str, budget: int) -> Found:
    attack = peers.MINIMAL[metric.name][name]
    return measured(task, metric, lambda model: attack(model, task.x0, task.labels, budget))


def budgeted(attack: Callable[..., Tensor], budget: int) -> Callable[..., Tensor] | None:
    """Our attack with that many gradients per sample; None where it takes what it takes."""
    options = inspect.signature(attack).parameters
    if "steps" not in options:
        return None
    hunts = options["hunts"].default if "hunts" in options else 1
    return partial(attack, steps=budget // hunts)


def variants(budgets: list[int]) -> dict[str, Callable[..., Tensor]]:
    """Our attacks at every budget, or as they are where they cannot be told."""
    found = {}
    for name, attack in OURS.items():
        told = {f"{name}, {budget}": budgeted(attack, budget) for budget in budgets}
        found |= told if all(told.values()) else {name: attack}
    return found


def ours(task: Task, metric: Metric, attack: Callable[..., Tensor]) -> Found:
    generator = task.prepared.samples.generator.take(task.rows)
    return measured(
        task,
        metric,
        lambda model: attack(model, task.x0, task.labels, metric, generator=generator),
    )


def cached(path: Path | None, run: Callable[[], Found]) -> Found:
    """Read what was found, or measure and keep it."""
    names = tuple(inspect.signature(Found).parameters)
    if path is not None and path.exists():
        kept = np.load(path)
        numbers = (float(kept[name]) for name in names[1:])
        return Found(kept["distance"], *numbers)
    found = run()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{name: getattr(found, name) for name in names})
    return found


HEADER = [
    "model", "metric", "attack", "gradients", "forwards", "found, %", "median", "mean", "90 %",
    "ours nearer, %", "farther, %", "s",
]  # fmt: skip


def row(
    model: str, metric: str, name: str, own: bool, found: Found, rival: Found | None
) -> list[str]:
    """One line; `rival` is ours, and a sample is nearer or farther by more than one percent."""
    nearer = farther = ""
    if rival is not None:
        nearer = f"{100 * np.mean(rival.distance < 0.99 * found.distance):.0f}"
        farther = f"{100 * np.mean(found.distance < 0.99 * rival.distance):.0f}"
    middle = f"{np.median(found.distance):.4f}"
    return [
        model,
        metric,
        f"ours, {name}" if own else name,
        f"{found.gradients:.0f}",
        f"{found.forwards:.0f}",
        f"{100 * found.found:.0f}",
        f"**{middle}**" if own else middle,
        f"{found.distance.mean():.4f}",
        f"{np.quantile(found.distance, 0.9):.4f}",
        nearer,
        farther,
        f"{found.seconds:.1f}",
    ]


def rows(
    name: str, task: Task, metric: Metric, budgets: list[int], cache: Path | None, run_ours: bool
) -> list[list[str]]:
    """All attacks on one model under one metric."""
    samples = f"{len(task.prepared.samples)}-{task.prepared.config.seed}"
    chosen = variants(budgets) if run_ours else {}
    own = {each: ours(task, metric, attack) for each, attack in chosen.items()}
    lines = [row(name, metric.name, each, True, found, None) for each, found in own.items()]
    for attack in peers.MINIMAL[metric.name]:
        for budget in budgets:
            label = attack.replace(" ", "-").replace(",", "")
            path = cache and cache / f"{name}-{samples}-{metric.name}-{label}-{budget}.npz"
            found = cached(
                path, lambda attack=attack, budget=budget: theirs(task, metric, attack, budget)
            )
            # A first and a last look may come on top of the steps.
            fair = [each for each in own.values() if each.gradients <= 1.05 * found.gradients]
            rival = min(fair, key=lambda each: np.median(each.distance), default=None)
            lines.append(row(name, metric.name, attack, False, found, rival))
            print(" | ".join(lines[-1]), file=sys.stderr)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--metrics", default="l2,linf,l1")
    parser.add_argument("--budgets", default="100,200,500", help="gradients per sample of a peer")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="folder that keeps what the peers found")
    parser.add_argument("--peers-only", action="store_true", help="only fill the cache")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    budgets = [int(text) for text in options.budgets.split(",")]

    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    for name in options.models.split(","):
        config = ScanConfig(samples=options.samples, seed=options.seed)
        task = Task.of(prepare(options.shared, SUBJECTS[name], config))
        for metric_name in options.metrics.split(","):
            metric = METRICS[metric_name]()
            for cells in rows(name, task, metric, budgets, options.cache, not options.peers_only):
                lines.append("| " + " | ".join(cells) + " |")
    text = "\n".join(
        [
            f"The correct ones of {options.samples} samples, seed {options.seed}, "
            f"torch {torch.__version__}, {torch.get_num_threads()} threads. Distances; smaller is "
            "the better attack.",
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
