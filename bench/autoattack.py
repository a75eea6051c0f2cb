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

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
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
from bench.cache import cached
from bench.subjects import SUBJECTS, Plain, prepare
from bench.table import Table, bench_parser, publish, torch_setup

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
    """

    wrong: NDArray[np.bool_]
    seconds: float
    processor: float
    threads: int

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


COLUMNS = (
    "model", "linf", "clean", "AutoAttack", "ours", "broken by AA only", "by us only",
    "AA s (cpu)", "ours s (cpu)", "ours / AA (cpu)", "timed",
)  # fmt: skip


def row(
    name: str, prepared: Subject, radius: str, peer: Outcome, own: Outcome, fresh: bool
) -> list[str]:
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
        "in one run" if fresh else "in two runs",
    ]


def main() -> None:
    """Print the table, and write it if a file is named."""
    parser = bench_parser(__doc__)
    parser.add_argument("--models", default=",".join(RADII))
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=100, help="steps of the peer's attacks")
    parser.add_argument("--rows", type=int, default=1000, help="batch size of the peer")
    parser.add_argument("--cache", type=Path, help="folder that keeps the results of the peer")
    parser.add_argument("--peer-only", action="store_true", help="only fill the cache")
    options = parser.parse_args()

    table = Table(
        COLUMNS,
        f"{options.samples} samples, seed {options.seed}, {torch_setup()}. AutoAttack: "
        f"{options.steps} steps, batches of {options.rows} samples. Remaining accuracy in %; a "
        "lower one is the better attack.",
    )
    for name in options.models.split(","):
        radius = float(Fraction(RADII[name]))
        config = config_of(radius, options.samples, options.seed)
        prepared = prepare(options.shared, SUBJECTS[name], config)
        kept = f"{name}-{options.samples}-{options.seed}-{options.steps}.npz"
        attack = partial(
            theirs, prepared, radius, steps=options.steps, rows=options.rows, seed=options.seed
        )
        peer, fresh = cached(options.cache and options.cache / kept, Outcome, attack)
        print(f"{name}: AutoAttack {peer.accuracy:.4f}, {peer.seconds:.0f} s", file=sys.stderr)
        if not options.peer_only:
            own = ours(prepared, radius)
            table.add(*row(name, prepared, RADII[name], peer, own, fresh))
    if not options.peer_only:
        publish(options.out, table)


if __name__ == "__main__":
    main()
