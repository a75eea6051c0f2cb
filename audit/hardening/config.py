"""Options of hardening."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from attackers.geometry import METRICS, Metric
from audit.errors import UsageError
from audit.generators.epochs import BATCH
from audit.hardening.adversaries import BETA
from audit.hardening.schedules import SCHEDULES

HARDENING_METHODS: Mapping[str, str] = {
    "pgd": "adversarial training (Madry et al. 2018)",
    "trades": "TRADES (Zhang et al. 2019)",
    "wagan": "examples of a generator (Goel, Shah, Suresh)",
    "wdro": "distributional adversarial training (after Bai et al. 2023)",
    "mixed": "several threats in equal shares",
}
"""Methods by the name that ``--with`` takes, with their description."""

PEAK_LEARNING_RATE = 1e-3
"""Default peak learning rate of every method; it is Adam's default."""

INNER_STEPS = 8
"""Default number of gradients of the inner attack.

More gradients make the attack stronger and a training step slower in proportion.
"""


@dataclass(frozen=True)
class HardenConfig:
    """Options of hardening; the defaults are those of the command line.

    Attributes:
        method: a name of `HARDENING_METHODS`.
        metrics: threats; more than one for ``mixed`` only.
        radii: one radius per threat.
        order: order of the distributional adversary (``wdro`` only); the samples of a batch share
            one budget.
        epochs: number of passes over the training data.
        batch: images per step.
        rate: peak learning rate of Adam, or None for `PEAK_LEARNING_RATE`.
        schedule: a name of `audit.hardening.schedules.SCHEDULES`.
        average: decay of the running mean of the weights, which is evaluated and kept.
        steps: gradients of the inner attack.
        beta: weight of the divergence (``trades`` only).
        clean: weight of the loss on unperturbed images; the rest is that on attacked images.
        refresh: epochs between two trainings of the generator (``wagan`` only).
        min_clean: smallest clean accuracy on the evaluation data of weights that may be kept.
        freeze: patterns of names of weights that are not trained.
        samples: size of a random subset of the training data, or None for all samples.
        seconds: time limit for training, or None.
        seed: seed of all random numbers.
        low, high: range of the input values.
    """

    method: str = "pgd"
    metrics: tuple[str, ...] = ("linf",)
    radii: tuple[float, ...] = (0.1,)
    order: float = 2.0
    epochs: int = 10
    batch: int = BATCH
    rate: float | None = None
    schedule: str = "cosine"
    average: float = 0.995
    steps: int = INNER_STEPS
    beta: float = BETA
    clean: float = 0.0
    refresh: int = 1
    min_clean: float = 0.0
    freeze: tuple[str, ...] = ()
    samples: int | None = None
    seconds: float | None = None
    seed: int = 0
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        """Validate the options; raises `UsageError`."""
        self._check_names()
        self._check_threats()
        self._check_numbers()

    def _check_names(self) -> None:
        for kind, found, known in (
            ("method", (self.method,), HARDENING_METHODS),
            ("threat", self.metrics, METRICS),
            ("schedule", (self.schedule,), SCHEDULES),
        ):
            for value in found:
                if value not in known:
                    raise UsageError(f"Unknown {kind} {value!r}: choose from {', '.join(known)}.")

    def _check_threats(self) -> None:
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

    def _check_numbers(self) -> None:
        for name in ("epochs", "batch", "steps", "refresh", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{_flag_of(name)} must be at least 1, found {value}.")
        for name in ("rate", "beta", "seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{_flag_of(name)} must be positive and finite, found {value:g}.")
        for name in ("average", "clean", "min_clean"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise UsageError(
                    f"{_flag_of(name)} must be at least 0 and below 1, found {value:g}."
                )
        if not self.order > 1:
            raise UsageError(f"--order of wdro must be above 1, found {self.order:g}.")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed must be between 0 and 2**63 - 1, found {self.seed}.")

    @property
    def threats(self) -> tuple[tuple[Metric, float], ...]:
        """Metrics with their radii."""
        return tuple(
            (METRICS[name](low=self.low, high=self.high), radius)
            for name, radius in zip(self.metrics, self.radii, strict=True)
        )


def _flag_of(name: str) -> str:
    """Return the option of the command line that sets a field."""
    renamed = {"batch": "batch-size", "seconds": "time-budget"}
    return "--" + renamed.get(name, name.replace("_", "-"))
