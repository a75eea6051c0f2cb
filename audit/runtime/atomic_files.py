"""Atomic writing of files."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from audit.errors import UsageError


def check_writable(out: Path) -> None:
    """Check, before any work, that a report can be written to the folder.

    Raises:
        UsageError: the folder cannot be written to.
    """
    existing = out
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UsageError(f"--out {out}: {existing} is not a folder; name a folder for the report.")
    try:
        # Permission bits are not sufficient, as they do not show read-only mounts: write a file.
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UsageError(
            f"--out {out} cannot be written ({error.strerror}): choose a folder that you can write."
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name next to ``path``; it is renamed to ``path`` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Write an output file atomically, as `replacing` does.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror}): choose another --out."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8 and with Unix line ends; raises `UsageError`."""
    with written(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
