"""The report of a hardening as plain data: epochs, and both models under every threat."""

from typing import Annotated, Any, Literal

from pydantic import Field

from audit.schema.base import SCHEMA_VERSION, Record, Reliability, Tool
from audit.schema.comparison import Paired, PairedPoint
from audit.schema.threat import ThreatResult


class Epoch(Record):
    """One epoch of hardening, evaluated with the averaged weights.

    ``clean`` and ``attacked`` are accuracies on the held-out samples, the second under a short
    attack; ``evaluation`` is the clean accuracy on the evaluation data.
    """

    epoch: int
    steps: int
    loss: float
    clean: float
    attacked: float
    evaluation: float
    accepted: bool


class HardenedThreat(Record):
    """One threat before and after, on the same samples, each under all attacks."""

    radius: float
    before: ThreatResult
    after: ThreatResult
    paired: list[PairedPoint]


class HardenReport(Record):
    """The report of one hardening; pairs hold the value before and the value after."""

    schema_version: Literal[1] = SCHEMA_VERSION
    tool: Tool
    created: Annotated[str, Field(description="UTC, ISO 8601")]
    model: str
    sha256: str
    hardened: str
    hardened_sha256: str
    format: str
    method: str
    config: dict[str, Any]
    confidence: float
    samples: int
    clean: Paired
    threats: list[HardenedThreat]
    epochs: list[Epoch]
    best_epoch: int
    seconds: float
    parity: float
    trained: list[str]
    frozen: list[str]
    reliability: tuple[Reliability, Reliability]
    notes: list[str]
    warnings: list[str]
