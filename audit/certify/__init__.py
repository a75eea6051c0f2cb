"""Certified radii: lower bounds on every sample's distance to its nearest misclassified point.

A certifier maps (classifier, samples, metric) to radii, rounded down, with its method and failure
probability. The trivial one always applies, so no report lacks a lower bound.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from audit.evidence.samples import Samples
from audit.schema import Certifier
from audit.statistics.soft import Soft
from audit.statistics.value import Envelope


@dataclass(frozen=True)
class Certified:
    """Radii ``(N,)`` float64 (0 where misclassified), and what the report says of the method.

    ``envelope`` bounds the cross-entropy around every sample, where the method bounds margins;
    ``soft`` the probability of the label, where the method counts votes.
    """

    radius: Tensor
    certifier: Certifier
    envelope: Envelope | None = None
    soft: Soft | None = None


def failed(samples: Samples, name: str, reason: str, seconds: float) -> Certified:
    """Radius 0 for every sample, since the method stopped on an error.

    Args:
        samples: all of them.
        name: of the method.
        reason: what the error said.
        seconds: spent before.
    """
    return Certified(
        torch.zeros(len(samples), dtype=torch.float64),
        Certifier(
            name=name,
            status="error",
            detail=f"It stopped on an error: {reason}. The lower bound is 0 at every positive "
            "budget.",
            seconds=seconds,
            failure_probability=0.0,
        ),
    )


def trivial(samples: Samples, *, asked: bool) -> Certified:
    """Radius 0 for every sample: nothing is claimed beyond the samples themselves."""
    return Certified(
        torch.zeros(len(samples), dtype=torch.float64),
        Certifier(
            name="trivial",
            status="ran",
            detail=(
                "No certificate beyond the samples themselves: the lower bound is 0 at every "
                "positive budget."
                if asked
                else "Certification is off: the lower bound is 0 at every positive budget."
            ),
            seconds=0.0,
            failure_probability=0.0,
        ),
    )
