"""A call that finds its container parked, beside one that finds it idle for as long and not parked."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from bench.goals import Goal
from bench.load import Broken
from bench.measure import Finding, difference, interleaved, spread
from bench.processes import descendants, is_stopped
from bench.server import NOOP, Platform, platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("resume", "a call of a parked container")
LIMIT_MS = 1.0
PARKED_AFTER_S, NEVER_S = 0.1, 3600.0
WITHIN_S, POLL_S = 10.0, 0.02


def measure(rig: Rig) -> Iterator[Finding]:
    cells = {"pool.stem_cells": 0}
    with (
        platform({"pool.pause_grace_s": PARKED_AFTER_S, **cells}) as parking,
        platform({"pool.pause_grace_s": NEVER_S, **cells}) as never,
    ):
        for visp in (parking, never):
            visp.put_action("noop", NOOP)
            visp.run("noop", {})
        parked_ms: list[float] = []
        idle_ms: list[float] = []
        for _ in range(rig.rounds):
            parked, idle = interleaved(rig.starts, lambda: call_parked_s(parking), lambda: call_s(never))
            parked_ms.append(statistics.median(parked) * 1000)
            idle_ms.append(statistics.median(idle) * 1000)
    added = difference(parked_ms, idle_ms)
    yield Finding(
        goal=GOAL.name,
        what="p50, 1 client; floor: idle as long, not parked",
        unit="ms",
        ours=spread(parked_ms),
        floor=spread(idle_ms),
    )
    yield Finding(
        goal=GOAL.name,
        what="p50 added by the resume",
        unit="ms",
        ours=added,
        promise=f"≤ {LIMIT_MS:.0f} ms",
        is_met=added.median <= LIMIT_MS,
    )


def call_parked_s(visp: Platform) -> float:
    """Seconds of a call, once the container stands still."""
    until_s = time.monotonic() + WITHIN_S
    while not any(is_stopped(process.pid) for process in descendants(visp.pid)):
        if time.monotonic() > until_s:
            raise Broken(f"no container was parked within {WITHIN_S:.0f} s")
        time.sleep(POLL_S)
    return call_s(visp)


def call_s(visp: Platform) -> float:
    began_s = time.perf_counter()
    visp.run("noop", {})
    return time.perf_counter() - began_s
