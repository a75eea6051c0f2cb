"""Training objective of a generator, derived from the options of training."""

from attackers.wagan.objective import VARIANTS, Objective, as_published
from audit.options import TrainConfig


def objective_of(config: TrainConfig) -> Objective:
    """Return the training objective of the variant."""
    return as_published(config.variant) if config.paper else VARIANTS[config.variant]
