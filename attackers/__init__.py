"""Geometry, losses and attacks: pure functions over torch tensors; no files, no printing."""

from typing import Protocol

from torch import Tensor

from attackers.apgd import apgd
from attackers.fgsm import fgsm
from attackers.geometry import NORMS, Metric
from attackers.gradient import Logits
from attackers.hopskipjump import hop_skip_jump
from attackers.minimal import minimal_radius
from attackers.noise import random_search
from attackers.pgd import pgd
from attackers.random_streams import SampleGenerator
from attackers.square import SQUARE_METRICS, square
from attackers.threat import Threat
from attackers.transport import transport


class MinimalAttack(Protocol):
    """The one signature of every attack that looks for the nearest misclassified point."""

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


class Attack(Protocol):
    """The one signature of every pointwise attack."""

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


ATTACKS: dict[str, Attack] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "apgd": apgd,
    "transport": transport,
    "square": square,
    "random": random_search,
}
"""Attacks at a fixed radius, by name."""

MINIMAL: dict[str, MinimalAttack] = {"minimal": minimal_radius, "hopskipjump": hop_skip_jump}
"""Attacks that give minimal radii, by name."""

GRADIENT_FREE = frozenset({"square", "random", "hopskipjump"})
"""The attacks that need scores only, or labels."""

METRICS_OF: dict[str, frozenset[str]] = {
    "pgd": frozenset(NORMS),
    "apgd": frozenset(NORMS),
    "transport": frozenset({"wasserstein"}),
    "square": SQUARE_METRICS,
    "hopskipjump": frozenset(NORMS),
}
"""Names of the metrics of an attack that does not work in all of them."""


ITERATIVE: dict[str, str] = {**dict.fromkeys(NORMS, "apgd"), "wasserstein": "transport"}
"""For each metric the attack by many gradients that answers for it."""


def defined(name: str, metric: Metric) -> bool:
    """Whether the attack of that name works in the metric."""
    return metric.name in METRICS_OF.get(name, {metric.name})
