"""What the registry states of an attack: how it runs, what it needs, what it may spend."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from attackers.geometry import METRICS, Metric
from attackers.gradient import Logits
from attackers.losses import LOSSES, targeted_dlr
from attackers.random_streams import SampleGenerator
from attackers.restarts import restarted, rivals
from attackers.square import SQUARE_METRICS, square
from attackers.stage import Cost, Stage
from attackers.threat import Threat
from attackers.wagan.networks import Generator

Kind = Literal["radius", "minimal", "law"]
"""How an attack runs: at a radius, for minimal radii, or on the whole data as one law."""

Need = Literal["gradients", "scores", "generator"]
"""What an attack cannot run without: gradients, scores (not labels alone), a trained generator."""

Situation = Literal["generator", "gradients", "flat", "scores", "smoothed"]
"""When an attack is a default: a generator is given; the model has gradients; some of its samples
have none; it has scores alone; it is smoothed, and gradients are missing (a single score of it
costs up to a thousand calls)."""

Configured = Callable[..., Tensor]
"""An attack with everything set but (logits, x0, labels, generator=…)."""

SPREAD = 0.5
"""Share of the radius by which several runs that move mass begin apart."""


@dataclass(frozen=True)
class Given:
    """What a scan hands to an attack at a radius.

    Attributes:
        threat: metric and radius.
        start: (B, ...) the nearest examples known, for a stage that starts there.
        network: the trained generator, for an attack that needs one.
    """

    threat: Threat
    start: Tensor
    network: Generator | None = None


def by_steps(stage: Stage) -> dict[str, object]:
    """Return keyword arguments of an attack by gradient steps."""
    options: dict[str, object] = {"steps": stage.steps} if stage.steps else {}
    if stage.loss is not None:
        options |= {"loss": LOSSES.get(stage.loss, targeted_dlr), "first_step": stage.first_step}
    return options


def by_moving_mass(stage: Stage) -> dict[str, object]:
    """Return keyword arguments of an attack that moves mass by gradient steps."""
    options = by_steps(stage)
    if options.pop("first_step", None) is not None:
        options["jitter"] = SPREAD if stage.runs > 1 else 0.0
    return options


def by_queries(stage: Stage) -> dict[str, object]:
    """Return keyword arguments of an attack that counts queries."""
    return {"queries": stage.steps} if stage.steps else {}


def gradients_of(stage: Stage) -> Cost:
    """Return the cost of runs by gradient steps; each looks once more at where it ended."""
    return Cost(stage.runs * (stage.steps + 1), stage.runs * stage.scout)


def queries_of(stage: Stage) -> Cost:
    """Return the cost of runs without gradients."""
    return Cost(forwards=stage.runs * stage.steps)


def in_runs(entry: "AttackEntry", stage: Stage, given: Given) -> Configured:
    """Set up the runs of a stage: scouted, from a known start, at rival classes, or restarted."""
    threat, options = given.threat, entry.keywords(stage)
    if stage.warm:
        options["start"] = given.start
    attack: Configured = partial(entry.run, **options)
    if stage.scout and threat.metric.name in SQUARE_METRICS:
        attack = partial(_scouted, attack, queries=stage.scout)
    if stage.loss == "targeted":
        return partial(_at_rivals, attack, threat=threat, runs=stage.runs)
    if stage.runs > 1:
        return partial(restarted, attack, threat=threat, runs=stage.runs)
    return partial(attack, threat=threat)


@dataclass(frozen=True)
class AttackEntry:
    """One attack of the registry.

    Attributes:
        name: the word of ``--attack``.
        run: the pure function; its signature depends on ``kind``.
        kind: how it runs.
        needs: what it cannot run without.
        metrics: names of the metrics in which it is defined.
        default: situations in which it runs without being named.
        keywords: maps a stage to keyword arguments of ``run``.
        cost: what `spends` returns, where neither `gradients_of` nor `queries_of` is right.
        set_up: maps a stage and what the scan gives to an attack at a radius.
        iterative: whether it is the attack by many gradients that answers for its metrics.
        plain: whether it is the plain attack by gradient steps that checks of gradients use.
    """

    name: str
    run: Callable[..., Tensor]
    kind: Kind = "radius"
    needs: frozenset[Need] = frozenset({"gradients"})
    metrics: frozenset[str] = frozenset(METRICS)
    default: frozenset[Situation] = frozenset()
    keywords: Callable[[Stage], dict[str, object]] = by_steps
    cost: Callable[[Stage], Cost] | None = None
    set_up: "Callable[[AttackEntry, Stage, Given], Configured]" = in_runs
    iterative: bool = False
    plain: bool = False

    def __call__(self, *args: object, **options: object) -> Tensor:
        """Run the attack."""
        return self.run(*args, **options)

    def defined(self, metric: Metric) -> bool:
        """Return whether the attack is defined in the metric."""
        return metric.name in self.metrics

    def spends(self, stage: Stage) -> Cost:
        """Return the most that a stage spends on a sample (and budget; see `per`)."""
        if self.cost is not None:
            return self.cost(stage)
        return gradients_of(stage) if "gradients" in self.needs else queries_of(stage)

    @property
    def per(self) -> Literal["sample", "sample and budget"]:
        """What its cost is counted for."""
        return "sample" if self.kind == "minimal" else "sample and budget"


def _scouted(
    attack: Configured,
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    generator: SampleGenerator,
    queries: int,
) -> Tensor:
    """Start where a random search ended."""
    start = square(logits, x0, labels, threat, generator=generator, queries=queries)
    return attack(logits, x0, labels, threat, generator=generator, start=start)


def _at_rivals(
    attack: Configured,
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    *,
    threat: Threat,
    generator: SampleGenerator,
    runs: int,
) -> Tensor:
    """Run once at each of the classes that score best on the sample itself."""
    with torch.no_grad():
        targets = rivals(logits(x0), labels, runs)
    return restarted(
        attack,
        logits,
        x0,
        labels,
        threat,
        generator=generator,
        runs=targets.shape[1],
        targets=targets,
    )
