"""A warm call by one client, beside the same call to a plain Node process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import floors
from bench.goals import Goal
from bench.measure import Chart, Finding, cdf, difference, interleaved, ratio, spread
from bench.server import NOOP, platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("warm", "a warm blocking no-op in Node.js, one client")
RATIO, ADDED_MS, STRETCH_MS = 1.5, 0.15, 0.08


def measure(rig: Rig) -> Iterator[Finding | Chart]:
    with (
        platform() as visp,
        floors.direct(rig.node, NOOP) as direct,
        floors.direct(rig.node, NOOP, server="plain") as plain,
    ):
        visp.put_action("noop", NOOP)
        visp.load("actions/noop", clients=1, seconds=1)
        direct.load(clients=1, seconds=1)
        plain.load(clients=1, seconds=1)
        ours, floor, least = interleaved(
            rig.rounds,
            lambda: visp.load("actions/noop", clients=1, seconds=rig.seconds),
            lambda: direct.load(clients=1, seconds=rig.seconds),
            lambda: plain.load(clients=1, seconds=rig.seconds),
        )
    own_ms, floor_ms = ([load.p50_us / 1000 for load in side] for side in (ours, floor))
    times, added = ratio(own_ms, floor_ms), difference(own_ms, floor_ms)
    yield Finding(
        goal=GOAL.name,
        what="p50, 1 client",
        unit="ms",
        ours=spread(own_ms),
        floor=spread(floor_ms),
        ratio=times,
        promise=f"≤ {RATIO} × direct",
        is_met=times.median <= RATIO,
    )
    yield Finding(
        goal=GOAL.name,
        what="p50 added to direct",
        unit="ms",
        ours=added,
        promise=f"≤ {ADDED_MS} ms",
        is_met=added.median <= ADDED_MS,
        note=f"stretch ≤ {STRETCH_MS} ms: {'met' if added.median <= STRETCH_MS else 'not met'}",
    )
    yield Finding(
        goal=GOAL.name,
        what="p99, 1 client",
        unit="ms",
        ours=spread(load.p99_us / 1000 for load in ours),
        floor=spread(load.p99_us / 1000 for load in floor),
    )
    yield Finding(
        goal=GOAL.name,
        what="the same beside Node without express, 1 client",
        unit="ms",
        ours=spread(own_ms),
        floor=spread(load.p50_us / 1000 for load in least),
        ratio=ratio(own_ms, [load.p50_us / 1000 for load in least]),
    )
    yield Chart(
        name="latency",
        title="Warm blocking no-op in Node.js, one client",
        x_label="milliseconds at most",
        y_label="% of calls",
        series=(cdf("visp", ours), cdf("direct: Node with express", floor), cdf("Node without express", least)),
        style="step",
        is_x_log=True,
    )
