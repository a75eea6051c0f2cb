"""Progress on stderr: a bar with an estimate of the time left, only when a person is looking."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from audit.runtime.progress import Progress, silent


def bar(quiet: bool) -> Progress:
    """Return the progress display of a terminal, or the silent one."""
    if quiet or not sys.stderr.isatty():
        return silent
    return _bar


@contextmanager
def _bar(stage: str, total: int) -> Iterator[Callable[[int], None]]:
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
