"""visp beside a real OpenWhisk: the same shapes of load as its figures were recorded with.

OpenWhisk does not run here: its figures were recorded from its standalone server (newest source, Docker containers, its
own log collection off unless said) on a machine of this kind: two cores, shared with the load from wrk; the best of
several runs. They are constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from bench.goals import Goal
from bench.goals.launch import launch_once
from bench.load import Load, finish
from bench.measure import Chart, Finding, bar, spread
from bench.processes import rss_mb, server_processes, wait_until_quiet
from bench.server import NOOP, Platform, platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("openwhisk", "the loads that a real OpenWhisk standalone was measured with")
FEW, MANY = 8, 32
THROUGHPUT, THROUGHPUT_AS_SHIPPED, LATENCY, MEMORY = 50.0, 300.0, 40.0, 8.0
LAUNCH_S = 11.8
IDLE_MB, LOADED_MB = 352.0, 783.0
MANY_AS_SHIPPED_PER_S = 23.0
"""With logs collected by `docker logs`, as it is shipped."""


class Shape(msgspec.Struct, frozen=True):
    """One load, and what OpenWhisk made of it."""

    what: str
    unit: str
    openwhisk: float
    load: Callable[[Platform, int], Load]

    def figure(self, load: Load) -> float:
        return load.p50_us / 1000 if self.unit == "ms" else load.per_s

    def times(self, load: Load) -> float:
        """How many times OpenWhisk's figure."""
        figure = self.figure(load)
        return self.openwhisk / figure if self.unit == "ms" else figure / self.openwhisk


def _invoke(name: str, clients: int) -> Callable[[Platform, int], Load]:
    return lambda visp, seconds: visp.load(f"actions/{name}", clients=clients, seconds=seconds)


def _take(target: str, query: str) -> Callable[[Platform, int], Load]:
    """Accepted work, until all of it has run."""

    def load(visp: Platform, seconds: int) -> Load:
        taken = visp.load(target, clients=FEW, seconds=seconds, query=query, may_refuse=True)
        visp.settle()
        return taken

    return load


def _ask(method: str, target: str, body: str = "") -> Callable[[Platform, int], Load]:
    query = "overwrite=true" if method == "PUT" else ""  # each round writes the same names
    return lambda visp, seconds: finish(
        visp.begin_load(target, clients=FEW, seconds=seconds, query=query, method=method, body=body)
    )


_ACTION = msgspec.json.encode({"exec": {"kind": "nodejs:20", "code": NOOP}}).decode()

SHAPES = (
    Shape("warm no-op, 1 client: p50", "ms", 20.0, _invoke("noop", 1)),
    Shape(f"warm no-op, {FEW} clients", "/s", 145.0, _invoke("noop", FEW)),
    Shape(f"warm no-op, {MANY} clients", "/s", 170.0, _invoke("noop", MANY)),
    Shape("sequence of three, 1 client: p50", "ms", 26.0, _invoke("three", 1)),
    Shape(f"sequence of three, {FEW} clients", "/s", 31.0, _invoke("three", FEW)),
    Shape(f"non-blocking, {FEW} clients, accepted", "/s", 185.0, _take("actions/noop", "blocking=false")),
    Shape(f"fire with a rule, {FEW} clients, accepted", "/s", 178.0, _take("triggers/event", "")),
    Shape(f"fire without a rule, {FEW} clients", "/s", 283.0, _take("triggers/silent", "")),
    Shape(f"PUT of a new action, {FEW} clients", "/s", 586.0, _ask("PUT", "actions/newCOUNT", _ACTION)),
    Shape(f"GET of an action, {FEW} clients", "/s", 184.0, _ask("GET", "actions/noop")),
    Shape(f"list of actions, {FEW} clients", "/s", 1_668.0, _ask("GET", "actions")),
)


def measure(rig: Rig) -> Iterator[Finding | Chart]:
    launches_s = [launch_once().ping_s for _ in range(rig.rounds)]
    with platform() as visp:
        visp.put_action("noop", NOOP)
        visp.put("actions", "three", {"exec": {"kind": "sequence", "components": ["/_/noop"] * 3}})
        visp.put("triggers", "event", {})
        visp.put("triggers", "silent", {})
        visp.put("rules", "on-event", {"trigger": "/_/event", "action": "/_/noop"})
        wait_until_quiet(visp.pid)
        idle_mb = rss_mb(server_processes(visp.pid))
        visp.load("actions/noop", clients=MANY, seconds=1)
        loads: list[list[Load]] = [[] for _ in SHAPES]
        for _ in range(rig.rounds):
            for shape, rounds in zip(SHAPES, loads, strict=True):
                rounds.append(shape.load(visp, rig.seconds))
        loaded_mb = rss_mb(server_processes(visp.pid))
    times: dict[str, float] = {}
    for shape, rounds in zip(SHAPES, loads, strict=True):
        yield _beside(shape.what, shape.unit, [shape.figure(load) for load in rounds], shape.openwhisk)
        times[shape.what] = spread(shape.times(load) for load in rounds).median
    latency, _, throughput, *_ = times.values()
    shipped = throughput * SHAPES[2].openwhisk / MANY_AS_SHIPPED_PER_S
    yield _promised("p50 of a warm call, times lower", latency, LATENCY)
    yield _promised(f"throughput at {MANY} clients, times higher", throughput, THROUGHPUT)
    yield _promised("… than as shipped, with its logs collected", shipped, THROUGHPUT_AS_SHIPPED)
    yield _beside("launch to /ping", "s", launches_s, LAUNCH_S)
    yield _beside("server memory, idle", "MB", [idle_mb], IDLE_MB)
    yield _beside("server memory, after load", "MB", [loaded_mb], LOADED_MB)
    yield _promised("server memory after load, times less", LOADED_MB / loaded_mb, MEMORY)
    times["launch to /ping"] = LAUNCH_S / spread(launches_s).median
    times["server memory, after load"] = LOADED_MB / loaded_mb
    yield Chart(
        name="openwhisk",
        title="Times better than a recorded OpenWhisk",
        x_label="times",
        series=tuple(bar(what, value) for what, value in times.items()),
        style="bars",
        is_x_log=True,
    )


def _beside(what: str, unit: str, ours: list[float], openwhisk: float) -> Finding:
    return Finding(
        goal=GOAL.name,
        what=what,
        unit=unit,
        ours=spread(ours),
        floor=spread([openwhisk]),
        ratio=spread(value / openwhisk for value in ours),
        note="floor: OpenWhisk, as recorded",
    )


def _promised(what: str, times: float, least: float) -> Finding:
    return Finding(
        goal=GOAL.name,
        what=what,
        unit="×",
        ours=spread([times]),
        promise=f"≥ {least:.0f} × OpenWhisk",
        is_met=times >= least,
    )
