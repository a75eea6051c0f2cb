"""What a scan knows so far: kept when it is interrupted, turned into a report at the end."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from attackers.geometry import Metric
from audit import statistics
from audit.certify import Certified
from audit.config import ScanConfig
from audit.data import Dataset
from audit.frontier import Frontier
from audit.models.classifier import Classifier
from audit.report import Attack, Clean, Health, Parity, Sensitivity, ThreatResult
from audit.samples import Samples


class Progress(Protocol):
    """Shows long work; the CLI's draws a bar, the default nothing."""

    def __call__(self, stage: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Open a stage of ``total`` samples; the result is called with how many were done."""


@contextmanager
def silent(stage: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show nothing."""
    del stage, total
    yield lambda _: None


@dataclass
class MetricRun:
    """Everything found under one metric so far; kept when the scan is interrupted."""

    metric: Metric
    frontier: Frontier
    certified: Certified
    attacks: list[Attack] = field(default_factory=list)
    sensitivity: list[Sensitivity] = field(default_factory=list)


@dataclass
class Scan:
    """State and outcome of a scan; ``interrupted`` says whether it was stopped on the way."""

    classifier: Classifier
    dataset: Dataset
    config: ScanConfig
    samples: Samples
    parity: Parity | None = None
    runs: list[MetricRun] = field(default_factory=list)
    health: list[Health] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def batch(self) -> int:
        """Samples attacked together: the user's choice, or what bounds the memory of gradients."""
        size = max(1, self.samples.x[0].numel())
        chosen = self.config.batch_size or max(32, min(512, 2**21 // size) // 32 * 32)
        return min(chosen, len(self.samples))

    @property
    def clean(self) -> Clean:
        """Clean accuracy over all samples."""
        return statistics.clean(self.samples, self.config.confidence)

    @property
    def threats(self) -> list[ThreatResult]:
        """The results of every metric that was begun."""
        return [
            statistics.summarise(
                self.samples,
                metric=run.metric,
                attacked=run.frontier.radius.numpy(),
                certified=run.certified,
                attacks=run.attacks,
                sensitivity=run.sensitivity,
                orders=self.config.orders,
                deltas=self.config.deltas_of(run.metric.name),
                confidence=self.config.confidence,
            )
            for run in self.runs
        ]
