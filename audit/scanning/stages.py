"""From a stage of an effort preset to the attack that it describes."""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor

from attackers import ATTACKS, ITERATIVE, defined
from attackers.gradient import Logits
from attackers.losses import LOSSES, targeted_dlr
from attackers.random_streams import SampleGenerator
from attackers.restarts import restarted, rivals
from attackers.square import square
from attackers.threat import Threat
from attackers.wagan.attack import wagan
from attackers.wagan.networks import Generator
from audit.scanning.effort import Stage

JITTER = 0.5
"""Share of the radius by which runs that move mass begin apart, where there are several."""

Run = Callable[..., Tensor]
"""An attack with everything set but (logits, x0, labels, generator=…)."""


def at_radius(
    name: str,
    stage: Stage,
    threat: Threat,
    start: Tensor | None,
    network: Generator | None = None,
) -> Run:
    """Set up the attack of that name.

    Args:
        name: of `attackers.ATTACKS`, or ``wagan``.
        stage: how to run it.
        threat: with the radius.
        start: (B, ...) the nearest examples known, for a stage that starts there.
        network: the generator of ``wagan``.
    """
    if name == "wagan":
        assert network is not None
        if not stage.steps:
            return partial(wagan, threat=threat, network=network, draws=stage.runs)
        attack = ATTACKS[ITERATIVE[threat.metric.name]]
        return partial(_from_generator, attack, threat=threat, network=network, steps=stage.steps)
    options: dict[str, object] = {}
    if stage.steps:
        options["queries" if name == "square" else "steps"] = stage.steps
    if stage.loss is not None:
        options["loss"] = LOSSES.get(stage.loss, targeted_dlr)
        if name == "transport":
            options["jitter"] = JITTER if stage.runs > 1 else 0.0
        else:
            options["first_step"] = stage.first_step
    if stage.warm:
        options["start"] = start
    attack = partial(cast(Run, ATTACKS[name]), **options)
    if stage.scout and defined("square", threat.metric):
        attack = partial(_scouted, attack, queries=stage.scout)
    if stage.loss == "targeted":
        return partial(_at_rivals, attack, threat=threat, runs=stage.runs)
    if stage.runs > 1:
        return partial(restarted, attack, threat=threat, runs=stage.runs)
    return partial(attack, threat=threat)


def _from_generator(
    attack: Run,
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    generator: SampleGenerator,
    network: Generator,
    steps: int,
) -> Tensor:
    """Start where one forward pass of a generator got to."""
    start = wagan(logits, x0, labels, threat, generator=generator, network=network)
    return attack(logits, x0, labels, threat, generator=generator, start=start, steps=steps)


def _scouted(
    attack: Run,
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    generator: SampleGenerator,
    queries: int,
) -> Tensor:
    """Start where a random search got to."""
    start = square(logits, x0, labels, threat, generator=generator, queries=queries)
    return attack(logits, x0, labels, threat, generator=generator, start=start)


def _at_rivals(
    attack: Run,
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    *,
    threat: Threat,
    generator: SampleGenerator,
    runs: int,
) -> Tensor:
    """One run at each of the classes that score best on the sample itself."""
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
