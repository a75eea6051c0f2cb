"""Independent pieces of work on every core, each on a single thread.

Work on small tensors gains little from torch's threads inside an operation, and what they compute
differs in its last digits with their number. One piece a thread uses all cores, and each result is
the same to the bit however many there are.
"""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """What ``work`` makes of each item, in order; as many at once as torch has threads.

    An error, or an interrupt, ends it as soon as the pieces at hand are done.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of the workers too: they begin with what was set last
    pool = ThreadPoolExecutor(threads)
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
