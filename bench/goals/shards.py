"""Two shards on two cores beside one, over containers that run nothing: the plane alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.goals import Goal
from bench.measure import Finding, interleaved, ratio, spread
from bench.server import platform
from visp import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("shards", "warm calls of two shards on two cores beside one, over containers that run nothing")
RATIO = 1.3
CLIENTS = 32
WORKERS = "workers"
FAKE = {"driver": "visp.container.fake:FakeDriver"}


def measure(rig: Rig) -> Iterator[Finding]:
    if WORKERS not in {leaf.toml_name for leaf in settings.leaves()}:
        yield Finding(
            goal=GOAL.name,
            what="throughput",
            promise=f"≥ {RATIO} × one shard",
            note=f"not measured: this version has no setting '{WORKERS}'",
        )
        return
    with platform({**FAKE, WORKERS: 2}) as two, platform({**FAKE, WORKERS: 1}) as one:
        for visp in (two, one):
            visp.put_action("noop", "{}")
            visp.load("actions/noop", clients=CLIENTS, seconds=1)
        ours, floor = interleaved(
            rig.rounds,
            lambda: two.load("actions/noop", clients=CLIENTS, seconds=rig.seconds).per_s,
            lambda: one.load("actions/noop", clients=CLIENTS, seconds=rig.seconds).per_s,
        )
    times = ratio(ours, floor)
    yield Finding(
        goal=GOAL.name,
        what=f"throughput, {CLIENTS} clients; floor: one shard",
        unit="/s",
        ours=spread(ours),
        floor=spread(floor),
        ratio=times,
        promise=f"≥ {RATIO} × one shard",
        is_met=times.median >= RATIO,
        note="the load generator has its share of the two cores",
    )
