"""Options of hardening: the adversary, the training, and the weights that are accepted."""

import math
from dataclasses import dataclass
from typing import Literal

from audit.errors import UsageError
from audit.options.option import check_choices, option
from audit.options.scanning import ThreatName
from audit.values import integer, names, number, numbers, word

MethodName = Literal["pgd", "trades", "wagan", "wdro", "mixed"]
"""Names of `audit.hardening.config.HARDENING_METHODS`."""

ScheduleName = Literal["constant", "cosine", "step"]
"""Names of the schedules of the learning rate."""


@dataclass(frozen=True)
class HardenConfig:
    """Options of hardening.

    Attributes:
        method: a name of `audit.hardening.config.HARDENING_METHODS`.
        metrics: threats; several for ``mixed`` only.
        radii: one radius per threat.
        order: order of the adversary of ``wdro``, whose budget is shared within a batch.
        epochs: number of passes over the training data.
        batch: number of images per step.
        rate: peak learning rate of Adam, or None for the method's default.
        schedule: schedule of the learning rate.
        average: decay of the running mean of the weights.
        steps: number of gradient steps of the inner attack.
        beta: weight of the divergence in ``trades``.
        clean: share of the original images in the loss.
        refresh: number of epochs between trainings of a generator.
        min_clean: smallest clean accuracy on the evaluation data of weights that are kept.
        freeze: patterns of weights that are not trained.
        samples: size of a random subset of the training data, or None for all.
        seconds: time limit of training, or None.
        seed: seed of all random numbers.
        low: smallest value of the data.
        high: largest value of the data.
    """

    method: str = option(
        "--with",
        default="pgd",
        read=word,
        choices=MethodName,
        kind="method",
        metavar="METHOD",
        keyword="method",
        help="Adversarial training method.",
    )
    metrics: tuple[str, ...] = option(
        "--threat",
        "-t",
        default=("linf",),
        read=names,
        several=True,
        choices=ThreatName,
        metavar="METRIC",
        help="Metric of the inner attack; several with --with mixed.",
    )
    radii: tuple[float, ...] = option(
        "--radius",
        default=(0.1,),
        read=numbers,
        several=True,
        metavar="R",
        help="Radius of the inner attack, one per threat, also as a fraction such as 8/255.",
    )
    order: float = option(
        "--order",
        default=2.0,
        read=number,
        metavar="P",
        help="Order of the distributional adversary, above 1 or inf (--with wdro only).",
    )
    epochs: int = option(
        "--epochs",
        default=10,
        read=integer,
        metavar="N",
        help="Number of passes over the training data.",
    )
    seconds: float | None = option(
        "--time-budget",
        default=None,
        read=number,
        metavar="SECONDS",
        fallback="no limit",
        help="Time limit of training in seconds.",
    )
    min_clean: float = option(
        "--min-clean",
        default=0.0,
        read=number,
        metavar="X",
        help="Keep only weights whose clean accuracy on EVAL is at least X; exit with 1 if there "
        "are none.",
    )
    rate: float | None = option(
        "--rate",
        default=None,
        read=number,
        metavar="V",
        fallback="0.001",
        help="Peak learning rate of Adam.",
    )
    schedule: str = option(
        "--schedule",
        default="cosine",
        read=word,
        choices=ScheduleName,
        metavar="NAME",
        help="Schedule of the learning rate.",
    )
    steps: int = option(
        "--steps",
        default=8,
        read=integer,
        metavar="N",
        help="Number of gradient steps of the inner attack.",
    )
    beta: float = option(
        "--beta",
        default=6.0,
        read=number,
        metavar="V",
        help="Weight of the divergence in the loss (--with trades only).",
    )
    clean: float = option(
        "--clean",
        default=0.0,
        read=number,
        metavar="V",
        help="Share of the original images in the loss, from 0 to below 1.",
    )
    average: float = option(
        "--average",
        default=0.995,
        read=number,
        metavar="DECAY",
        help="Decay of the running mean of the weights.",
    )
    freeze: tuple[str, ...] = option(
        "--freeze",
        default=(),
        read=names,
        several=True,
        metavar="PATTERN",
        help="Names of weights that are not trained, for example 'conv1.*'.",
    )
    refresh: int = option(
        "--refresh",
        default=1,
        read=integer,
        metavar="N",
        help="Number of epochs between trainings of the generator (--with wagan only).",
    )
    samples: int | None = option(
        "--samples",
        "-n",
        default=None,
        read=integer,
        metavar="N",
        fallback="all",
        help="Size of a random subset of TRAIN.",
    )
    batch: int = option(
        "--batch-size",
        default=128,
        read=integer,
        metavar="N",
        help="Number of images per training step.",
    )
    seed: int = option(
        "--seed",
        default=0,
        read=integer,
        metavar="N",
        help="Seed of the random subset and of all random numbers.",
    )
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        """Validate the options; raise `UsageError` on invalid values."""
        check_choices(self)
        self._check_threats()
        for name in ("epochs", "batch", "steps", "refresh", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                flag = "batch-size" if name == "batch" else name
                raise UsageError(f"--{flag} must be at least 1, found {value}.")
        for name in ("rate", "beta", "seconds"):
            value = getattr(self, name)
            flag = "time-budget" if name == "seconds" else name
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"--{flag} must be positive and finite, found {value:g}.")
        for name in ("average", "clean", "min_clean"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} must be at least 0 and below 1, found {value:g}.")
        if not self.order > 1:
            raise UsageError(f"--order of wdro must be above 1, found {self.order:g}.")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed must be between 0 and 2**63 - 1, found {self.seed}.")

    def _check_threats(self) -> None:
        """Raise `UsageError` if threats, radii and method do not fit together."""
        if len(self.radii) != len(self.metrics):
            raise UsageError(
                f"{len(self.metrics)} threats and {len(self.radii)} radii were given: --radius "
                "takes one number per --threat, in the same order."
            )
        if len(self.metrics) > 1 and self.method != "mixed":
            raise UsageError(f"--with {self.method} takes one threat: several need --with mixed.")
        if self.method == "wagan" and self.metrics != ("wasserstein",):
            raise UsageError("--with wagan moves mass: it takes --threat wasserstein.")
        for radius in self.radii:
            if not 0 < radius < math.inf:
                raise UsageError(f"--radius must be positive and finite, found {radius:g}.")
