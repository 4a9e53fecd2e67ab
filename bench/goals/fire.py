"""Fires of a trigger with one rule, each on disk with what it starts before its 202."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.goals import Goal
from bench.goals.burst import CLIENTS, burst
from bench.measure import Finding, spread
from bench.server import NOOP, platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("fire", "fires of a trigger with one rule, accepted durably, 64 clients")
ACCEPTED_PER_S = 6_000


def measure(rig: Rig) -> Iterator[Finding]:
    with platform() as visp:
        visp.put_action("noop", NOOP)
        visp.put("triggers", "event", {})
        visp.put("rules", "on-event", {"trigger": "/_/event", "action": "/_/noop"})
        visp.load("actions/noop", clients=CLIENTS, seconds=1)
        bursts = [
            burst(visp, "triggers/event", query="", seconds=rig.burst_s, records_each=2) for _ in range(rig.bursts)
        ]
    accepted = spread(b.load.per_s for b in bursts)
    refused = sum(b.load.refused for b in bursts)
    yield Finding(
        goal=GOAL.name,
        what=f"accepted in a burst of {rig.burst_s} s",
        unit="/s",
        ours=accepted,
        promise=f"≥ {ACCEPTED_PER_S:,} /s",
        is_met=accepted.median >= ACCEPTED_PER_S,
        note=f"{refused} refused",
    )
    yield Finding(
        goal=GOAL.name,
        what="p50",
        unit="ms",
        ours=spread(b.load.p50_us / 1000 for b in bursts),
    )
    yield Finding(
        goal=GOAL.name,
        what="activations (two a fire), until the last has ended",
        unit="/s",
        ours=spread(b.executed_per_s for b in bursts),
    )
