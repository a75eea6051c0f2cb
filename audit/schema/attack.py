"""Attacks, trained generators and certifiers of a scan, and their costs."""

from typing import Literal

from audit.schema.base import Interval, Record

RunStatus = Literal["ran", "not_applicable", "error"]


class AttackBudget(Record):
    """Largest cost that an attack may have, for each unit that ``per`` names."""

    gradients: int | None = None
    forwards: int | None = None
    per: Literal["sample", "sample and budget"]


class Attack(Record):
    """One attack on one metric, and its cost in passes of a single sample.

    ``broken`` counts the samples with a confirmed adversarial example of this attack at any radius;
    ``budget`` is the cost that the effort preset allows.
    """

    name: str
    status: RunStatus
    detail: str
    broken: int | None
    forwards: int | None
    gradients: int | None
    seconds: float | None
    budget: AttackBudget | None = None


class Spread(Record):
    """Smallest, mean and largest of a number over samples; null where one is not finite."""

    smallest: float | None
    mean: float | None
    largest: float | None


class AsGenerated(Record):
    """Accuracy on a generator's images and their distances, before the judge and the radius.

    ``accuracy`` counts all samples. ``wasserstein`` is exact, on ``planned`` samples, after the
    mass of every channel was restored, because the distance requires equal mass; ``mass_ratio`` is
    the mass before that, relative to the original.
    """

    samples: int
    accuracy: Interval
    planned: int
    wasserstein: Spread
    l2: Spread
    linf: Spread
    mass_ratio: Spread


class GeneratorUsed(Record):
    """Trained generator of the attack ``wagan``; ``transfer`` means trained for another model."""

    path: str
    sha256: str
    head: str
    variant: str
    radius: float
    transfer: bool
    as_generated: AsGenerated


class Certifier(Record):
    """Method that computed the certified radii; ``failure_probability`` is per sample."""

    name: str
    status: RunStatus
    detail: str
    seconds: float | None
    failure_probability: float
