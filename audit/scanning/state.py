"""What a scan knows so far: kept when it is interrupted, turned into a report at the end."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from attackers import default_choice
from attackers.geometry import Metric
from attackers.gradient import value_and_grad
from attackers.losses import margin
from attackers.rows import row_max
from audit.certify import Certified
from audit.data import Dataset
from audit.errors import contained
from audit.evidence.frontier import Frontier
from audit.evidence.readings import Finding
from audit.evidence.samples import Samples
from audit.generators.generator_files import Trained
from audit.models.classifier import Classifier
from audit.models.smoothed import SOFT_DRAWS
from audit.options import ScanConfig
from audit.runtime.batches import Batches
from audit.schema import (
    Attack,
    Clean,
    GeneratorUsed,
    Health,
    Parity,
    Sensitivity,
    Status,
    ThreatResult,
)
from audit.statistics import summary
from audit.statistics.confidence import Floats
from audit.statistics.judged import Judged, Scope
from audit.statistics.summary import Findings

INTERRUPTED = "Interrupted before all samples were attacked."
"""What is said of the attack that an interrupt ended."""


@dataclass
class MetricRun:
    """Everything found under one metric so far; kept when the scan is interrupted.

    Attributes:
        losses: those of `sensitivity` at the samples, by name.
        errors: what stopped on an error under this metric, each as a sentence.
        searched: (N,) bool, samples that a completed search for minimal radii covered.
        followed: (N,) bool, those of them that a search along gradients covered.
    """

    metric: Metric
    frontier: Frontier
    certified: Certified
    attacks: list[Attack] = field(default_factory=list)
    sensitivity: list[Sensitivity] = field(default_factory=list)
    losses: dict[str, Floats] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    searched: Tensor = field(init=False)
    followed: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Start with no sample searched."""
        self.searched = torch.zeros(len(self.frontier.radius), dtype=torch.bool)
        self.followed = self.searched.clone()

    def judged(self, samples: Samples) -> Judged:
        """What is known of every sample."""
        return Judged(
            samples.labels.numpy(),
            samples.correct.numpy(),
            self.frontier.radius.numpy(),
            self.certified.radius.numpy(),
            self.certified.certifier.failure_probability,
        )

    @property
    def findings(self) -> Findings:
        """What attacks and certificate say of themselves."""
        certified = self.certified
        return Findings(
            certified.certifier,
            self.attacks,
            self.sensitivity,
            self.losses,
            certified.envelope,
            certified.soft,
        )


@dataclass
class Scan:
    """State and outcome of a scan.

    Attributes:
        interrupted: whether it was stopped on the way.
        failures: what else than an attack or a certificate could not be done because of an error.
        readings: what other readings of model and data say.
        generator: that the attack ``wagan`` uses, if any; ``generated`` is what is said of it.
    """

    classifier: Classifier
    dataset: Dataset
    config: ScanConfig
    samples: Samples
    parity: Parity | None = None
    runs: list[MetricRun] = field(default_factory=list)
    health: list[Health] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    interrupted: bool = False
    failures: list[str] = field(default_factory=list)
    readings: tuple[Finding, ...] = ()
    generator: Trained | None = None
    generated: GeneratorUsed | None = None
    batches: Batches = field(init=False)

    def __post_init__(self) -> None:
        """Attack together what the user chose, or what bounds the memory of gradients."""
        size = max(1, self.samples.x[0].numel())
        if self.classifier.base is not None:
            size *= SOFT_DRAWS
        room, most = (2**21, 512) if self.classifier.device.type == "cpu" else (2**27, 8192)
        chosen = self.config.batch_size or max(32, min(most, room // size) // 32 * 32)
        self.batches = Batches(min(chosen, len(self.samples)))

    @property
    def attacks(self) -> tuple[str, ...]:
        """The attacks that the user named, or else the strongest that apply."""
        if self.config.attacks is not None:
            return self.config.attacks
        gradients = self.classifier.attackable is not None
        return default_choice(
            gradients=gradients,
            flat=gradients and bool(self.flat.any()),
            smoothed=self.classifier.base is not None,
            generator=self.generator is not None,
        )

    @cached_property
    def flat(self) -> Tensor:
        """Which samples have no gradient at all, ``(N,)`` bool; none where the model has none."""
        x, labels, model = self.samples.x, self.samples.labels, self.classifier
        found = torch.zeros(len(x), dtype=torch.bool)
        if model.attackable is None:
            return found

        def look(rows: Tensor) -> None:
            _, _, grad = value_and_grad(
                model.differentiable,
                margin,
                x[rows].to(model.device),
                labels[rows].to(model.device),
            )
            found[rows] = (row_max(grad.nan_to_num().abs()) == 0).cpu()

        def failed(reason: str) -> None:
            self.failures.append(f"The gradients of the samples: {reason}.")
            # None of them can be relied on: attacks without gradients try every sample.
            found.fill_(True)

        with contained("Looking for samples without a gradient", failed):
            self.batches.each(torch.arange(len(x)), look)
        return found

    @property
    def status(self) -> Status:
        """Whether the scan ran to its end, was interrupted, or lost parts of it to errors."""
        if self.interrupted:
            return "interrupted"
        return "partial" if self.failures or any(run.errors for run in self.runs) else "complete"

    @property
    def batch(self) -> int:
        """Samples attacked together."""
        return self.batches.size

    @property
    def clean(self) -> Clean:
        """Clean accuracy over all samples."""
        return summary.clean(self.samples.correct.numpy(), self.config.confidence)

    @property
    def threats(self) -> list[ThreatResult]:
        """The results of every metric that was begun."""
        return [
            summary.summarise(
                run.metric,
                run.judged(self.samples),
                run.findings,
                self.scope_of(run.metric.name),
            )
            for run in self.runs
        ]

    def scope_of(self, metric: str) -> Scope:
        """What accuracies are stated for under a metric."""
        config = self.config
        return Scope(
            config.orders, config.deltas_of(metric), config.confidence, self.dataset.class_names
        )
