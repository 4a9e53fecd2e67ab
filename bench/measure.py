"""Figures that a noisy machine does not bend: rounds that take turns, ratios within a round, medians over rounds."""

from __future__ import annotations

import statistics
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bench.load import Load

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


class Series(msgspec.Struct, frozen=True):
    """A line of a chart; of one with bars, a bar: then `y` is its one value."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """What the page draws. Charts of one name, from several benchmarks, are drawn as one."""

    name: str
    title: str
    x_label: str
    y_label: str = ""
    series: tuple[Series, ...]
    style: Literal["line", "step", "bars"] = "line"
    is_x_log: bool = False
    is_y_log: bool = False


def merged(charts: Iterable[Chart]) -> list[Chart]:
    """One for each name, in the order of their first; with the series of all of them."""
    found: dict[str, Chart] = {}
    for chart in charts:
        held = found.get(chart.name)
        found[chart.name] = chart if held is None else msgspec.structs.replace(held, series=held.series + chart.series)
    return list(found.values())


def bar(label: str, value: float) -> Series:
    return Series(label, (0.0,), (value,))


def cdf(label: str, loads: Sequence[Load]) -> Series:
    """How the latencies of the middle round are spread: milliseconds, and the share that took at most so long."""
    middle = sorted(loads, key=lambda load: load.p50_us)[len(loads) // 2]
    return Series(label, tuple(us / 1000 for _, us in middle.curve), tuple(percent for percent, _ in middle.curve))


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


def beside_invocations(
    goal: str,
    rounds: int,
    seconds: int,
    least: float,
    ours: Callable[[int, int], Load],
    floor: Callable[[int, int], Load],
) -> Iterator[Finding]:
    """GETs beside blocking invocations, by 1 and by 32 clients: either side is asked for so many clients and seconds.
    `least` is the ratio that is promised.
    """
    for clients in (1, 32):
        floor(clients, 1)
        ours(clients, 1)
        sides = [partial(_per_s, side, clients, seconds) for side in (ours, floor)]
        got, bound = interleaved(rounds, *sides)
        times = ratio(got, bound)
        yield Finding(
            goal=goal,
            what=f"GET, {clients} client{'s' * (clients > 1)}; floor: a blocking invocation",
            unit="/s",
            ours=spread(got),
            floor=spread(bound),
            ratio=times,
            promise=f"≥ {least} × a blocking invocation",
            is_met=times.median >= least,
        )


def _per_s(load: Callable[[int, int], Load], clients: int, seconds: int) -> float:
    return load(clients, seconds).per_s
