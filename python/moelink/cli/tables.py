"""Tables for people: rich on a terminal, aligned plain text everywhere else."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

_COMFORTABLE_WIDTH = 96  # from here on two blanks separate the columns, below it one


@dataclass(frozen=True)
class Column:
    title: str
    numeric: bool = False  # right-aligned
    wraps: bool = False  # takes the width that the others leave; at most one column


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    # Words that a terminal colours, such as {"yes": "green", "NO": "bold red"}.
    styles: dict[str, str] | None = None


def terminal_width(stream: TextIO) -> int:
    """Columns of the terminal behind the stream; 100 when it is a file or a pipe."""
    fallback = (100, 24)
    return shutil.get_terminal_size(fallback).columns if stream.isatty() else fallback[0]


def print_table(table: Table, stream: TextIO | None = None) -> None:
    stream = stream or sys.stdout
    if stream.isatty() and _print_rich(table, stream):
        return
    stream.write(format_plain(table, terminal_width(stream)) + "\n")


def format_plain(table: Table, width: int) -> str:
    """The table as text that is at most `width` wide where its wrapping column allows that."""
    gap = " " * _gap_width(width)
    widths = [
        max(len(line) for cell in (column.title, *cells) for line in cell.split("\n"))
        for column, cells in zip(table.columns, _columns_of(table), strict=True)
    ]
    for position, column in enumerate(table.columns):
        if column.wraps:
            others = sum(widths) - widths[position] + len(gap) * (len(widths) - 1)
            widths[position] = max(20, min(widths[position], width - others))
    lines = [table.title] if table.title else []
    head = tuple(column.title for column in table.columns)
    rule = tuple("-" * column_width for column_width in widths)
    for row in (head, rule, *table.rows):
        lines += [gap.join(cells).rstrip() for cells in _lines_of(row, table.columns, widths)]
    return "\n".join(lines)


def _gap_width(width: int) -> int:
    return 2 if width >= _COMFORTABLE_WIDTH else 1


def _columns_of(table: Table) -> list[tuple[str, ...]]:
    if not table.rows:
        return [()] * len(table.columns)
    return list(zip(*table.rows, strict=True))


def _lines_of(
    cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]
) -> list[list[str]]:
    """One row as lines of padded cells: a wrapping cell continues below itself."""
    stacks = []
    for cell, column, width in zip(cells, columns, widths, strict=True):
        parts = cell.split("\n")
        if column.wraps:
            parts = [line for part in parts for line in textwrap.wrap(part, width) or [""]]
        stacks.append(parts)
    lines = []
    for line_idx in range(max(len(stack) for stack in stacks)):
        pieces = []
        for stack, column, width in zip(stacks, columns, widths, strict=True):
            text = stack[line_idx] if line_idx < len(stack) else ""
            pieces.append(text.rjust(width) if column.numeric else text.ljust(width))
        lines.append(pieces)
    return lines


def _print_rich(table: Table, stream: TextIO) -> bool:
    """False when rich is not installed."""
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text
    except ImportError:
        return False
    drawn = RichTable(
        title=table.title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, _gap_width(terminal_width(stream)) - 1, 0, 0),  # the box adds a blank
        pad_edge=False,
        show_edge=False,
    )
    for column in table.columns:
        drawn.add_column(
            column.title,
            justify="right" if column.numeric else "left",
            no_wrap=not column.wraps,
            overflow="fold",
        )
    styles = table.styles or {}
    for row in table.rows:
        drawn.add_row(*(Text(cell, style=styles.get(cell, "")) for cell in row))
    Console(file=stream).print(drawn)
    return True
