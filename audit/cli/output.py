"""Output of the commands: printing, further formats, and the report on the terminal."""

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
"""Formats that are UTF-8 on stdout regardless of the console's encoding."""

PROGRAM_LOG = logging.getLogger("audit")


def print_text(text: str, format: str = "text") -> None:
    """Write to stdout; a closed pipe (``audit … | head``) does not change the exit code."""
    try:
        console.write(text, utf8=format in FOR_PROGRAMS)
    except BrokenPipeError:
        # Buffered text must not fail again when the interpreter flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_or_write(text: str, out: Path | None, format: str) -> None:
    """Write to a file, or to stdout if no file is named."""
    if out is None:
        print_text(text, format)
    else:
        write_text(out, text)


def write_others(report: "Report", outputs: Outputs) -> None:
    """Write further formats, and the summary of a GitHub job if it runs in one."""
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
        # Without colour, bold and dim are off too: users set NO_COLOR to get plain text.
        color=screen.is_terminal and screen.color_system is not None and not screen.no_color,
        full=verbose,
    )
    print_text(f"{text}Report: {out / 'report.html'}, {out / 'report.json'}\n")


def log_to_stderr(verbose: bool) -> None:
    """Log errors with their tracebacks to stderr, if ``verbose`` is set."""
    if verbose and not debugging():
        PROGRAM_LOG.setLevel(logging.DEBUG)
        PROGRAM_LOG.addHandler(logging.StreamHandler())


def debugging() -> bool:
    """Return whether ``--verbose`` was given."""
    return PROGRAM_LOG.getEffectiveLevel() <= logging.DEBUG


def stop_logging() -> None:
    """Reset ``--verbose``, since a process may run several commands."""
    PROGRAM_LOG.setLevel(logging.NOTSET)
    for handler in list(PROGRAM_LOG.handlers):
        PROGRAM_LOG.removeHandler(handler)
