"""Which stem cells to have: started containers that wait without code. Pure.

Three reasons, each with a number; the greatest counts. The manifest asks for some. Cold starts of the last minute draw
as many as came within one second: who deploys twenty actions at once is likely to go on. And actions that are used at
regular times get one shortly before (`keepalive`). Users' code runs for activations only, so nothing more is prepared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DECAY = 0.98
"""What is left of the level after each second: half of it after 34."""
WORTH_S = 0.015
"""A start that takes less than this is not worth preparing: its container holds memory meanwhile."""


class Cell(msgspec.Struct, frozen=True):
    """A sort of stem cell: kind and memory."""

    kind: str
    memory_mb: int


class Wanted(msgspec.Struct, frozen=True):
    """How many of one sort the manifest asks for."""

    cell: Cell
    count: int


def follow(level: float, drawn: int, seconds: int = 1) -> float:
    """The level of demand some seconds later, in the first of which `drawn` cold starts of the sort came."""
    return max(float(drawn), level * DECAY) * DECAY ** (seconds - 1)


def counts(
    wanted: Iterable[Wanted], levels: Mapping[Cell, float], expected: Mapping[Cell, int], most: int
) -> dict[Cell, int]:
    """How many of each sort to have; for demand no more than `most`."""
    out = {entry.cell: entry.count for entry in wanted}
    for cell in {**levels, **expected}:  # in an order that does not depend on how strings are hashed
        demand = min(most, max(round(levels.get(cell, 0.0)), expected.get(cell, 0)))
        out[cell] = max(out.get(cell, 0), demand)
    return out


def missing(counts: Mapping[Cell, int], present: Mapping[Cell, int], free_mb: int, starts_left: int) -> list[Cell]:
    """The cells to start now: those that lack, as far as memory is free and starts are allowed; each sort in turn."""
    lacking = {cell: count - present.get(cell, 0) for cell, count in counts.items()}
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
