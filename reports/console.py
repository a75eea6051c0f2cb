"""Building blocks of the terminal report: styled text, tables without lines, headings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reports.escaping import escape_invisible

STYLES = {
    "GREEN": "bold green",
    "AMBER": "bold yellow",
    "RED": "bold red",
    "pass": "green",
    "ran": "green",
    "warn": "yellow",
    "inconclusive": "yellow",
    "not_applicable": "dim",
    "fail": "bold red",
    "error": "bold red",
    "none": "dim",
    "waived": "dim",
}


def styled(*parts: str | Text | tuple[str, str]) -> Text:
    """Return styled text in which foreign strings can neither format nor move the cursor."""
    text = Text()
    for part in parts:
        if isinstance(part, Text):
            text.append_text(part)
        elif isinstance(part, tuple):
            text.append(escape_invisible(part[0]), style=part[1])
        else:
            text.append(escape_invisible(part))
    return text


def heading(title: str, note: str = "") -> Text:
    """Return a title and, behind it, a note in dim letters."""
    return styled((title, "bold"), (f"   {note}", "dim") if note else "")


def item(line: str | Text) -> Padding:
    """Return an indented line."""
    return Padding(styled(line), (0, 0, 0, 2))


def status_text(status: str) -> Text:
    """Return a status in its colour."""
    return Text(status.replace("_", " "), style=STYLES.get(status, ""))


def columns(*names: str) -> Table:
    """Return an empty table; a name that begins with '>' heads a right-aligned column."""
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1),
        collapse_padding=True,
        header_style="bold",
    )
    for name in names:
        justify: JustifyMethod = "right" if name.startswith(">") else "left"
        table.add_column(name.removeprefix(">"), justify=justify, overflow="fold")
    return table


@dataclass(frozen=True)
class GroupedTable:
    """Table whose rows are grouped below titles that may be as wide as the terminal.

    Attributes:
        names: heads of the columns, as for :func:`columns`.
        groups: rows by title.
    """

    names: Sequence[str]
    groups: Mapping[str, Sequence[Sequence[Text]]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the head, then title and rows of each group, with the same column widths."""
        heads = [cell_len(name.removeprefix(">")) for name in self.names]
        rows = [[cell.cell_len for cell in row] for row in chain(*self.groups.values())]
        widths = [max(column) for column in zip(heads, *rows, strict=True)]
        # A minimum width that does not fit would cut numbers off; without one they wrap.
        if sum(widths) + 2 * len(widths) - 2 > options.max_width:
            widths = [0] * len(widths)
        yield self._part([], widths, show_header=True)
        for place, (title, members) in enumerate(self.groups.items()):
            if place:
                yield Text()
            yield styled((title, "bold"))
            yield self._part(members, widths, show_header=False)

    def _part(
        self, rows: Iterable[Sequence[Text]], widths: Sequence[int], show_header: bool
    ) -> Table:
        table = columns(*self.names)
        table.show_header = show_header
        for column, width in zip(table.columns, widths, strict=True):
            column.min_width = width
        for row in rows:
            table.add_row(*row)
        return table


@dataclass(frozen=True)
class WidthDependent:
    """One of two layouts: ``wide`` on a terminal of at least ``columns``, else ``narrow``."""

    columns: int
    wide: RenderableType
    narrow: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the layout that fits."""
        yield self.wide if options.max_width >= self.columns else self.narrow


def grid(rows: Iterable[tuple[str, Text]]) -> Table:
    """Return two columns without lines: names and values."""
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(style="dim", no_wrap=True, max_width=24)
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(styled(name), value)
    return made


def pairs(title: str, values: dict[str, str]) -> Group:
    """Return names and values below a heading."""
    made = grid((key, styled(value)) for key, value in values.items())
    return Group(heading(title), Padding(made, (0, 0, 0, 2)))
