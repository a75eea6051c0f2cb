"""Tables of benchmark results as Markdown, and the command line that all benches share."""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Folder of the models and the data, next to the project."""


@dataclass
class Table:
    """A table that grows row by row, with an optional paragraph as its title."""

    columns: tuple[str, ...]
    title: str = ""
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells: object, show: bool = True) -> None:
        """Append a row; with ``show``, also print it to stderr as progress."""
        row = tuple(map(str, cells))
        if len(row) != len(self.columns):
            raise ValueError(f"a row of {len(row)} cells in a table of {len(self.columns)} columns")
        self.rows.append(row)
        if show:
            report_progress(" | ".join(row))

    def extend(self, rows: Iterable[Iterable[object]]) -> "Table":
        """Append rows silently and return the table."""
        for row in rows:
            self.add(*row, show=False)
        return self

    def __str__(self) -> str:
        """Return the title and the table as Markdown."""
        lines = [self.title, ""] if self.title else []
        lines += [_markdown_row(self.columns), "|" + "---|" * len(self.columns)]
        return "\n".join([*lines, *map(_markdown_row, self.rows)])


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def bench_parser(description: str | None, *, shared: bool = True) -> argparse.ArgumentParser:
    """Return the parser of a bench, with ``--out`` and, if ``shared``, ``--shared``.

    Args:
        description: docstring of the bench; its first paragraph becomes the help.
        shared: whether the bench reads the shared models and data.
    """
    first = (description or "").partition("\n\n")[0]
    parser = argparse.ArgumentParser(description=first)
    if shared:
        parser.add_argument(
            "--shared", type=Path, default=SHARED, help="folder of the models and the data"
        )
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    return parser


def publish(out: Path | None, *blocks: "str | Table") -> None:
    """Print paragraphs and tables, and write them to a file if one is named."""
    text = "\n\n".join(str(block).strip("\n") for block in blocks if str(block)) + "\n"
    print(text)
    if out is not None:
        out.write_text(text, encoding="utf-8")


def report_progress(text: str) -> None:
    """Print one line to stderr, at once."""
    print(text, file=sys.stderr, flush=True)


def torch_setup() -> str:
    """Return the version of torch and its number of threads."""
    import torch

    threads = torch.get_num_threads()
    return f"torch {torch.__version__}, {threads} thread{'' if threads == 1 else 's'}"
