"""The outcome of a scan, finished: what was found, what the checks state, how it ended."""

from dataclasses import dataclass

from audit.evidence.samples import Samples
from audit.models.classifier import Classifier
from audit.scanning.evidence import MetricEvidence
from audit.scanning.subject import Subject
from audit.schema import Clean, GeneratorUsed, Health, Parity, Status, ThreatResult


@dataclass(frozen=True)
class ScanResult:
    """Everything that a report and the files next to it are made from.

    Attributes:
        subject: what was scanned; its classifier is the one that was attacked.
        evidence: one value for every metric that was begun.
        clean: clean accuracy over all samples.
        health: findings of all checks.
        warnings: sentences for the report.
        status: whether the scan ran to its end, was interrupted, or lost parts of it to errors.
        failures: sentences on parts other than a metric's that stopped on an error.
        parity: difference between the served model and its copy, where there is one.
        generated: numbers of the trained generator, where there is one.
    """

    subject: Subject
    evidence: tuple[MetricEvidence, ...]
    clean: Clean
    health: tuple[Health, ...]
    warnings: tuple[str, ...]
    status: Status
    failures: tuple[str, ...] = ()
    parity: Parity | None = None
    generated: GeneratorUsed | None = None

    @property
    def threats(self) -> list[ThreatResult]:
        """The results of every metric that was begun."""
        return [found.threat for found in self.evidence]

    @property
    def classifier(self) -> Classifier:
        """The model that was attacked."""
        return self.subject.classifier

    @property
    def samples(self) -> Samples:
        """The audited samples."""
        return self.subject.samples
