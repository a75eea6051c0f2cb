"""What every command does with files and streams: print, write further formats, show a report."""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from audit.cli import console
from audit.cli.parameters import Outputs
from audit.errors import UsageError
from audit.runtime.atomic_files import write_text

if TYPE_CHECKING:
    from audit.api.report import Report

FOR_PROGRAMS = ("html", "json", "junit", "sarif")
"""Formats that are UTF-8 on stdout too, whatever the console's encoding."""

LOG = logging.getLogger("audit")


def print_text(text: str, format: str = "text") -> None:
    """Write to stdout; a reader that has gone (``audit … | head``) changes no exit code."""
    try:
        console.write(text, utf8=format in FOR_PROGRAMS)
    except BrokenPipeError:
        # What is still buffered must not fail once more when the interpreter flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_or_write(text: str, out: Path | None, format: str) -> None:
    """Write to a file, or to stdout where none is named."""
    if out is None:
        print_text(text, format)
    else:
        write_text(out, text)


def write_others(report: "Report", outputs: Outputs) -> None:
    """Write further formats, and the summary of a GitHub job where there is one."""
    for name, path in outputs.asked:
        write_text(path, report.render(name))
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        try:
            with open(summary, "a", encoding="utf-8") as file:
                file.write(report.markdown())
        except OSError as error:
            raise UsageError(
                f"GITHUB_STEP_SUMMARY names {summary}, which cannot be written ({error.strerror})."
            ) from error


def show(report: "Report", out: Path, *, quiet: bool, verbose: bool) -> None:
    """Print the report, or only its verdict under ``--quiet``."""
    if quiet:
        gates = f"verdict {report.verdict}" if report.record.gates else "no gates were set"
        print_text(f"{gates}, reliability {report.reliability}, report in {out}\n")
        return
    from rich.console import Console

    from reports import terminal

    screen = Console()
    text = terminal.render(
        report.record,
        width=min(screen.width, 120) if screen.is_terminal else 100,
        # Without colour there is no bold or dim either: NO_COLOR is set for plain text.
        color=screen.is_terminal and screen.color_system is not None and not screen.no_color,
        full=verbose,
    )
    print_text(f"{text}Report: {out / 'report.html'}, {out / 'report.json'}\n")


def log_to_stderr(verbose: bool) -> None:
    """Log what stopped on an error, with tracebacks, to stderr."""
    if verbose and not debugging():
        LOG.setLevel(logging.DEBUG)
        LOG.addHandler(logging.StreamHandler())


def debugging() -> bool:
    """Return whether ``--verbose`` was given."""
    return LOG.getEffectiveLevel() <= logging.DEBUG


def stop_logging() -> None:
    """Forget ``--verbose``: a process may run several commands."""
    LOG.setLevel(logging.NOTSET)
    for handler in list(LOG.handlers):
        LOG.removeHandler(handler)
