"""What all health checks share: how a finding is written, and how many samples are looked at."""

from torch import Tensor

from audit.schema import Health, HealthStatus

PROBE = 64
"""Samples that the checks look at."""


def entry(check: str, status: HealthStatus, detail: str) -> Health:
    """One finding of one check."""
    return Health(check=check, status=status, detail=detail)


def scale(scores: Tensor) -> float:
    """Size of the largest score, at least one: what differences of scores are measured against."""
    return max(1.0, float(scores.abs().max()))


def without_gradients(check: str) -> Health:
    """The finding of a check that needs gradients, on a model that has none."""
    return entry(check, "not_applicable", "It needs gradients.")
