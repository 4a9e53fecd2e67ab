"""Warm calls by many clients, beside the same calls to a plain Node process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import floors
from bench.goals import Goal
from bench.measure import Chart, Finding, Series, cdf, interleaved, ratio, spread
from bench.server import NOOP, platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("throughput", "warm blocking no-ops in Node.js, 32 clients")
CLIENTS = 32
RATIO, STRETCH = 1.0, 1.3
CURVE_S = 1


def measure(rig: Rig) -> Iterator[Finding | Chart]:
    with (
        platform() as visp,
        floors.direct(rig.node, NOOP) as direct,
        floors.direct(rig.node, NOOP, server="plain") as plain,
    ):
        visp.put_action("noop", NOOP)
        visp.load("actions/noop", clients=CLIENTS, seconds=1)
        direct.load(clients=CLIENTS, seconds=1)
        plain.load(clients=CLIENTS, seconds=1)
        ours, floor, least = interleaved(
            rig.rounds,
            lambda: visp.load("actions/noop", clients=CLIENTS, seconds=rig.seconds),
            lambda: direct.load(clients=CLIENTS, seconds=rig.seconds),
            lambda: plain.load(clients=CLIENTS, seconds=rig.seconds),
        )
        curves: tuple[list[float], ...] = ([], [], [])
        for clients in rig.connections:
            loads = (
                visp.load("actions/noop", clients=clients, seconds=CURVE_S),
                direct.load(clients=clients, seconds=CURVE_S),
                plain.load(clients=clients, seconds=CURVE_S),
            )
            for load, curve in zip(loads, curves, strict=True):
                curve.append(load.per_s)
    own_per_s, floor_per_s = ([load.per_s for load in side] for side in (ours, floor))
    times = ratio(own_per_s, floor_per_s)
    yield Finding(
        goal=GOAL.name,
        what=f"invocations, {CLIENTS} clients",
        unit="/s",
        ours=spread(own_per_s),
        floor=spread(floor_per_s),
        ratio=times,
        promise=f"≥ {RATIO} × direct",
        is_met=times.median >= RATIO,
        note=f"stretch ≥ {STRETCH} ×: {'met' if times.median >= STRETCH else 'not met'}",
    )
    yield Finding(
        goal=GOAL.name,
        what=f"p99, {CLIENTS} clients",
        unit="ms",
        ours=spread(load.p99_us / 1000 for load in ours),
        floor=spread(load.p99_us / 1000 for load in floor),
    )
    yield Finding(
        goal=GOAL.name,
        what=f"the same beside Node without express, {CLIENTS} clients",
        unit="/s",
        ours=spread(own_per_s),
        floor=spread(load.per_s for load in least),
        ratio=ratio(own_per_s, [load.per_s for load in least]),
    )
    labels = ("visp", "direct: Node with express", "Node without express")
    connections = tuple(map(float, rig.connections))
    yield Chart(
        name="throughput",
        title="Warm blocking no-ops in Node.js",
        x_label="connections",
        y_label="calls a second",
        series=tuple(Series(label, connections, tuple(curve)) for label, curve in zip(labels, curves, strict=True)),
        is_x_log=True,
    )
    yield Chart(
        name="latency32",
        title=f"Warm blocking no-op in Node.js, {CLIENTS} clients",
        x_label="milliseconds at most",
        y_label="% of calls",
        series=tuple(cdf(label, loads) for label, loads in zip(labels, (ours, floor, least), strict=True)),
        style="step",
        is_x_log=True,
    )
