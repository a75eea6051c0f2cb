"""Does one scan reach the robust accuracy of AutoAttack, and in which share of its time?

AutoAttack (standard, as torchattacks implements it, with the 100 steps of the paper) attacks the
plain differentiable model; ours is the whole of `audit.scanning.scan.run` at that one budget:
health checks, attacks, judge and certificates. Samples and threads are the same, loading counts for
neither, and the served model judges both.

    bench/.peers/bin/python -m bench.autoattack --out bench/results/autoattack.md

The peer takes long. With `--cache DIR` its outcome is kept and read again, but then the two times
come from different runs, which the table says. Processor time is shown beside the time on the
clock: on a machine that does other work the former is the fairer one.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from attackers.geometry import Linf
from audit.evidence.judge import judge
from audit.options import ScanConfig
from audit.scanning import scan
from audit.scanning.subject import Subject
from bench import peers
from bench.subjects import SHARED, SUBJECTS, Plain, prepare

RADII = {
    "fast_adversarial_pgd_madry": "0.3",
    "convex_adversarial_mnist": "0.1",
    "resnet_2b": "2/255",
    "eran_conv_small_pgd": "2/255",
}
"""Models and the linf radius at which each was trained."""


@dataclass(frozen=True)
class Outcome:
    """What an attack left.

    Attributes:
        wrong: (N,) bool, wrong from the start or broken, as the served model says.
        seconds, processor: time on the clock and of the processor.
        threads: of torch.
        fresh: measured in this run.
    """

    wrong: NDArray[np.bool_]
    seconds: float
    processor: float
    threads: int
    fresh: bool = True

    @property
    def accuracy(self) -> float:
        """Share of samples that stand."""
        return 1 - float(self.wrong.mean())


def timed(run: Callable[[], NDArray[np.bool_]]) -> Outcome:
    """Run an attack and time it."""
    clock, processor = time.perf_counter(), time.process_time()
    wrong = run()
    return Outcome(
        wrong,
        time.perf_counter() - clock,
        time.process_time() - processor,
        torch.get_num_threads(),
    )


def theirs(prepared: Subject, radius: float, *, steps: int, rows: int, seed: int) -> Outcome:
    """AutoAttack on the plain model; judging its examples is not part of its time."""
    samples, classifier = prepared.samples, prepared.classifier
    model = Plain(classifier, samples.x)
    attacked = torch.empty_like(samples.x)
    model(samples.x[:rows])

    def attack() -> NDArray[np.bool_]:
        for chosen in torch.arange(len(samples)).split(rows):
            attacked[chosen] = peers.autoattack(
                model, samples.x[chosen], samples.labels[chosen], radius, steps=steps, seed=seed
            )
        return np.empty(0, dtype=bool)

    outcome = timed(attack)
    verdict = judge(classifier, Linf(), samples.x, attacked, samples.labels, line_search=0)
    # x0 + radius is rounded to float32 by the peer; that much is not held against it.
    inside = verdict.distance <= radius * (1 + 1e-5)
    wrong = (~samples.correct | (verdict.broken & inside)).numpy()
    return Outcome(wrong, outcome.seconds, outcome.processor, outcome.threads)


def ours(prepared: Subject, radius: float) -> Outcome:
    """The whole scan."""

    def attack() -> NDArray[np.bool_]:
        found = scan.run(prepared).evidence[0].frontier.radius.numpy()
        return found <= radius

    prepared.classifier.differentiable(prepared.samples.x[:32])
    return timed(attack)


def cached(path: Path | None, run: Callable[[], Outcome]) -> Outcome:
    """Read an outcome, or measure and keep it."""
    if path is not None and path.exists():
        kept = np.load(path)
        seconds, processor = float(kept["seconds"]), float(kept["processor"])
        return Outcome(kept["wrong"], seconds, processor, int(kept["threads"]), fresh=False)
    outcome = run()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = {field.name: getattr(outcome, field.name) for field in fields(outcome)}
        np.savez(path, **kept)
    return outcome


def config_of(radius: float, samples: int, seed: int) -> ScanConfig:
    effort = {"effort": "standard"} if hasattr(ScanConfig, "effort") else {}
    return ScanConfig(
        metrics=("linf",),
        orders=(math.inf,),
        deltas=(radius,),
        samples=samples,
        seed=seed,
        **effort,
    )


HEADER = [
    "model", "linf", "clean", "AutoAttack", "ours", "broken by AA only", "by us only",
    "AA s (cpu)", "ours s (cpu)", "ours / AA (cpu)", "timed",
]  # fmt: skip


def row(name: str, prepared: Subject, radius: str, peer: Outcome, own: Outcome) -> list[str]:
    ratio = f"{own.seconds / peer.seconds:.3f} ({own.processor / peer.processor:.3f})"
    if peer.threads != own.threads:
        ratio = "threads differ"
    return [
        name,
        radius,
        f"{100 * prepared.samples.accuracy:.1f}",
        f"{100 * peer.accuracy:.1f}",
        f"**{100 * own.accuracy:.1f}**",
        f"{int((peer.wrong & ~own.wrong).sum())}",
        f"{int((own.wrong & ~peer.wrong).sum())}",
        f"{peer.seconds:.0f} ({peer.processor:.0f})",
        f"{own.seconds:.0f} ({own.processor:.0f})",
        ratio,
        "in one run" if peer.fresh else "in two runs",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--models", default=",".join(RADII))
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=100, help="of the peer's gradient attacks")
    parser.add_argument("--rows", type=int, default=1000, help="the peer's batch")
    parser.add_argument("--cache", type=Path, help="folder that keeps the peer's outcomes")
    parser.add_argument("--peer-only", action="store_true", help="only fill the cache")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    options = parser.parse_args()

    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    for name in options.models.split(","):
        radius = float(Fraction(RADII[name]))
        config = config_of(radius, options.samples, options.seed)
        prepared = prepare(options.shared, SUBJECTS[name], config)
        kept = f"{name}-{options.samples}-{options.seed}-{options.steps}.npz"
        peer = cached(
            options.cache and options.cache / kept,
            lambda prepared=prepared, radius=radius: theirs(
                prepared, radius, steps=options.steps, rows=options.rows, seed=options.seed
            ),
        )
        print(f"{name}: AutoAttack {peer.accuracy:.4f}, {peer.seconds:.0f} s", file=sys.stderr)
        if options.peer_only:
            continue
        own = ours(prepared, radius)
        lines.append("| " + " | ".join(row(name, prepared, RADII[name], peer, own)) + " |")
        print(lines[-1], file=sys.stderr)
    if options.peer_only:
        return
    text = "\n".join(
        [
            f"{options.samples} samples, seed {options.seed}, torch {torch.__version__}, "
            f"{torch.get_num_threads()} threads. AutoAttack: {options.steps} steps, "
            f"{options.rows} samples at once. Accuracy left, in %; lower is the better attack.",
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
