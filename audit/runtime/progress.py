"""How long work says how far it is: the protocol, and the display that shows nothing."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """Shows long work; the CLI's draws a bar, the default nothing."""

    def __call__(self, stage: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Open a stage of ``total`` samples; the result is called with how many were done."""


@contextmanager
def silent(stage: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show nothing."""
    del stage, total
    yield lambda _: None
