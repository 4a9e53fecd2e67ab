"""What of an invocation's CPU is visp's own Python: the plane alone, with its wires and writes stubbed (`plane.py`)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bench import gate, profile
from bench.goals import Goal
from bench.measure import Finding, spread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("own_python", "own Python of a warm invocation, everything around it stubbed")
LIMIT_US = 15.0


def measure(rig: Rig) -> Iterator[Finding]:
    with profile.attached(os.getpid()):
        rounds = [gate.measure() for _ in range(rig.rounds)]
    ours = spread(own.invocation_us for own in rounds)
    yield Finding(
        goal=GOAL.name,
        what="CPU of an invocation; floor: the gate's reference",
        unit="µs",
        ours=ours,
        floor=spread(own.reference_us for own in rounds),
        ratio=spread(own.ratio for own in rounds),
        promise=f"≤ {LIMIT_US:.0f} µs (least round)",
        is_met=ours.low <= LIMIT_US,
        note="the gate of CI holds the ratio",
    )
