"""Evidence of a scan under one metric: a local accumulator, and the immutable result."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from attackers.geometry import Metric
from audit.certify import Certified
from audit.evidence.frontier import Frontier
from audit.scanning.subject import Plan, Subject
from audit.schema import Attack, Health, Sensitivity, ThreatResult
from audit.statistics import summary
from audit.statistics.confidence import Floats
from audit.statistics.judged import Judged
from audit.statistics.summary import Findings


@dataclass(frozen=True)
class MetricEvidence:
    """Everything found under one metric.

    Attributes:
        metric: the geometry.
        frontier: the nearest confirmed example of every sample.
        certified: certified radii and their method.
        attacks: records of the attacks, in the order in which they ended.
        threat: the metric's part of the report.
        health: findings of the health checks.
        errors: sentences on what stopped on an error.
        interrupted: whether an interrupt ended the search.
    """

    metric: Metric
    frontier: Frontier
    certified: Certified
    attacks: tuple[Attack, ...]
    threat: ThreatResult
    health: tuple[Health, ...]
    errors: tuple[str, ...]
    interrupted: bool


@dataclass
class MetricRun:
    """Accumulator of a metric's evidence, used only by `scan_metric` and the functions it calls.

    Attributes:
        plan: the attacks.
        earlier: finished evidence of the metrics before this one.
        losses: losses at the samples, measured by `sensitivity`, by name.
        errors: sentences on what stopped on an error under this metric.
        searched: (N,) bool, samples covered by a completed search for minimal radii.
        followed: (N,) bool, samples covered by a completed search that uses gradients.
    """

    metric: Metric
    frontier: Frontier
    certified: Certified
    plan: Plan
    earlier: tuple[MetricEvidence, ...] = ()
    attacks: list[Attack] = field(default_factory=list)
    sensitivity: list[Sensitivity] = field(default_factory=list)
    losses: dict[str, Floats] = field(default_factory=dict)
    health: list[Health] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    searched: Tensor = field(init=False)
    followed: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Start with no sample searched."""
        self.searched = torch.zeros(len(self.frontier.radius), dtype=torch.bool)
        self.followed = self.searched.clone()

    def finished(self, subject: Subject, *, interrupted: bool) -> MetricEvidence:
        """Return the finished evidence, with its statistics."""
        samples, certified = subject.samples, self.certified
        judged = Judged(
            samples.labels.numpy(),
            samples.correct.numpy(),
            self.frontier.radius.numpy(),
            certified.radius.numpy(),
            certified.certifier.failure_probability,
        )
        findings = Findings(
            certified.certifier,
            self.attacks,
            self.sensitivity,
            self.losses,
            certified.envelope,
            certified.soft,
        )
        return MetricEvidence(
            self.metric,
            self.frontier,
            certified,
            tuple(self.attacks),
            summary.summarise(self.metric, judged, findings, subject.scope_of(self.metric.name)),
            tuple(self.health),
            tuple(self.errors),
            interrupted,
        )
