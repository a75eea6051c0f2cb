"""Reuse of freed memory, instead of returning it to the system after every tensor.

Above 128 KiB the C library maps new pages for each allocation and unmaps them afterwards, and an
attack allocates tensors of that size thousands of times per second: most of the time is spent on
page faults. Measured on a LeNet: a fifth less processor time for a whole scan, at 7 % more memory.
"""

import ctypes
import sys

# Parameters of mallopt, from glibc's malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3


def keep_freed_pages() -> bool:
    """Configure glibc's allocator to reuse large blocks; return False for another C library."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {MMAP_THRESHOLD: 1 << 30, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 64 << 20}
    return all(mallopt(name, value) == 1 for name, value in settings.items())
