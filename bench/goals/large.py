"""A result of 1 MB, beside the same from a plain Node process; and small calls while large ones are on their way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import floors
from bench.goals import Goal
from bench.load import finish
from bench.measure import Finding, difference, interleaved, ratio, spread
from bench.server import NOOP, platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.load import Load
    from bench.rig import Rig
    from bench.server import Platform

GOAL = Goal("large", "a result of 1 MB from Node.js, one client")
LARGE = "const text = 'x'.repeat(1000000); function main() { return { text } }"
ADDED_MS, GROWTH = 3.0, 2.0


def measure(rig: Rig) -> Iterator[Finding]:
    with platform() as visp, floors.direct(rig.node, LARGE) as direct:
        visp.put_action("large", LARGE)
        visp.put_action("noop", NOOP)
        visp.load("actions/large", clients=1, seconds=1)
        visp.load("actions/noop", clients=1, seconds=1)
        direct.load(clients=1, seconds=1)
        ours, floor = interleaved(
            rig.rounds,
            lambda: visp.load("actions/large", clients=1, seconds=rig.seconds),
            lambda: direct.load(clients=1, seconds=rig.seconds),
        )
        beside, alone = interleaved(
            rig.rounds,
            lambda: beside_large(visp, rig.seconds),
            lambda: visp.load("actions/noop", clients=1, seconds=rig.seconds),
        )
    own_ms, floor_ms = ([load.p50_us / 1000 for load in side] for side in (ours, floor))
    added = difference(own_ms, floor_ms)
    yield Finding(
        goal=GOAL.name,
        what="p50, 1 client",
        unit="ms",
        ours=spread(own_ms),
        floor=spread(floor_ms),
        ratio=ratio(own_ms, floor_ms),
    )
    yield Finding(
        goal=GOAL.name,
        what="p50 added to direct",
        unit="ms",
        ours=added,
        promise=f"≤ {ADDED_MS:.0f} ms",
        is_met=added.median <= ADDED_MS,
    )
    beside_ms, alone_ms = ([load.p99_us / 1000 for load in side] for side in (beside, alone))
    growth = ratio(beside_ms, alone_ms)
    yield Finding(
        goal=GOAL.name,
        what="p99 of small calls beside; floor: alone",
        unit="ms",
        ours=spread(beside_ms),
        floor=spread(alone_ms),
        ratio=growth,
        promise=f"≤ {GROWTH:.0f} × alone",
        is_met=growth.median <= GROWTH,
    )


def beside_large(visp: Platform, seconds: int) -> Load:
    """Small calls by one client while another one asks for large results, one after the other."""
    large = visp.begin_load("actions/large", clients=1, seconds=seconds)
    small = visp.load("actions/noop", clients=1, seconds=seconds)
    finish(large)
    return small
