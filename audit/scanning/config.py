"""Every option of a scan, built once by the CLI."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from attackers import ATTACKS
from attackers.geometry import METRICS
from audit.errors import UsageError
from audit.scanning.effort import EFFORTS, Effort

DEFAULT_DELTAS: dict[str, tuple[float, ...]] = {
    "linf": (1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255, 0.1, 0.2, 0.3),
    "l2": (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0),
    "l1": (1.0, 2.0, 5.0, 10.0, 20.0, 40.0),
    "wasserstein": (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5),
}
"""Budgets per metric for the box [0, 1]; scaled with the box where the unit is its own."""

CERTIFICATES = ("auto", "simplex", "crown", "crown-ibp", "none")
"""What ``--certify`` takes; ``auto`` is the tightest that the effort allows."""

ATTACK_NAMES = tuple(ATTACKS)
"""Names that ``--attack`` takes: every attack of the registry."""


@dataclass(frozen=True)
class ScanConfig:
    """How to scan; defaults are the CLI's.

    Attributes:
        metrics: names of `attackers.geometry.METRICS`.
        orders: p >= 1 or ``inf``, shared by all metrics.
        deltas: budgets shared by all metrics, or None for a grid per metric.
        attacks: names of `ATTACK_NAMES`, or None for all that apply.
        effort: a name of `audit.scanning.effort.EFFORTS`.
        certify: one of `CERTIFICATES`.
        smooth: sigma of the noise under which the model is audited, or None for the model itself.
        samples: size of the random subset, or None for all.
        seed: of the subset and of every random number.
        confidence: of every interval.
        batch_size: samples attacked together, or None for automatic; never changes a result.
        low, high: the box.
    """

    metrics: tuple[str, ...] = ("linf", "l2")
    orders: tuple[float, ...] = (math.inf, 2.0, 1.0)
    deltas: tuple[float, ...] | None = None
    attacks: tuple[str, ...] | None = None
    effort: str = "standard"
    certify: str = "auto"
    smooth: float | None = None
    samples: int | None = None
    seed: int = 0
    confidence: float = 0.95
    batch_size: int | None = None
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, each with what was found and what is expected."""
        _each(self.metrics, METRICS, "threat")
        _each(self.attacks or (), ATTACK_NAMES, "attack")
        _each((self.effort,), EFFORTS, "effort")
        _each((self.certify,), CERTIFICATES, "certificate")
        if not self.metrics or not self.orders:
            raise UsageError("At least one threat and one order are needed.")
        for order in self.orders:
            if not order >= 1:
                raise UsageError(f"An order must be at least 1 or inf, found {order:g}.")
        for delta in self.deltas or ():
            if not 0 <= delta < math.inf:
                raise UsageError(f"A delta must be finite and not negative, found {delta:g}.")
        if not self.low < self.high:
            raise UsageError(f"--low must be below --high, found {self.low:g} and {self.high:g}.")
        if not 0 < self.confidence < 1:
            raise UsageError(
                f"--confidence must lie between 0 and 1, found {self.confidence:g}: 0.95 is usual."
            )
        if self.smooth is not None:
            self._check_smoothing(self.smooth)
        if self.samples is not None and self.samples < 1:
            raise UsageError(f"--samples must be at least 1, found {self.samples}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"--batch-size must be at least 1, found {self.batch_size}.")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed must be between 0 and 2**63 - 1, found {self.seed}.")

    def _check_smoothing(self, sigma: float) -> None:
        if not 0 < sigma < math.inf:
            raise UsageError(f"--smooth must be positive and finite, found {sigma:g}.")
        if self.certify not in ("auto", "none"):
            raise UsageError(
                f"--certify {self.certify} bounds the model itself, not the one that --smooth "
                "audits: leave one of them out."
            )
        if "wasserstein" in self.metrics and len(set(self.metrics)) > 1:
            raise UsageError(
                "--smooth adds Gaussian noise for linf, l2 and l1 but moves mass for wasserstein, "
                "which makes two different models: scan wasserstein by itself."
            )

    @property
    def effort_preset(self) -> Effort:
        """The budgets of the chosen effort."""
        return EFFORTS[self.effort]

    def deltas_of(self, metric: str) -> tuple[float, ...]:
        """The budgets of a metric, ascending, in its own unit."""
        if self.deltas is not None:
            return tuple(sorted(set(self.deltas)))
        scale = 1.0 if metric == "wasserstein" else self.high - self.low
        return tuple(delta * scale for delta in DEFAULT_DELTAS[metric])


def _each(found: tuple[str, ...], known: Iterable[str], kind: str) -> None:
    names = list(known)
    for name in found:
        if name not in names:
            raise UsageError(f"Unknown {kind} {name!r}: choose from {', '.join(names)}.")
