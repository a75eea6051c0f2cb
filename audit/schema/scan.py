"""The report object of a scan: plain data, the only input of the renderers.

Numbers are in the unit that their field states; ``None`` means *not measured*, never zero.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from audit.schema.attack import GeneratorUsed
from audit.schema.base import Interval, Record, Reliability, Tool
from audit.schema.health import Health
from audit.schema.subject import Data, Model
from audit.schema.threat import ThreatResult

REPORT_VERSION: Literal[2] = 2
"""Version of the layout of scan reports; `audit.schema.upgrade` reads earlier ones."""

Status = Literal["complete", "partial", "interrupted"]
Verdict = Literal["pass", "fail", "inconclusive", "none"]
GateStatus = Literal["pass", "fail", "warn", "inconclusive", "waived"]


class Clean(Interval):
    """Accuracy on the unperturbed samples, all samples counted (Clopper-Pearson interval)."""

    confidence: float


class Gate(Record):
    """One condition on the report and its outcome; ``value`` is the number that was compared.

    ``detail`` gives a reason that the value does not show: a missing measurement, or a waiver.
    """

    id: str
    expression: str
    status: GateStatus
    value: float | None
    detail: str = ""


class GalleryItem(Record):
    """One broken sample as pictures (PNG data URIs), for the HTML report.

    ``flow`` and ``note`` depict and describe how mass moved under the image-Wasserstein threat.
    ``confidences`` are the model's probabilities of the predicted class, before and after; null
    where the model serves no probabilities.
    """

    metric: str
    index: int
    label: int
    prediction: int
    distance: float
    attack: str
    original: str
    adversarial: str
    difference: str
    flow: str | None = None
    note: str = ""
    confidences: tuple[float, float] | None = None


class Artifacts(Record):
    """Files written next to the report (names relative to it), and the embedded gallery."""

    samples: str | None = None
    adversarial: str | None = None
    html: str | None = None
    gallery: list[GalleryItem] = Field(default=[])


class ScanReport(Record):
    """The report of one scan."""

    schema_version: Literal[2] = REPORT_VERSION
    tool: Tool
    status: Status
    verdict: Verdict
    created: Annotated[str, Field(description="UTC, ISO 8601")]
    model: Model
    data: Data
    config: dict[str, Any]
    environment: dict[str, Any]
    clean: Clean
    threats: list[ThreatResult]
    health: list[Health]
    gates: list[Gate]
    warnings: list[str]
    artifacts: Artifacts
    generator: GeneratorUsed | None = None


def reliability(report: ScanReport) -> Reliability:
    """Return GREEN if every applicable check passed, AMBER on a warning, RED on a failure.

    A check that stopped on an error counts as failed. AMBER also if no check applied, because then
    nothing supports the numbers. A scan that did not run to its end is RED, because its rest may
    break more samples.
    """
    statuses = {entry.status for entry in report.health}
    if statuses & {"fail", "error"} or report.status != "complete":
        return "RED"
    return "GREEN" if "pass" in statuses and "warn" not in statuses else "AMBER"
