"""Headings, lines and tables on a terminal, or in a pipe: there without colours, cuts, or the time that rich takes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import click

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Printer", "printer"]


class Printer(Protocol):
    """What a listing is printed with."""

    def heading(self, text: str) -> None:
        """A line that begins a part."""

    def line(self, text: str = "") -> None:
        """One line."""

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = ()) -> None:
        """A line for each of `rows`, below the names of the columns (none where these are empty).

        `styles`: for each row the colour of the cell in the column ``status``.
        """


def printer() -> Printer:
    """The one for where the output goes."""
    # As rich decides it: also where a pipe is said to be as good as a terminal.
    if sys.stdout.isatty() or os.environ.get("FORCE_COLOR"):
        from rich.console import Console

        return _Terminal(Console(highlight=False, markup=False, emoji=False))
    return _Pipe()


class _Pipe:
    """A pipe has no width: every row stays on one line, so that grep and cut see all of it."""

    def heading(self, text: str) -> None:
        self.line(text)

    def line(self, text: str = "") -> None:
        click.echo(text)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = ()) -> None:
        lines = [columns, *rows] if any(columns) else list(rows)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for cells in lines:
            self.line("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


class _Terminal:
    """Colours, and cells folded to the terminal's width."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def heading(self, text: str) -> None:
        self.console.print(text, style="bold")

    def line(self, text: str = "") -> None:
        self.console.print(text)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = ()) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
        for column in columns:
            table.add_column(column, overflow="fold")
        for index, row in enumerate(rows):
            cells: list[Any] = list(row)
            if styles:
                place = list(columns).index("status")
                cells[place] = Text(row[place], styles[index])
            table.add_row(*cells)
        self.console.print(table)
