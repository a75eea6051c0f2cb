"""Geometry, losses and attacks: pure functions over torch tensors; no files, no printing."""

from attackers.registry import (
    ATTACKS,
    ITERATIVE,
    PLAIN_STEPS,
    MinimalAttack,
    PointwiseAttack,
    default_choice,
    defined,
    needs_generator,
)

__all__ = [
    "ATTACKS",
    "ITERATIVE",
    "PLAIN_STEPS",
    "MinimalAttack",
    "PointwiseAttack",
    "default_choice",
    "defined",
    "needs_generator",
]
