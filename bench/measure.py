"""Figures that a noisy machine does not bend: rounds that take turns, ratios within a round, medians over rounds."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

T = TypeVar("T")


class Spread(msgspec.Struct, frozen=True):
    """What several rounds gave: their median, with the least and the greatest."""

    median: float
    low: float
    high: float
    rounds: tuple[float, ...]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table: what was measured, its floor, and whether the promise is kept."""

    goal: str
    what: str
    unit: str = ""
    ours: Spread | None = None
    floor: Spread | None = None
    ratio: Spread | None = None
    promise: str = ""
    is_met: bool | None = None
    """None where a figure is shown for information."""
    note: str = ""


def spread(values: Iterable[float]) -> Spread:
    rounds = tuple(values)
    return Spread(statistics.median(rounds), min(rounds), max(rounds), rounds)


def ratio(ours: Sequence[float], floors: Sequence[float]) -> Spread:
    """Ours by the floor's, round by round: what slows the machine for a while slows both sides of a round."""
    return spread(own / floor for own, floor in zip(ours, floors, strict=True))


def difference(ours: Sequence[float], floors: Sequence[float]) -> Spread:
    """Ours less the floor's, round by round."""
    return spread(own - floor for own, floor in zip(ours, floors, strict=True))


def interleaved(rounds: int, *sides: Callable[[], T]) -> tuple[list[T], ...]:
    """Every side once a round, in turn; each second round goes backwards, so that no side is always the first.

    One list for each side, in its order.
    """
    results: tuple[list[T], ...] = tuple([] for _ in sides)
    for number in range(rounds):
        order = range(len(sides)) if number % 2 == 0 else reversed(range(len(sides)))
        for index in order:
            results[index].append(sides[index]())
    return results
