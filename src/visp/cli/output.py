"""What commands print: answers on standard output, everything else on standard error.

On a terminal there are colours and tables, and control characters of what a server sent are shown, not obeyed; into
a pipe or a file goes plain text. rich is imported only for a terminal.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, TextIO

import click

from visp.client import documents

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

GAP = 2
"""Blanks between two columns of a table."""
NARROWEST_LAST = 30
"""A last column that has to be narrower than this is not worth a table."""

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def is_terminal() -> bool:
    return sys.stdout.isatty()


def line(text: str) -> None:
    click.echo(_shown(text, sys.stdout))


def piece(data: bytes) -> None:
    """A piece of an action's own output: as it is, but on a terminal, where it must do no harm."""
    click.echo(_shown(data.decode(errors="replace"), sys.stdout) if is_terminal() else data, nl=False)


def bar(text: str, blanks: int, cells: int) -> None:
    """A line that ends in a bar, which a terminal shows in colour; one of no cells is a stroke."""
    click.echo(f"{_shown(text, sys.stdout)}{' ' * blanks}{click.style('█' * cells or '▏', fg='cyan')}")


def note(text: str) -> None:
    """A line on standard error."""
    click.echo(_shown(text, sys.stderr), err=True)


def ok(text: str, *, is_error: bool = False) -> None:
    """`ok: created action hello`, as `wsk` says it."""
    stream = sys.stderr if is_error else sys.stdout
    click.echo(f"{click.style('ok:', fg='green')} {_shown(text, stream)}", err=is_error)


def warning(text: str) -> None:
    click.echo(f"{click.style('warning:', fg='yellow')} {_shown(text, sys.stderr)}", err=True)


def error(text: str) -> None:
    click.echo(f"{click.style('error:', fg='red')} {_shown(text, sys.stderr)}", err=True)


def document(raw: bytes, *, is_error: bool = False) -> None:
    """JSON, indented; coloured on a terminal."""
    stream = sys.stderr if is_error else sys.stdout
    text = _shown(documents.pretty(raw), stream)
    if not stream.isatty():
        click.echo(text, err=is_error)
        return
    from rich.console import Console
    from rich.highlighter import JSONHighlighter
    from rich.text import Text

    coloured = Text(text)
    JSONHighlighter().highlight(coloured)
    Console(file=stream).print(coloured, soft_wrap=True)


def answer(raw: bytes) -> None:
    """The server's JSON for a program to read: what `--json` prints."""
    line(documents.pretty(raw))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[int] = ()) -> None:
    """A list. Into a pipe: the title (if any), then a line for each row, its cells padded to `widths`, as `wsk`.

    A terminal gets a table whose last column may run over several lines; one that is too narrow gets the lines.
    """
    rows = list(rows)
    if is_terminal() and _draw(columns, rows):
        return
    if title:
        line(title)
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        line(" ".join([*cells, *row[len(cells) :]]).rstrip())


def _draw(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Prints the table, if the terminal has room for it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout)
    widest = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    if sum(widest[:-1]) + GAP * len(widest) + min(widest[-1], NARROWEST_LAST) > console.width:
        return False
    drawn = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold", no_wrap=column != columns[-1])
    for row in rows:
        drawn.add_row(*(Text(_shown(cell, sys.stdout)) for cell in row))
    console.print(drawn)
    return True


def plain(text: str) -> str:
    """What standard error shows of it."""
    return _shown(text, sys.stderr)


def _shown(text: str, stream: TextIO) -> str:
    # What cannot be encoded (lone surrogates) is shown by its number instead of ending the command.
    text = text.encode(errors="backslashreplace").decode()
    return _CONTROLS.sub(_by_number, text) if stream.isatty() else text


def _by_number(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
