"""The comparison of two reports of the same samples, as plain data."""

from typing import Literal

from pydantic import Field

from audit.schema.base import Interval, Record


class Paired(Record):
    """Two judgements of the same samples: shares that stand, and how many changed which way.

    ``difference`` is after minus before with its interval given how many changed; ``p_value`` is
    McNemar's exact two-sided test.
    """

    before: float
    after: float
    gained: int
    lost: int
    difference: Interval
    p_value: float


class PairedPoint(Record):
    """Both ends of the bracket at one budget of order inf, before and after.

    ``certified`` is null unless a certificate ran on both sides.
    """

    delta: float
    attacked: Paired
    certified: Paired | None


class ThreatChange(Record):
    """New minus old accuracy at one budget, both ends of the bracket, with intervals."""

    metric: str
    order: str
    delta: float
    attacked: Interval
    certified: Interval


class Comparison(Record):
    """Two reports of the same samples.

    ``status`` is fail where attacked accuracy fell by more than ``limit``, beyond its interval, and
    inconclusive where a scan that did not run to its end leaves that open; ``worst`` is the lowest
    end of all changes of attacked accuracy. ``notes`` say where the scans were not alike: what they
    found may differ for that reason too.
    """

    old: str
    new: str
    confidence: float
    samples: int
    clean: Paired
    changes: list[ThreatChange]
    limit: float | None
    status: Literal["pass", "fail", "inconclusive", "none"]
    worst: float | None
    notes: list[str] = Field(default=[])
