"""Independent pieces of work on all cores, each on a single thread.

Work on small tensors gains little from torch's threads inside an operation, and their number
changes the last digits of the results. One piece per thread uses all cores, and each result is the
same bit for bit for any number of cores.
"""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """Yield the result of ``work`` for each item, in order; one item runs per torch thread.

    An error or an interrupt ends the work as soon as the running pieces are finished.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # also in the workers, which start with the last value that was set
    pool = ThreadPoolExecutor(threads)
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
