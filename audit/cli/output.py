"""What every command does with files and streams: read a report, print, write files whole."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from audit.cli import console
from audit.cli.arguments import (
    Outputs,
)
from audit.errors import Interrupted, UsageError
from audit.runtime.atomic_files import replacing

if TYPE_CHECKING:
    from audit.comparison import Radii
    from audit.schema import Report


@contextmanager
def interruptible(stage: str) -> Iterator[None]:
    """Turn Ctrl-C into a sentence; the command framework would exit without a word."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted {stage}.") from None


FOR_PROGRAMS = ("html", "json", "junit", "sarif")
"""Formats that are UTF-8 on stdout too, whatever the console's encoding."""


def print_text(text: str, format: str = "text") -> None:
    """Write to stdout; a reader that has gone (``audit … | head``) changes no exit code."""
    try:
        console.write(text, utf8=format in FOR_PROGRAMS)
    except BrokenPipeError:
        # What is still buffered must not fail once more when the interpreter flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def read_report(file: Path) -> "Report":
    """Read a saved report; raises `UsageError`."""
    from reports.parsing import parse_report

    try:
        return parse_report(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(
            f"{file} cannot be read as a report ({reason}): name a report.json."
        ) from error


def read_baseline(file: Path) -> "tuple[Report, Radii]":
    """A report and the radii of its samples, which lie beside it."""
    from audit.comparison import read_radii

    found = read_report(file)
    return found, read_radii(found, file.parent)


def write_others(report: "Report", outputs: Outputs) -> None:
    """Write the formats that were asked for, and the summary of a GitHub job where there is one."""
    from reports import RENDERERS

    for name, path in outputs.asked:
        write_text(path, RENDERERS[name](report))
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        try:
            with open(summary, "a", encoding="utf-8") as file:
                file.write(RENDERERS["markdown"](report))
        except OSError as error:
            raise UsageError(
                f"GITHUB_STEP_SUMMARY names {summary}, which cannot be written ({error.strerror})."
            ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, with the line ends of Unix."""
    with written(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A temporary name that becomes ``path``; a file that cannot be written is a usage error."""
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror}): choose another --out."
        ) from error


def log_to_stderr(verbose: bool) -> None:
    """Write the tracebacks of what stopped on an error to stderr, where that is asked for."""
    if verbose:
        log = logging.getLogger("audit")
        log.setLevel(logging.DEBUG)
        log.addHandler(logging.StreamHandler())
