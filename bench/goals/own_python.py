"""What of an invocation's CPU is visp's own Python: the plane alone, with its wires and writes stubbed (`plane.py`).

CPU time of the loop's thread, in short batches that take turns with the gate's reference; a low quantile of them
counts, for others can only add to them.
"""

from __future__ import annotations

import gc
import os
import time
from typing import TYPE_CHECKING

import msgspec
import uvloop

from bench import gate, profile
from bench.goals import Goal
from bench.measure import Finding, spread
from bench.plane import CONNECTIONS, plane
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.rig import Rig

GOAL = Goal("own_python", "own Python of a warm invocation, everything around it stubbed")
LIMIT_US = 15.0
BATCHES = 1_000
"""Of each side, a millisecond or less each: shorter than what the scheduler gives to others."""
REFERENCES = 3
QUANTILE = 0.05


class Own(msgspec.Struct, frozen=True):
    """CPU time of a warm invocation, and of the reference beside it, on an undisturbed machine."""

    invocation_us: float
    reference_us: float


def measure(rig: Rig) -> Iterator[Finding]:
    log.set_level("error")
    with profile.attached(os.getpid()):
        rounds = [uvloop.run(_measure()) for _ in range(rig.rounds)]
    ours = spread(own.invocation_us for own in rounds)
    yield Finding(
        goal=GOAL.name,
        what="CPU of an invocation; floor: the gate's reference",
        unit="µs",
        ours=ours,
        floor=spread(own.reference_us for own in rounds),
        ratio=spread(own.invocation_us / own.reference_us for own in rounds),
        promise=f"≤ {LIMIT_US:.0f} µs (least round)",
        is_met=ours.low <= LIMIT_US,
        note="the gate of CI holds its instructions",
    )


async def _measure() -> Own:
    invocations: list[float] = []
    references: list[float] = []
    async with plane() as measured:
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            for _ in range(BATCHES):
                began_s = time.thread_time()
                await measured.round()
                ended_s = time.thread_time()
                for number in range(REFERENCES):
                    gate.reference(number)
                references.append((time.thread_time() - ended_s) / REFERENCES * 1e6)
                invocations.append((ended_s - began_s) / CONNECTIONS * 1e6)
        finally:
            gc.enable()
            gc.unfreeze()
        measured.check()
    return Own(undisturbed(invocations), undisturbed(references))


def undisturbed(batches: Sequence[float]) -> float:
    """What a batch costs when nobody is in the way: the value at a low quantile. Pure."""
    return sorted(batches)[int(len(batches) * QUANTILE)]
