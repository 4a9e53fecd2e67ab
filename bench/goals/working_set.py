"""More actions than there is memory for, called round robin: every call finds its container evicted."""

from __future__ import annotations

import itertools
import time
from functools import partial
from typing import TYPE_CHECKING

from bench import floors
from bench.goals import Goal
from bench.goals.crowd import all_at_once, rate, together
from bench.load import Broken
from bench.measure import Finding, ratio, spread
from bench.processes import wait_until_quiet
from bench.server import GREETING, HELLO_NODE, HELLO_PYTHON, NAME, NODE_KIND, PYTHON_KIND, Platform, platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("working_set", "100 actions round robin with memory for 20, 4 clients")
ACTIONS, FITTING, ACTION_MB = 100, 20, 128
CLIENTS, CORES = 4, 2
PYTHON_PER_S, NODE_SHARE = 150.0, 0.8
NODE_STARTS = 10


def measure(rig: Rig) -> Iterator[Finding]:
    python, forks, node, starts = list[float](), list[float](), list[float](), list[float]()
    with (
        platform({"pool.memory_mb": FITTING * ACTION_MB, "pool.stem_cells": 0}) as visp,
        floors.fork_hello(rig.python) as one,
        floors.fork_hello(rig.python) as other,
    ):
        for number in range(ACTIONS):
            visp.put_action(f"python{number}", HELLO_PYTHON, PYTHON_KIND, memory_mb=ACTION_MB)
            visp.put_action(f"node{number}", HELLO_NODE, NODE_KIND, memory_mb=ACTION_MB)
        for _ in range(rig.bursts):
            python.append(round_robin(visp, "python", 2 * rig.seconds))
            forks.append(_forks_per_s(one, other, rig.starts))
            node.append(round_robin(visp, "node", 2 * rig.seconds))
            starts.append(_node_starts_per_s(rig.node))
    own, share = spread(python), ratio(node, starts)
    yield Finding(
        goal=GOAL.name,
        what=f"Python; floor: {CORES} × fork in fresh namespaces",
        unit="/s",
        ours=own,
        floor=spread(forks),
        ratio=ratio(python, forks),
        promise=f"≥ {PYTHON_PER_S:.0f} /s on {CORES} cores",
        is_met=own.median >= PYTHON_PER_S,
    )
    yield Finding(
        goal=GOAL.name,
        what=f"Node.js; floor: plain node, {CORES} at once",
        unit="/s",
        ours=spread(node),
        floor=spread(starts),
        ratio=share,
        promise=f"≥ {NODE_SHARE} × floor",
        is_met=share.median >= NODE_SHARE,
    )


def round_robin(visp: Platform, family: str, seconds: int) -> float:
    """Calls a second, each of the next action, whoever of the clients makes it."""
    wait_until_quiet(visp.pid)
    calls = itertools.count()
    done = itertools.count()
    until_s = time.monotonic() + seconds

    def client(mine: Platform) -> None:
        while time.monotonic() < until_s:
            if (result := mine.run(f"{family}{next(calls) % ACTIONS}", NAME)) != GREETING:
                raise Broken(f"the action answered {result}")
            next(done)

    with together(visp, CLIENTS) as clients:
        took_s = all_at_once([partial(client, mine) for mine in clients])
    return next(done) / took_s


def _forks_per_s(one: floors.ForkHello, other: floors.ForkHello, starts: int) -> float:
    def client(process: floors.ForkHello) -> None:
        for _ in range(4 * starts):
            process.start_s(HELLO_PYTHON, NAME, expected=GREETING)

    return rate(4 * starts * CORES, [lambda: client(one), lambda: client(other)])


def _node_starts_per_s(node: str) -> float:
    """What the cores can start of plain Node."""

    def client() -> None:
        for _ in range(NODE_STARTS):
            floors.node_start_s(node)

    return rate(NODE_STARTS * CORES, [client] * CORES)
