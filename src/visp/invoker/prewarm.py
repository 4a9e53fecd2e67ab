"""Which stem cells to have: started containers that wait without code. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Cell(msgspec.Struct, frozen=True):
    """A sort of stem cell: kind and memory."""

    kind: str
    memory_mb: int


class Wanted(msgspec.Struct, frozen=True):
    """How many of one sort the manifest asks for."""

    cell: Cell
    count: int


def missing(wanted: Iterable[Wanted], present: Mapping[Cell, int], free_mb: int, starts_left: int) -> list[Cell]:
    """The cells to start now: those that lack, as far as memory is free and starts are allowed; each sort in turn."""
    lacking = {entry.cell: entry.count - present.get(entry.cell, 0) for entry in wanted}
    out: list[Cell] = []
    while starts_left > 0:
        fitting = [cell for cell, count in lacking.items() if count > 0 and cell.memory_mb <= free_mb]
        if not fitting:
            return out
        for cell in fitting:
            if starts_left <= 0 or cell.memory_mb > free_mb:
                break
            out.append(cell)
            lacking[cell] -= 1
            free_mb -= cell.memory_mb
            starts_left -= 1
    return out
