"""The samples that an inspection uses: a part of the data, or random samples without data."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit.data import Dataset
from audit.evidence.chance import TRIAL_SAMPLES
from audit.evidence.samples import choose, read_samples
from audit.models import LoadOptions


def trial_rows(dataset: Dataset) -> NDArray[np.int64]:
    """Draw the rows of the samples with a fixed seed."""
    return choose(len(dataset), TRIAL_SAMPLES, 0)


def trial_labels(dataset: Dataset) -> Tensor:
    """Return the labels of the samples."""
    return torch.from_numpy(dataset.labels[trial_rows(dataset)].copy())


def trial_samples(
    dataset: Dataset | None, shape: tuple[int | None, ...], options: LoadOptions
) -> Tensor | None:
    """Return samples of the data, or uniform random samples if the model's input shape is known.

    Returns:
        (n, ...) float32 in [low, high]; None without data and with an unknown shape.
    """
    if dataset is not None:
        return read_samples(dataset, trial_rows(dataset))
    sizes = [size for size in shape[1:] if size is not None]
    if not sizes or len(sizes) != len(shape) - 1:
        return None
    if len(sizes) == 3 and sizes[2] in (1, 3) and sizes[0] not in (1, 3):
        sizes = [sizes[2], *sizes[:2]]  # samples are (C, H, W), also for a channels-last model
    x = torch.rand(8, *sizes, generator=torch.Generator().manual_seed(0))
    return options.low + x * (options.high - options.low)
