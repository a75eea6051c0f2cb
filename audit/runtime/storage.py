"""Storage for all samples: in memory, or in an unnamed temporary file if they are large."""

import math
import tempfile

import numpy as np
import torch
from torch import Tensor

IN_MEMORY = 2**30
"""Number of bytes up to which samples are kept in memory."""

BLOCK = 512
"""Number of rows that are copied at a time."""


def allocate(shape: tuple[int, ...]) -> Tensor:
    """Return a float32 tensor of zeros; a large one is mapped to a file that is deleted with it."""
    if 4 * math.prod(shape) <= IN_MEMORY:
        return torch.zeros(shape)
    # The mapping keeps the file open; as it has no name, it is always deleted with the process.
    with tempfile.TemporaryFile(prefix="audit-") as file:
        return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="w+", shape=shape))


def copy(x: Tensor) -> Tensor:
    """Copy a tensor block by block, so that a mapped tensor need not fit into memory."""
    out = allocate(tuple(x.shape))
    for start in range(0, len(x), BLOCK):
        out[start : start + BLOCK] = x[start : start + BLOCK]
    return out
