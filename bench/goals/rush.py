"""A hundred calls in one instant of an action that waits, with memory for twenty containers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench.goals import Goal
from bench.goals.crowd import all_at_once, together
from bench.measure import Finding, ratio, spread
from bench.processes import wait_until_quiet
from bench.server import PYTHON_KIND, platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig
    from bench.server import Platform

GOAL = Goal("rush", "100 calls at once of an action of 100 ms, with memory for 20 containers")
CALLS, FITTING, ACTION_MB, RUN_S = 100, 20, 128, 0.1
CODE = f"import time\ndef main(args):\n    time.sleep({RUN_S})\n    return {{}}\n"
IDEAL_S = CALLS / FITTING * RUN_S


def measure(rig: Rig) -> Iterator[Finding]:
    cold_s, warm_s, cold_starts, warm_starts = list[float](), list[float](), list[float](), list[float]()
    with platform({"pool.memory_mb": FITTING * ACTION_MB, "pool.stem_cells": 0}) as visp:
        for number in range(rig.bursts):
            name = f"wait{number}"
            visp.put_action(name, CODE, PYTHON_KIND, memory_mb=ACTION_MB)
            for took_s, starts in ((cold_s, cold_starts), (warm_s, warm_starts)):
                took_s.append(rush_s(visp, name))
                starts.append(started(visp, name))
                wait_until_quiet(visp.pid)
            visp.delete_action(name)
            wait_until_quiet(visp.pid)
    ideal = [IDEAL_S] * rig.bursts
    for what, took_s in (("no container yet", cold_s), ("once more", warm_s)):
        yield Finding(
            goal=GOAL.name,
            what=f"until the last answer, {what}; floor: {FITTING} run without a pause",
            unit="s",
            ours=spread(took_s),
            floor=spread(ideal),
            ratio=ratio(took_s, ideal),
        )
    for what, starts in (("no container yet", cold_starts), ("once more", warm_starts)):
        yield Finding(goal=GOAL.name, what=f"containers started, {what}", ours=spread(starts))


def rush_s(visp: Platform, name: str) -> float:
    with together(visp, CALLS) as clients:
        for client in clients:
            client.in_flight()  # connected
        return all_at_once([partial(_call, mine, name) for mine in clients])


def _call(visp: Platform, name: str) -> None:
    visp.run(name, {})


def started(visp: Platform, name: str) -> int:
    """How many of the newest calls had to initialise a container."""
    visp.settle()
    return sum(
        any(annotation["key"] == "initTime" for annotation in record["annotations"])
        for record in visp.newest(name, CALLS)
    )
