"""Certified radii: lower bounds on every sample's distance to its nearest misclassified point.

A certifier maps (classifier, samples, metric) to radii, rounded down, with its method and failure
probability. The trivial certifier always applies, so every report has a lower bound.
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
    """Certified radii of all samples, and the entry of the report.

    Attributes:
        radius: (N,) float64, 0 where misclassified or where nothing is certified.
        certifier: method, status, detail and failure probability.
        envelope: upper bounds of the cross-entropy, where the method bounds margins.
        soft: lower bounds of the probability of the label, where the method counts votes.
    """

    radius: Tensor
    certifier: Certifier
    envelope: Envelope | None = None
    soft: Soft | None = None


def failed(samples: Samples, name: str, reason: str, seconds: float) -> Certified:
    """Return radius 0 for every sample, for a method that stopped on an error.

    Args:
        samples: all samples of the scan.
        name: name of the method.
        reason: the error in one line, without a full stop at its end.
        seconds: time spent before the error, in seconds.
    """
    return Certified(
        torch.zeros(len(samples), dtype=torch.float64),
        Certifier(
            name=name,
            status="error",
            detail=f"The method stopped on an error: {reason}. The lower bound is 0 at every "
            "positive budget.",
            seconds=seconds,
            failure_probability=0.0,
        ),
    )


def trivial(samples: Samples, *, asked: bool) -> Certified:
    """Return radius 0 for every sample: nothing is claimed beyond the samples themselves.

    Args:
        samples: all samples of the scan.
        asked: whether a certificate was requested.
    """
    return Certified(
        torch.zeros(len(samples), dtype=torch.float64),
        Certifier(
            name="trivial",
            status="ran",
            detail=(
                "No radius was certified: the lower bound is 0 at every positive budget."
                if asked
                else "Certification is off: the lower bound is 0 at every positive budget."
            ),
            seconds=0.0,
            failure_probability=0.0,
        ),
    )
