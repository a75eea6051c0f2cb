"""Handling of Ctrl-C and SIGTERM: both stop long work, which then writes its results so far."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)

GRACE = 5.0
"""Seconds after a request to stop in which further requests are ignored.

`timeout` and some process managers signal a program twice, and people press Ctrl-C again while they
wait; neither must lose the report that is being written. A later request ends the program at once.
"""


@contextmanager
def heard(grace: float = GRACE) -> Iterator[None]:
    """Raise `KeyboardInterrupt` on either signal, once per ``grace`` seconds.

    A signal that is ignored at the start, as set by the parent process, remains ignored.
    """
    last = -grace

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal last
        del number, frame
        now = time.monotonic()
        if now - last >= grace:
            last = now
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
