"""Memory of the server's processes: at rest, and with many entities that nobody uses."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from bench import floors
from bench.goals import Goal
from bench.measure import Chart, Finding, Series, spread
from bench.processes import descendants, pss_mb, rss_mb, server_processes, wait_until_quiet
from bench.server import HELLO_NODE, NOOP, Platform, platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("memory", "memory of the server's processes, without stem cells and containers")
IDLE_MB, GROWTH_MB = 75.0, 50.0
ACTIONS, TRIGGERS = 1_000, 10_000
CONNECTIONS = 4
CONTAINER_MB = 128


def measure(rig: Rig) -> Iterator[Finding | Chart]:
    with platform() as visp:
        wait_until_quiet(visp.pid)
        pids = server_processes(visp.pid)
        idle_mb = rss_mb(pids)
        fill(visp)
        wait_until_quiet(visp.pid)
        filled_mb = rss_mb(server_processes(visp.pid))
    growth_mb = filled_mb - idle_mb
    yield Finding(
        goal=GOAL.name,
        what="resident, idle",
        unit="MB",
        ours=spread([idle_mb]),
        promise=f"≤ {IDLE_MB:.0f} MB",
        is_met=idle_mb <= IDLE_MB,
        note=f"{len(pids)} process{'es' if len(pids) > 1 else ''}",
    )
    yield Finding(
        goal=GOAL.name,
        what=f"growth by {ACTIONS:,} actions, {TRIGGERS:,} triggers",
        unit="MB",
        ours=spread([growth_mb]),
        promise=f"≤ {GROWTH_MB:.0f} MB",
        is_met=growth_mb <= GROWTH_MB,
    )
    yield containers(rig)


def containers(rig: Rig) -> Chart:
    """Memory by the number of warm Node.js containers, what processes share divided among them; beside plain Node."""
    server_mb, inside_mb, count = list[float](), list[float](), 0
    with platform({"pool.memory_mb": CONTAINER_MB * rig.containers[-1], "pool.stem_cells": 0}) as visp:
        for wanted in rig.containers:
            for number in range(count, wanted):
                visp.put_action(f"warm{number}", NOOP, memory_mb=CONTAINER_MB)
                visp.run(f"warm{number}", {})
            count = wanted
            own = server_processes(visp.pid)
            server_mb.append(pss_mb(own))
            inside_mb.append(pss_mb([process.pid for process in descendants(visp.pid) if process.pid not in own]))
    with floors.direct(rig.node, NOOP, server="plain") as plain:
        node_mb = pss_mb([plain.pid])
    numbers = tuple(map(float, rig.containers))
    return Chart(
        name="memory",
        title="Memory by warm Node.js containers (proportional set size)",
        x_label="containers",
        y_label="MB",
        series=(
            Series("the server's processes", numbers, tuple(server_mb)),
            Series("containers, with their sandboxes", numbers, tuple(inside_mb)),
            Series("floor: as many plain Node processes", numbers, tuple(node_mb * number for number in numbers)),
        ),
    )


def fill(visp: Platform) -> None:
    """Creates the entities from a few keep-alive connections at once."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(CONNECTIONS) as threads:
        makers = [stack.enter_context(contextlib.closing(Platform(visp.url, visp.pid))) for _ in range(CONNECTIONS)]
        list(threads.map(lambda share: _make(*share), enumerate(makers)))


def _make(number: int, visp: Platform) -> None:
    for index in range(number, ACTIONS, CONNECTIONS):
        visp.put_action(f"action{index}", HELLO_NODE)
    for index in range(number, TRIGGERS, CONNECTIONS):
        visp.put("triggers", f"trigger{index}", {"parameters": [{"key": "index", "value": index}]})
