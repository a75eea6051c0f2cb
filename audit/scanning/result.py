"""Result of a finished scan: the evidence, the findings of the checks, and its status."""

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
        subject: model, samples and options; its classifier is the one that was attacked.
        evidence: one value for every metric that was started.
        clean: clean accuracy over all samples.
        health: findings of all checks.
        warnings: sentences for the report.
        status: whether the scan completed, was interrupted, or lost parts to errors.
        failures: sentences on parts that belong to no metric and stopped on an error.
        parity: difference between the served model and its copy, if there is a copy.
        generated: measurements of the trained generator, if there is one.
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
        """Results of every metric that was started."""
        return [found.threat for found in self.evidence]

    @property
    def classifier(self) -> Classifier:
        """Model that was attacked."""
        return self.subject.classifier

    @property
    def samples(self) -> Samples:
        """Audited samples."""
        return self.subject.samples
