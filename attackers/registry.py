"""The registry of attacks: one entry each, in the order in which a scan runs them."""

from functools import partial
from typing import Protocol

from torch import Tensor

from attackers.apgd import apgd
from attackers.entry import (
    AttackEntry,
    Configured,
    Given,
    Situation,
    by_moving_mass,
    by_queries,
)
from attackers.fgsm import fgsm
from attackers.geometry import NORMS, Metric
from attackers.gradient import Logits
from attackers.hopskipjump import hop_skip_jump
from attackers.minimal import RIVALS, minimal_radius
from attackers.noise import random_search
from attackers.pgd import pgd
from attackers.random_streams import SampleGenerator
from attackers.square import SQUARE_METRICS, square
from attackers.stage import Cost, Stage
from attackers.threat import Threat
from attackers.transport import transport
from attackers.wagan.attack import wagan
from attackers.wagan.networks import Generator
from attackers.wdro import w_pgd


class MinimalAttack(Protocol):
    """Signature of every attack that looks for the nearest misclassified point."""

    def __call__(
        self,
        logits: Logits,
        x0: Tensor,
        labels: Tensor,
        metric: Metric,
        *,
        generator: SampleGenerator,
    ) -> Tensor:
        """Return misclassified points ``(B, ...)``, or ``x0`` itself where none was found."""


class PointwiseAttack(Protocol):
    """Signature of every attack at a radius."""

    def __call__(
        self,
        logits: Logits,
        x0: Tensor,
        labels: Tensor,
        threat: Threat,
        *,
        generator: SampleGenerator,
    ) -> Tensor:
        """Return attacked inputs ``(B, ...)`` inside the threat's ball and box."""


def _hunts(stage: Stage) -> dict[str, object]:
    """Return keyword arguments of the search for minimal radii."""
    steps = {"steps": stage.steps} if stage.steps else {}
    return {"hunts": stage.runs, "first": stage.first, **steps}


def _cost_of_hunts(stage: Stage) -> Cost:
    """Return the cost of hunts, one walk back, and once a comparison of the rival classes."""
    rivals = 0 if stage.first else RIVALS
    return Cost(stage.runs * (stage.steps + 1) + 1 + rivals)


def _cost_of_generating(stage: Stage) -> Cost:
    """Return the cost of steps, or of draws: the model is asked once between two of them."""
    if stage.steps:
        return Cost(stage.runs * stage.steps + 1)
    return Cost(forwards=stage.runs - 1)


def _generated(entry: AttackEntry, stage: Stage, given: Given) -> Configured:
    """Set up draws of a generator, or steps of the metric's iterative attack from one draw."""
    if not stage.steps:
        return partial(entry.run, threat=given.threat, network=given.network, draws=stage.runs)
    assert given.network is not None
    return partial(
        _from_generator,
        ATTACKS[ITERATIVE[given.threat.metric.name]],
        threat=given.threat,
        network=given.network,
        steps=stage.steps,
    )


def _from_generator(
    attack: Configured,
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    generator: SampleGenerator,
    network: Generator,
    steps: int,
) -> Tensor:
    """Start where one forward pass of a generator ended."""
    start = wagan(logits, x0, labels, threat, generator=generator, network=network)
    return attack(logits, x0, labels, threat, generator=generator, start=start, steps=steps)


ENTRIES = (
    AttackEntry(
        "wagan",
        wagan,
        needs=frozenset({"generator"}),
        default=frozenset({"generator"}),
        cost=_cost_of_generating,
        set_up=_generated,
    ),
    AttackEntry("fgsm", fgsm, default=frozenset({"gradients"})),
    AttackEntry(
        "minimal",
        minimal_radius,
        kind="minimal",
        default=frozenset({"gradients"}),
        keywords=_hunts,
        cost=_cost_of_hunts,
    ),
    AttackEntry("pgd", pgd, metrics=frozenset(NORMS), plain=True),
    AttackEntry(
        "apgd",
        apgd,
        metrics=frozenset(NORMS),
        default=frozenset({"gradients"}),
        iterative=True,
    ),
    AttackEntry(
        "transport",
        transport,
        metrics=frozenset({"wasserstein"}),
        default=frozenset({"gradients"}),
        keywords=by_moving_mass,
        iterative=True,
        plain=True,
    ),
    AttackEntry(
        "random",
        random_search,
        needs=frozenset(),
        default=frozenset({"scores", "smoothed"}),
    ),
    AttackEntry(
        "hopskipjump",
        hop_skip_jump,
        kind="minimal",
        needs=frozenset(),
        metrics=frozenset(NORMS),
        default=frozenset({"flat", "scores"}),
        keywords=by_queries,
    ),
    AttackEntry(
        "square",
        square,
        needs=frozenset({"scores"}),
        metrics=SQUARE_METRICS,
        default=frozenset({"scores"}),
        keywords=by_queries,
    ),
    AttackEntry("w-pgd", w_pgd, kind="law"),
)

ATTACKS: dict[str, AttackEntry] = {entry.name: entry for entry in ENTRIES}
"""Every attack, by name."""

ITERATIVE: dict[str, str] = {
    metric: entry.name for entry in ENTRIES if entry.iterative for metric in entry.metrics
}
"""For each metric, the name of the attack by many gradients that answers for it."""

PLAIN_STEPS: dict[str, str] = {
    metric: entry.name for entry in ENTRIES if entry.plain for metric in entry.metrics
}
"""For each metric, the name of the plain attack by gradient steps."""


def defined(name: str, metric: Metric) -> bool:
    """Return whether the attack of that name is defined in the metric."""
    return ATTACKS[name].defined(metric)


def needs_generator(name: str) -> bool:
    """Return whether the attack of that name needs a trained generator."""
    return "generator" in ATTACKS[name].needs


def default_choice(
    *, gradients: bool, flat: bool, smoothed: bool, generator: bool
) -> tuple[str, ...]:
    """Name the strongest attacks that apply, cheapest first.

    Args:
        gradients: whether the model has gradients.
        flat: whether some of its samples have none.
        smoothed: whether it is a smoothed model.
        generator: whether a trained generator is given.
    """
    situations: set[Situation] = set()
    if generator:
        situations.add("generator")
    if gradients:
        situations.add("gradients")
    if flat or not gradients:
        situations.add("smoothed" if smoothed else "flat" if gradients else "scores")
    return tuple(entry.name for entry in ATTACKS.values() if entry.default & situations)
