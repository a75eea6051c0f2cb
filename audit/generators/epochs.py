"""Order of the samples in an epoch, keyed by seed and epoch so that runs can be resumed."""

from collections.abc import Iterator

import torch
from torch import Tensor

BATCH = 128
"""Default number of images per training step."""

SEED_STRIDE = 1_000_003
"""Prime that separates the random streams of neighbouring seeds for the first million steps."""


def steps_per_epoch(samples: int, batch: int) -> int:
    """Return the number of full batches; the remaining samples are drawn in other epochs."""
    return max(1, samples // batch)


def remaining_batches(
    samples: int, batch: int, *, seed: int, epoch: int, done: int
) -> Iterator[Tensor]:
    """Yield the rows of each batch of an epoch after the first ``done`` ones."""
    order = torch.randperm(samples, generator=keyed_stream(seed, epoch))
    size = min(batch, samples)
    for number in range(done, steps_per_epoch(samples, batch)):
        yield order[number * size : (number + 1) * size]


def keyed_stream(seed: int, number: int) -> torch.Generator:
    """Return the random stream of a step or an epoch on the CPU."""
    return torch.Generator().manual_seed((seed * SEED_STRIDE + number) % 2**63)
