"""Options of a scan: threats, orders, budgets, attacks, certificates, samples."""

import math
from dataclasses import dataclass
from typing import Literal

from audit.errors import UsageError
from audit.options.option import check_choices, option
from audit.values import count, distinct_numbers, integer, names, number, numbers, word

ThreatName = Literal["linf", "l2", "l1", "wasserstein"]
"""Names of `attackers.geometry.METRICS`."""

AttackName = Literal[
    "fgsm",
    "pgd",
    "apgd",
    "transport",
    "square",
    "random",
    "minimal",
    "hopskipjump",
    "w-pgd",
    "wagan",
]
"""Names of the registry of attacks."""

EffortName = Literal["quick", "standard", "max"]
"""Names of `audit.scanning.effort.EFFORTS`."""

CertificateName = Literal["auto", "simplex", "crown", "crown-ibp", "none"]
"""Certificates; ``auto`` selects the tightest that the effort allows."""

DEFAULT_DELTAS: dict[str, tuple[float, ...]] = {
    "linf": (1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255, 0.1, 0.2, 0.3),
    "l2": (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0),
    "l1": (1.0, 2.0, 5.0, 10.0, 20.0, 40.0),
    "wasserstein": (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5),
}
"""Budgets per metric for the box [0, 1]; all but those of wasserstein are scaled with the box."""


@dataclass(frozen=True)
class ScanConfig:
    """Options of a scan.

    Attributes:
        metrics: names of `attackers.geometry.METRICS`.
        orders: p >= 1 or ``inf``, used for all metrics.
        deltas: budgets for all metrics, or None for a grid per metric.
        attacks: names of registered attacks, or None for the strongest that apply.
        effort: a name of `audit.scanning.effort.EFFORTS`.
        certify: a `CertificateName`.
        smooth: standard deviation of the noise under which the model is audited, or None for the
            model without noise.
        samples: size of the random subset, or None for all.
        seed: seed of the subset and of every random number.
        confidence: confidence level of all intervals.
        batch_size: number of samples attacked together, or None for automatic; on the CPU it never
            changes a result.
        low: smallest value of the data.
        high: largest value of the data.
    """

    metrics: tuple[str, ...] = option(
        "--threat",
        "-t",
        default=("linf", "l2"),
        read=names,
        several=True,
        choices=ThreatName,
        metavar="METRIC",
        help="Metrics in which the adversary moves the inputs.",
    )
    orders: tuple[float, ...] = option(
        "--order",
        default=(math.inf, 2.0, 1.0),
        read=distinct_numbers,
        several=True,
        metavar="P",
        help="Orders of the distributional adversary: inf gives every sample the whole budget, a "
        "finite p >= 1 shares the budget between samples.",
    )
    deltas: tuple[float, ...] | None = option(
        "--delta",
        "-d",
        default=None,
        read=numbers,
        several=True,
        metavar="D",
        fallback="a grid per metric",
        help="Budgets, also as fractions such as 8/255.",
    )
    attacks: tuple[str, ...] | None = option(
        "--attack",
        default=None,
        read=names,
        several=True,
        choices=AttackName,
        metavar="NAME",
        fallback="the strongest that apply",
        help="Attacks to run. square, random and hopskipjump need no gradients.",
    )
    effort: str = option(
        "--effort",
        default="standard",
        read=word,
        choices=EffortName,
        metavar="LEVEL",
        help="Effort of the attacks; the report states their budgets.",
    )
    certify: str = option(
        "--certify",
        default="auto",
        read=word,
        choices=CertificateName,
        kind="certificate",
        metavar="METHOD",
        help="Method that certifies the accuracy that no attack can reduce.",
    )
    smooth: float | None = option(
        "--smooth",
        default=None,
        read=number,
        metavar="SIGMA",
        fallback="the model without noise",
        help="Audit the model smoothed by noise of this standard deviation: Gaussian noise, or for "
        "wasserstein random flows of mass.",
    )
    samples: int | None = option(
        "--samples",
        "-n",
        default=None,
        read=integer,
        metavar="N",
        fallback="all",
        help="Size of a random subset of the data.",
    )
    seed: int = option(
        "--seed",
        default=0,
        read=integer,
        metavar="N",
        help="Seed of the random subset and of all random numbers.",
    )
    confidence: float = option(
        "--confidence",
        default=0.95,
        read=number,
        metavar="C",
        help="Confidence level of all intervals.",
    )
    batch_size: int | None = option(
        "--batch-size",
        default=None,
        read=count,
        metavar="N",
        fallback="auto",
        help="Number of samples attacked together; on the CPU it never changes a result.",
    )
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        """Validate the options; raise `UsageError` on invalid values."""
        # A program may add an attack to the registry.
        check_choices(self, open=("attacks",))
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
                f"--certify {self.certify} applies to the model without noise, but --smooth audits "
                "the smoothed model: leave one of them out."
            )
        if "wasserstein" in self.metrics and len(set(self.metrics)) > 1:
            raise UsageError(
                "--smooth adds Gaussian noise for linf, l2 and l1 but moves mass for wasserstein, "
                "which makes two different models: scan wasserstein alone."
            )

    def deltas_of(self, metric: str) -> tuple[float, ...]:
        """Return the budgets of a metric, ascending, in its unit."""
        if self.deltas is not None:
            return tuple(sorted(set(self.deltas)))
        scale = 1.0 if metric == "wasserstein" else self.high - self.low
        return tuple(delta * scale for delta in DEFAULT_DELTAS[metric])
