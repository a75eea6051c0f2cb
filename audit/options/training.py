"""Options of the training of a generator."""

import math
from dataclasses import dataclass
from typing import Literal

from audit.errors import UsageError
from audit.options.option import check_choices, option
from audit.values import integer, number, switch, word

VariantName = Literal["advgan", "wagan", "wagan-beta-minus", "wagan-beta-plus"]
"""Names of `attackers.wagan.objective.VARIANTS`."""

HeadName = Literal["image", "flow"]
"""Names of `attackers.wagan.networks.HEADS`."""


@dataclass(frozen=True)
class TrainConfig:
    """Options of the training of a generator.

    Attributes:
        variant: a name of `attackers.wagan.objective.VARIANTS`.
        head: a name of `attackers.wagan.networks.HEADS`; None for the head that fits the variant.
        radius: largest radius of training, in pixels × fraction of mass.
        epochs: number of passes over the data.
        batch: number of images per step.
        samples: size of a random subset, or None for all.
        seed: seed of subset, order, noise and weights.
        paper: whether to use the published constants literally.
        average: decay of a running mean of the weights, or None to use the last weights.
        low: smallest value of the data.
        high: largest value of the data.
    """

    variant: str = option(
        "--variant",
        default="wagan",
        read=word,
        choices=VariantName,
        metavar="NAME",
        help="Objective that the generator is trained with.",
    )
    head: str | None = option(
        "--head",
        default=None,
        read=word,
        choices=HeadName,
        metavar="NAME",
        fallback="flow; image for advgan and --paper",
        help="Output of the generator: flow moves mass within any radius, image adds a "
        "perturbation as published.",
    )
    radius: float = option(
        "--radius",
        default=0.3,
        read=number,
        metavar="R",
        help="Largest radius of training, in pixels × fraction of the image's mass.",
    )
    epochs: int = option(
        "--epochs", default=60, read=integer, metavar="N", help="Number of passes over the data."
    )
    batch: int = option(
        "--batch-size",
        default=128,
        read=integer,
        metavar="N",
        help="Number of images per training step.",
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
    paper: bool = option(
        "--paper", default=False, read=switch, help="Use the published constants literally."
    )
    average: float | None = option(
        "--average",
        default=None,
        read=number,
        metavar="DECAY",
        fallback="the last weights",
        help="Keep a running mean of the weights with this decay, for example 0.999.",
    )
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        """Validate the options; raise `UsageError` on invalid values."""
        check_choices(self)
        if not 0 < self.radius < math.inf:
            raise UsageError(f"--radius must be positive and finite, found {self.radius:g}.")
        for name in ("epochs", "batch", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                flag = "batch-size" if name == "batch" else name
                raise UsageError(f"--{flag} must be at least 1, found {value}.")
        if self.average is not None and not 0 < self.average < 1:
            raise UsageError(f"--average must lie between 0 and 1, found {self.average:g}.")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed must be between 0 and 2**63 - 1, found {self.seed}.")
        if self.paper and self.head == "flow":
            raise UsageError(
                "--paper trains the published generator, whose head is image: leave --head out."
            )

    @property
    def chosen_head(self) -> str:
        """Head that was given, else the published head for advgan and --paper, else flow."""
        if self.head is not None:
            return self.head
        return "image" if self.paper or self.variant == "advgan" else "flow"
