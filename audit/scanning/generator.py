"""The training of a generator within a scan: what its effort allows."""

from audit.generators.training import TrainConfig
from audit.options import ScanConfig
from audit.scanning.config import effort_of


def within(config: ScanConfig) -> TrainConfig:
    """The training that a scan's effort allows, for its largest image-Wasserstein budget."""
    epochs, samples = effort_of(config).training
    largest = max(config.deltas_of("wasserstein"), default=0.0)
    chosen = largest if config.deltas is not None and "wasserstein" in config.metrics else 0.0
    return TrainConfig(
        radius=chosen or TrainConfig.radius,
        epochs=epochs,
        samples=samples,
        seed=config.seed,
        low=config.low,
        high=config.high,
    )
