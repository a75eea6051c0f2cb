"""Methods and threats of hardening, from its options."""

from collections.abc import Mapping

from attackers.geometry import METRICS, Metric
from audit.options import HardenConfig

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


def threats_of(config: HardenConfig) -> tuple[tuple[Metric, float], ...]:
    """Return the metrics with their radii."""
    return tuple(
        (METRICS[name](low=config.low, high=config.high), radius)
        for name, radius in zip(config.metrics, config.radii, strict=True)
    )
