"""What the platform itself spends on a warm invocation, with its record written and indexed.

CPU time hardly depends on what else the machine does: the figure to watch for regressions. The least of the rounds
counts, for others can only add to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import floors
from bench.goals import Goal
from bench.load import Broken
from bench.measure import Finding, interleaved, ratio, spread
from bench.processes import cpu_s
from bench.server import NOOP, Platform, platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("cpu", "CPU of the platform for a warm invocation, with record, logs and index")
CLIENTS = 32
LIMIT_US = 60.0


def measure(rig: Rig) -> Iterator[Finding]:
    with platform() as visp, floors.bare() as bare:
        visp.put_action("noop", NOOP)
        visp.load("actions/noop", clients=CLIENTS, seconds=1)
        many, many_bare, one, one_bare = interleaved(
            rig.rounds,
            lambda: invocation_us(visp, CLIENTS, rig.seconds),
            lambda: request_us(bare, CLIENTS, rig.seconds),
            lambda: invocation_us(visp, 1, rig.seconds),
            lambda: request_us(bare, 1, rig.seconds),
        )
    for clients, ours, floor in ((CLIENTS, many, many_bare), (1, one, one_bare)):
        least_us = min(ours)
        yield Finding(
            goal=GOAL.name,
            what=f"CPU of an invocation, {clients} client{'s' if clients > 1 else ''}; floor: bare HTTP",
            unit="µs",
            ours=spread(ours),
            floor=spread(floor),
            ratio=ratio(ours, floor),
            promise=f"≤ {LIMIT_US:.0f} µs (least round)",
            is_met=least_us <= LIMIT_US,
            note=f"least {least_us:.1f} µs, of the floor {min(floor):.1f} µs",
        )


def invocation_us(visp: Platform, clients: int, seconds: int) -> float:
    """User and system time of the server for each invocation of one load, until all its records are indexed."""
    visp.settle()
    records, before_s = visp.records(), cpu_s(visp.pid)
    load = visp.load("actions/noop", clients=clients, seconds=seconds)
    visp.settle()
    used_s = cpu_s(visp.pid) - before_s
    stored = visp.records() - records
    if not load.requests <= stored <= load.requests + clients:  # what is in flight at the end is stored too
        raise Broken(f"{load.requests} invocations were answered and {stored} are stored")
    return used_s / stored * 1e6


def request_us(bare: floors.Bare, clients: int, seconds: int) -> float:
    """The same of a request that does nothing."""
    before_s = cpu_s(bare.pid)
    load = bare.load(clients=clients, seconds=seconds)
    return (cpu_s(bare.pid) - before_s) / load.requests * 1e6
