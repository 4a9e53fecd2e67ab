"""A sequence of three no-ops, beside one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.goals import Goal
from bench.measure import Finding, interleaved, ratio, spread
from bench.server import NOOP, platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("sequence", "a sequence of three warm no-ops in Node.js, one client")
PARTS = 3
RATIO = 3.2


def measure(rig: Rig) -> Iterator[Finding]:
    with platform() as visp:
        visp.put_action("noop", NOOP)
        visp.put("actions", "three", {"exec": {"kind": "sequence", "components": ["/_/noop"] * PARTS}})
        visp.load("actions/three", clients=1, seconds=1)
        ours, floor = interleaved(
            rig.rounds,
            lambda: visp.load("actions/three", clients=1, seconds=rig.seconds),
            lambda: visp.load("actions/noop", clients=1, seconds=rig.seconds),
        )
    own_ms, floor_ms = ([load.p50_us / 1000 for load in side] for side in (ours, floor))
    times = ratio(own_ms, floor_ms)
    yield Finding(
        goal=GOAL.name,
        what="p50, 1 client; floor: one no-op",
        unit="ms",
        ours=spread(own_ms),
        floor=spread(floor_ms),
        ratio=times,
        promise=f"≤ {RATIO} × one",
        is_met=times.median <= RATIO,
    )
