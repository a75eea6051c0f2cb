"""Far points of the box (anchors), for samples whose gradients vanish.

Where a model is flat (saturated units, a step function) gradients lead nowhere, yet its decision
changes somewhere in the box. These points depend on the sample alone, never on other samples, so
that radii stay a rule applied to each sample.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from attackers.geometry import Metric
from attackers.random_streams import SampleGenerator


def anchors(
    metric: Metric, x0: Tensor, generator: SampleGenerator, *, random: int = 4
) -> Iterator[Tensor]:
    """Yield points of the box, each a batch of the shape of ``x0``.

    The negative, the mirror images, constant inputs of three levels, uniform noise and noise of
    extreme values.

    Args:
        metric: geometry, whose box is used.
        x0: (B, ...) samples.
        generator: random streams of the noise.
        random: number of points of each kind of noise.
    """
    low, high = metric.low, metric.high
    yield low + high - x0
    for axis in range(2, x0.dim()):
        yield x0.flip(axis)
    for level in (0.0, 0.5, 1.0):
        yield torch.full_like(x0, low + level * (high - low))
    for draw in range(random):
        uniform = generator.fold(f"anchor {draw}").uniform(x0)
        yield metric.clamp(low + uniform * (high - low))
        yield torch.where(uniform < 0.5, low, high).to(x0)
