"""Cold Python starts a second: several clients, every action new; beside as many prepared processes that fork."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING

from bench import floors
from bench.goals import Goal
from bench.goals.crowd import rate, together
from bench.load import Broken
from bench.measure import Finding, interleaved, ratio, spread
from bench.processes import wait_until_quiet
from bench.server import GREETING, HELLO_PYTHON, NAME, PYTHON_KIND, Platform, platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("cold_rate", "cold Python starts a second, 4 clients, every action new")
PER_S = 150.0
CLIENTS, CORES = 4, 2
STARTS_A_CLIENT = 4
"""Times the rig's starts, in a round."""


def measure(rig: Rig) -> Iterator[Finding]:
    numbers = itertools.count()
    starts = rig.starts * STARTS_A_CLIENT
    with (
        platform({"pool.stem_cells": 0}) as visp,
        floors.fork_hello(rig.python) as one,
        floors.fork_hello(rig.python) as other,
    ):

        def cold() -> float:
            names = [f"cold{next(numbers)}" for _ in range(CLIENTS * starts)]
            for name in names:
                visp.put_action(name, HELLO_PYTHON, PYTHON_KIND)
            wait_until_quiet(visp.pid)
            with together(visp, CLIENTS) as clients:
                shares = [partial(_call_each, mine, names[at::CLIENTS]) for at, mine in enumerate(clients)]
                figure = rate(len(names), shares)
            for name in names:
                visp.delete_action(name)
            wait_until_quiet(visp.pid)
            return figure

        def forks() -> float:
            shares = [partial(_fork, process, 2 * starts) for process in (one, other)]
            return rate(2 * starts * CORES, shares)

        ours, floor = interleaved(rig.bursts, cold, forks)
    own = spread(ours)
    yield Finding(
        goal=GOAL.name,
        what=f"starts, {CLIENTS} clients; floor: {CORES} × fork in fresh namespaces",
        unit="/s",
        ours=own,
        floor=spread(floor),
        ratio=ratio(ours, floor),
        promise=f"≥ {PER_S:.0f} /s on {CORES} cores",
        is_met=own.median >= PER_S,
    )


def _call_each(visp: Platform, names: list[str]) -> None:
    for name in names:
        if (result := visp.run(name, NAME)) != GREETING:
            raise Broken(f"the action answered {result}")


def _fork(process: floors.ForkHello, starts: int) -> None:
    for _ in range(starts):
        process.start_s(HELLO_PYTHON, NAME, expected=GREETING)
