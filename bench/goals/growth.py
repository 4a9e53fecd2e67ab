"""What calls cost a server that holds much, beside an empty one; the two take turns."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench import stock
from bench.goals import Goal
from bench.goals.burst import CLIENTS as BURST_CLIENTS
from bench.goals.cpu import CLIENTS, invocation_us
from bench.load import finish
from bench.measure import Chart, Finding, Series, interleaved, ratio, spread
from bench.processes import cpu_s, wait_until_quiet
from bench.server import Platform, platform
from bench.stock import Stock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.measure import Spread
    from bench.rig import Rig

GOAL = Goal("growth", "cost of calls with many stored actions, records and rules, beside none")
GROWTH = 1.1
LIST_CLIENTS = 8
ROUNDS = 3
"""Where the most is stored; on the way there, one."""
NEXT_TO_NOTHING = Stock(actions=30, records=30)
"""What the other holds: as much as a list shows."""


class Cost(msgspec.Struct, frozen=True):
    what: str
    of: Callable[[Platform, int], float]


COSTS = (
    Cost("CPU of a warm invocation", lambda visp, seconds: invocation_us(visp, CLIENTS, seconds)),
    Cost("CPU of an accepted call, until it has run", lambda visp, seconds: _taken_us(visp, "actions/noop", seconds)),
    Cost(
        "CPU of a fire with one rule, until it has run",
        lambda visp, seconds: _taken_us(visp, "triggers/event", seconds),
    ),
    Cost("CPU of a list of 30 records", lambda visp, seconds: _listed_us(visp, "activations", seconds)),
    Cost("CPU of a list of 30 actions", lambda visp, seconds: _listed_us(visp, "actions", seconds)),
)


def measure(rig: Rig) -> Iterator[Finding | Chart]:
    steps = [
        Stock(actions=rig.actions // part, records=rig.records // part, rules=rig.rules // part) for part in rig.growth
    ]
    curves: list[list[Spread]] = [[] for _ in COSTS]
    with tempfile.TemporaryDirectory(prefix="visp-bench-") as folder:
        empty_dir, full_dir = Path(folder) / "empty", Path(folder) / "full"
        stock.begin(empty_dir)
        stock.begin(full_dir)
        stock.add(empty_dir, Stock(), NEXT_TO_NOTHING)
        built_s, held = 0.0, Stock()
        for step in steps:
            began_s = time.monotonic()
            stock.add(full_dir, held, step)
            built_s, held = built_s + time.monotonic() - began_s, step
            with platform(data_dir=full_dir) as full, platform(data_dir=empty_dir) as empty:
                for visp in (full, empty):
                    visp.load("actions/noop", clients=CLIENTS, seconds=1)
                rounds = min(rig.rounds, ROUNDS if step is steps[-1] else 1)
                pairs = [_pair(cost, full, empty, rounds, rig.seconds) for cost in COSTS]
                for curve, (ours, floor) in zip(curves, pairs, strict=True):
                    curve.append(ratio(ours, floor))
        disk_mb = sum(path.stat().st_size for path in full_dir.rglob("*") if path.is_file()) / (1 << 20)
    held_text = f"{held.actions:,} actions, {held.records:,} records, {held.rules:,} rules"
    for cost, (ours, floor), curve in zip(COSTS, pairs, curves, strict=True):
        yield Finding(
            goal=GOAL.name,
            what=f"{cost.what}; floor: next to nothing stored",
            unit="µs",
            ours=spread(ours),
            floor=spread(floor),
            ratio=curve[-1],
            promise=f"≤ {GROWTH} × empty",
            is_met=curve[-1].median <= GROWTH,
            note=f"{held_text}; built in {built_s:.0f} s, {disk_mb:,.0f} MB" if cost is COSTS[0] else "",
        )
    sizes = tuple(float(step.records) for step in steps)
    yield Chart(
        name="growth",
        title=f"Cost by what is stored, up to {held.actions:,} actions, {held.rules:,} rules",
        x_label="stored records; actions and rules in proportion",
        y_label="times the empty platform's",
        series=tuple(
            Series(cost.what, sizes, tuple(point.median for point in curve))
            for cost, curve in zip(COSTS, curves, strict=True)
        ),
        is_x_log=True,
    )


def _pair(cost: Cost, full: Platform, empty: Platform, rounds: int, seconds: int) -> tuple[list[float], list[float]]:
    ours, floor = interleaved(rounds, lambda: cost.of(full, seconds), lambda: cost.of(empty, seconds))
    return ours, floor


def _taken_us(visp: Platform, target: str, seconds: int) -> float:
    """CPU of the server for each of accepted calls, until all have run and are indexed."""
    visp.settle()
    before_s = cpu_s(visp.pid)
    taken = visp.load(target, clients=BURST_CLIENTS, seconds=seconds, query="blocking=false", may_refuse=True)
    visp.settle()
    return (cpu_s(visp.pid) - before_s) / (taken.requests - taken.refused) * 1e6


def _listed_us(visp: Platform, collection: str, seconds: int) -> float:
    wait_until_quiet(visp.pid)
    before_s = cpu_s(visp.pid)
    listed = finish(
        visp.begin_load(collection, clients=LIST_CLIENTS, seconds=seconds, query="limit=30", method="GET", body="")
    )
    return (cpu_s(visp.pid) - before_s) / listed.requests * 1e6
