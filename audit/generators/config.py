"""Options of the training of a generator."""

import math
from dataclasses import dataclass

from attackers.wagan.networks import HEADS
from attackers.wagan.objective import VARIANTS, Objective, as_published
from audit.errors import UsageError
from audit.generators.epochs import BATCH


@dataclass(frozen=True)
class TrainConfig:
    """Options of the training of a generator; the defaults are those of the command line.

    Attributes:
        variant: a name of `attackers.wagan.objective.VARIANTS`.
        head: a name of `attackers.wagan.networks.HEADS`; None for the head that fits the variant.
        radius: largest radius that the generator is trained for, in pixels × fraction of mass.
        epochs: number of passes over the data.
        batch: images per step.
        samples: size of a random subset, or None for all samples.
        seed: seed of subset, order, noise and initial weights.
        paper: whether to use the published constants, literally.
        average: decay of a running mean of the weights, or None to keep the last weights.
        low, high: range of the input values.
    """

    variant: str = "wagan"
    head: str | None = None
    radius: float = 0.3
    epochs: int = 60
    batch: int = BATCH
    samples: int | None = None
    seed: int = 0
    paper: bool = False
    average: float | None = None
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        """Validate the options; raises `UsageError`."""
        if self.variant not in VARIANTS:
            known = ", ".join(VARIANTS)
            raise UsageError(f"Unknown variant {self.variant!r}: choose from {known}.")
        if self.head is not None and self.head not in HEADS:
            raise UsageError(f"Unknown head {self.head!r}: choose from {', '.join(HEADS)}.")
        if not 0 < self.radius < math.inf:
            raise UsageError(f"--radius must be positive and finite, found {self.radius:g}.")
        for name in ("epochs", "batch", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                option = "batch-size" if name == "batch" else name
                raise UsageError(f"--{option} must be at least 1, found {value}.")
        if self.average is not None and not 0 < self.average < 1:
            raise UsageError(f"--average must lie between 0 and 1, found {self.average:g}.")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed must be between 0 and 2**63 - 1, found {self.seed}.")
        if self.paper and self.head == "flow":
            raise UsageError(
                "--paper trains the published generator, which has the head image: remove --head."
            )

    @property
    def chosen_head(self) -> str:
        """Head of the generator: the requested one, else the default of the variant."""
        if self.head is not None:
            return self.head
        return "image" if self.paper or self.variant == "advgan" else "flow"

    @property
    def objective(self) -> Objective:
        """Training objective of the variant."""
        return as_published(self.variant) if self.paper else VARIANTS[self.variant]
