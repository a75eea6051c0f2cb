"""Parts of every kind of report: records, intervals, the version of the layout."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION: Literal[1] = 1
"""Version of the layout of hardening reports."""


class Record(BaseModel):
    """Base of all report parts: immutable, no unknown keys, no silent coercion."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Interval(Record):
    """A proportion (or a mean) with its finite-sample interval at the report's confidence."""

    value: float | None
    low: float | None
    high: float | None


class Tool(Record):
    """The program that wrote the report."""

    name: str
    version: str


Reliability = Literal["GREEN", "AMBER", "RED"]


def now() -> str:
    """Return the current time as the report states it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
