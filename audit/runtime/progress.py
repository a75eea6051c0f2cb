"""Progress of long work: the protocol of a display, a bar, and a display that shows nothing."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """A display of the progress of long work."""

    def __call__(self, stage: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Open a stage of ``total`` samples; call the result with each number of finished ones."""


@contextmanager
def silent(stage: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show nothing."""
    del stage, total
    yield lambda _: None


def shown(progress: bool | Progress) -> Progress:
    """Return the given display, a bar, or the silent display.

    Args:
        progress: a display; True for a bar in a terminal or a notebook; False for no display.
    """
    if not isinstance(progress, bool):
        return progress
    return bar if progress and (sys.stderr.isatty() or in_notebook()) else silent


def in_notebook() -> bool:
    """Return whether the program runs in a Jupyter notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


@contextmanager
def bar(stage: str, total: int) -> Iterator[Callable[[int], None]]:
    """Draw a bar with the elapsed time and an estimate of the time left, on stderr."""
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description:<24}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task(stage, total=total)
        yield lambda done: display.advance(task, done)
