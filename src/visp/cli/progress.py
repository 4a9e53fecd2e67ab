"""How long work is followed, and sizes in words."""

from __future__ import annotations

import sys

import click

from visp.cli import output


class Progress:
    """One line on standard error: rewritten on a terminal, elsewhere a line for each kind of part."""

    def __init__(self) -> None:
        self._said = ""

    def __call__(self, what: str, size_bytes: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[K{what} {size(size_bytes)}\r", err=True, nl=False)
            return
        kind = what.partition("/")[0]
        if kind != self._said:
            self._said = kind
            output.note(f"… {kind}")

    def end(self) -> None:
        """Takes the line away that a terminal shows."""
        if sys.stderr.isatty():
            click.echo("\r\x1b[K", err=True, nl=False)


def size(size_bytes: int) -> str:
    """`1.4 MiB`."""
    number, units = float(size_bytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while number >= 1024 and len(units) > 1:
        number /= 1024
        del units[0]
    return f"{number:.0f} {units[0]}" if units[0] == "B" else f"{number:.1f} {units[0]}"
