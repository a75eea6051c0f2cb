"""The attacks of a scan on one metric: each proposes, the judge decides, the frontier keeps."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast

from torch import Tensor

from attackers import ATTACKS, GRADIENT_FREE
from attackers.losses import LOSSES
from attackers.minimal import minimal_radius
from attackers.threat import Threat
from audit.judge import LINE_SEARCH, judge
from audit.models.classifier import Classifier
from audit.models.execution import Counted, Counter
from audit.report import Attack, RunStatus
from audit.sensitivity import sensitivity
from audit.state import MetricRun, Progress, Scan

NEAR, NEAR_GRID = 1.3, 1.15
"""After a search for minimal radii, only samples within this factor of a budget are rerun: the
first for budgets that the user named, the second for the many of the default grid."""

WHITE_BOX = ("fgsm", "minimal", "pgd")
"""What runs by default where there are gradients."""

BLACK_BOX = ("random",)
"""What runs by default where there are none."""


def attack_all(scan: Scan, run: MetricRun, progress: Progress) -> None:
    """Run the chosen attacks, or all that apply, then the first-order distributional one."""
    white_box = scan.classifier.attackable is not None
    for name in scan.config.attacks or (WHITE_BOX if white_box else BLACK_BOX):
        if not white_box and name not in GRADIENT_FREE:
            run.attacks.append(_not_applicable(name, "It needs gradients, and the model has none."))
            continue
        with _recorded(run, name, scan) as attacker:
            if name == "minimal":
                _attack_minimal(scan, run, attacker, progress)
            else:
                _attack_fixed(scan, run, name, attacker, progress)
    if white_box:
        _measure_sensitivity(scan, run, progress)


@dataclass
class Attacker:
    """The model as one attack sees it, with what it spent and what it broke."""

    classifier: Classifier
    broken: set[int] = field(default_factory=set)

    @property
    def logits(self) -> Callable[[Tensor], Tensor]:
        """What is attacked: the differentiable copy, or the served scores where there is none."""
        model = self.classifier
        return model.deployed if model.attackable is None else model.differentiable


@contextmanager
def _recorded(run: MetricRun, name: str, scan: Scan) -> Iterator[Attacker]:
    """Count passes and time of one attack, and record it even when it is interrupted."""
    counter = Counter()
    classifier = scan.classifier
    logits = classifier.attackable
    attacker = Attacker(
        replace(
            classifier,
            serve=Counted(classifier.serve, counter),
            attackable=None if logits is None else Counted(logits, counter),
        )
    )
    started = time.perf_counter()
    status: RunStatus = "ran"
    detail = ""
    try:
        yield attacker
    except KeyboardInterrupt:
        status, detail = "error", "Interrupted before all samples were attacked."
        raise
    finally:
        run.attacks.append(
            Attack(
                name=name,
                status=status,
                detail=detail,
                broken=len(attacker.broken),
                forwards=counter.forwards,
                gradients=counter.gradients,
                seconds=time.perf_counter() - started,
            )
        )


def _attack_minimal(scan: Scan, run: MetricRun, attacker: Attacker, progress: Progress) -> None:
    """Minimal radii of all correct samples."""
    rows = scan.samples.correct.nonzero()[:, 0]
    with progress(f"{run.metric.name}: minimal radii", len(rows)) as tick:
        for chosen in rows.split(scan.batch):
            attack = partial(minimal_radius, metric=run.metric)
            _attack(scan, run, attacker, "minimal", "minimal", chosen, attack)
            tick(len(chosen))


def _attack_fixed(
    scan: Scan, run: MetricRun, name: str, attacker: Attacker, progress: Progress
) -> None:
    """An attack at every budget, largest first, on the samples it could still change.

    PGD runs from the nearest example known, scaled back onto the ball, and then from random points
    with two losses, since neither dominates the other. A sample whose radius is known to be
    far above the budget after a search for minimal radii is not attacked again there.
    """
    deltas = [d for d in scan.config.deltas_of(run.metric.name) if d > 0]
    searched = any(entry.name == "minimal" for entry in run.attacks)
    factor = NEAR_GRID if scan.config.deltas is None else NEAR
    variants = PGD_RUNS if name == "pgd" else (Variant(),)
    correct = int(scan.samples.correct.sum())
    with progress(f"{run.metric.name}: {name}", len(deltas) * len(variants) * correct) as tick:
        for delta in reversed(deltas):
            for variant in variants:
                radius = run.frontier.radius
                near = (radius <= factor * delta) | ~radius.isfinite() | (not searched)
                if variant.warm:
                    near &= radius.isfinite()
                rows = (scan.samples.correct & (radius > delta) & near).nonzero()[:, 0]
                tick(correct - len(rows))
                for chosen in rows.split(scan.batch):
                    attack = variant.attack(name, Threat(run.metric, delta), scan, run, chosen)
                    purpose = f"{name} {variant} {delta!r}"
                    _attack(scan, run, attacker, name, purpose, chosen, attack)
                    tick(len(chosen))


@dataclass(frozen=True)
class Variant:
    """One way of running a fixed-radius attack.

    Attributes:
        loss: a name of `LOSSES`, or None for the attack's own.
        warm: whether to start from the nearest example known instead of a random point.
        restart: tells runs with the same settings, hence other random points, apart.
    """

    loss: str | None = None
    warm: bool = False
    restart: int = 0

    def attack(
        self, name: str, threat: Threat, scan: Scan, run: MetricRun, rows: Tensor
    ) -> Callable[..., Tensor]:
        """The attack of that name, set up for the given rows."""
        options: dict[str, object] = {}
        if self.loss is not None:
            # From a random point the first steps should be able to cross the whole ball.
            options |= {"loss": LOSSES[self.loss], "first_step": 2.0}
        if self.warm:
            options["start"] = run.frontier.x[rows].to(scan.classifier.device)
        return partial(cast(Callable[..., Tensor], ATTACKS[name]), threat=threat, **options)


PGD_RUNS = (
    Variant(warm=True),
    Variant("ce"),
    Variant("margin"),
    Variant("ce", restart=1),
    Variant("margin", restart=1),
)


def _attack(
    scan: Scan,
    run: MetricRun,
    attacker: Attacker,
    name: str,
    purpose: str,
    rows: Tensor,
    attack: Callable[..., Tensor],
) -> None:
    """Attack some rows and propose the result."""
    samples, device = scan.samples, scan.classifier.device
    if not len(rows):
        return
    candidates = attack(
        attacker.logits,
        samples.x[rows].to(device),
        samples.labels[rows].to(device),
        generator=samples.generator.take(rows).fold(f"{run.metric.name} {purpose}"),
    )
    _propose(scan, run, attacker, name, rows, candidates.cpu())


def _propose(
    scan: Scan,
    run: MetricRun,
    attacker: Attacker,
    name: str,
    rows: Tensor,
    candidates: Tensor,
    *,
    line_search: int = LINE_SEARCH,
) -> None:
    """Let the judge decide on candidates, and keep what is nearer than before."""
    samples = scan.samples
    verdict = judge(
        attacker.classifier,
        run.metric,
        samples.x[rows],
        candidates,
        samples.labels[rows],
        line_search=line_search,
    )
    run.frontier.offer(rows, verdict, name)
    attacker.broken.update(rows[verdict.broken].tolist())


def _measure_sensitivity(scan: Scan, run: MetricRun, progress: Progress) -> None:
    samples, config = scan.samples, scan.config
    deltas = config.deltas_of(run.metric.name)

    with _recorded(run, "w-fgsm", scan) as attacker:

        def offer(rows: Tensor, x: Tensor, wrong: Tensor) -> None:
            fooled = wrong & samples.correct[rows]
            if bool(fooled.any()):
                _propose(scan, run, attacker, "w-fgsm", rows[fooled], x[fooled], line_search=0)

        with progress(f"{run.metric.name}: sensitivity", 6 * len(samples)) as tick:
            run.sensitivity = sensitivity(
                attacker.classifier,
                run.metric,
                samples,
                orders=config.orders,
                deltas=deltas,
                confidence=config.confidence,
                seed=config.seed,
                rows=scan.batch,
                offer=offer,
                tick=tick,
            )


def _not_applicable(name: str, detail: str) -> Attack:
    return Attack(
        name=name,
        status="not_applicable",
        detail=detail,
        broken=None,
        forwards=None,
        gradients=None,
        seconds=None,
    )
