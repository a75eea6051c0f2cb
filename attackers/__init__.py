"""Geometry, losses and attacks: pure functions over torch tensors; no files, no printing."""

from typing import Protocol

from torch import Tensor

from attackers.fgsm import fgsm
from attackers.generator import SampleGenerator
from attackers.gradient import Logits
from attackers.noise import random_search
from attackers.pgd import pgd
from attackers.threat import Threat


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


ATTACKS: dict[str, Attack] = {"fgsm": fgsm, "pgd": pgd, "random": random_search}
"""Attacks at a fixed radius, by name; `attackers.minimal` turns one into minimal radii."""

GRADIENT_FREE = frozenset({"random"})
"""The attacks that need scores only."""
