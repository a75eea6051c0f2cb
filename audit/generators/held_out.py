"""Held-out set: samples that training does not see, by which its epochs are compared."""

import numpy as np
from numpy.typing import NDArray

HELD_OUT, LARGEST_HELD_OUT_SHARE = 500, 0.1
"""Number of held-out samples, and the largest share of the data that they may take.

More samples separate epochs better (500 give a standard error of at most 2.2 points) but cost
training data and time after every epoch.
"""


def split_held_out(
    index: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows at random into a held-out set and a training set, both ascending."""
    order = np.random.default_rng(seed).permutation(len(index))
    count = min(HELD_OUT, int(LARGEST_HELD_OUT_SHARE * len(index)))
    return index[np.sort(order[:count])], index[np.sort(order[count:])]
