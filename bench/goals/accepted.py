"""Non-blocking invocations accepted, each on disk before its 202."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.goals import Goal
from bench.goals.burst import CLIENTS, burst
from bench.measure import Finding, spread
from bench.server import NOOP, platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("accepted", "non-blocking invocations accepted (202) durably, 64 clients")
ACCEPTED_PER_S, P50_MS = 10_000, 3.0


def measure(rig: Rig) -> Iterator[Finding]:
    with platform() as visp:
        visp.put_action("noop", NOOP)
        visp.load("actions/noop", clients=CLIENTS, seconds=1)
        bursts = [
            burst(visp, "actions/noop", query="blocking=false", seconds=rig.burst_s, records_each=1)
            for _ in range(rig.bursts)
        ]
    accepted, p50_ms = spread(b.load.per_s for b in bursts), spread(b.load.p50_us / 1000 for b in bursts)
    refused = sum(b.load.refused for b in bursts)
    yield Finding(
        goal=GOAL.name,
        what=f"accepted in a burst of {rig.burst_s} s",
        unit="/s",
        ours=accepted,
        promise=f"≥ {ACCEPTED_PER_S:,} /s, none refused",
        is_met=accepted.median >= ACCEPTED_PER_S and not refused,
        note=f"{refused} refused",
    )
    yield Finding(
        goal=GOAL.name,
        what="p50",
        unit="ms",
        ours=p50_ms,
        promise=f"≤ {P50_MS:.0f} ms",
        is_met=p50_ms.median <= P50_MS,
    )
    yield Finding(
        goal=GOAL.name,
        what="executed, until the last has ended",
        unit="/s",
        ours=spread(b.executed_per_s for b in bursts),
    )
