"""What it costs that accepted work survives: after a sync, after a write, and not at all."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

from bench.goals import Goal
from bench.goals.burst import CLIENTS, burst
from bench.measure import Finding, interleaved, ratio, spread
from bench.server import NOOP, platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.goals.burst import Burst
    from bench.rig import Rig

GOAL = Goal("durability", "non-blocking invocations accepted with each durability, 64 clients; floor: no ledger")
LEAST = 0.6
SIDES = (("power", "visp"), ("process", "visp"), ("power", "bench.floors.forgetful"))


def measure(rig: Rig) -> Iterator[Finding]:
    with contextlib.ExitStack() as stack:
        sides: list[partial[Burst]] = []
        for durability, module in SIDES:
            visp = stack.enter_context(platform({"ledger.durability": durability}, module=module))
            visp.put_action("noop", NOOP)
            visp.load("actions/noop", clients=CLIENTS, seconds=1)
            sides.append(
                partial(burst, visp, "actions/noop", query="blocking=false", seconds=rig.seconds, records_each=1)
            )
        power, process, none = interleaved(rig.rounds, *sides)
    accepted_by_none = [one.load.per_s for one in none]
    for name, bursts in (("power", power), ("process", process)):
        accepted = [one.load.per_s for one in bursts]
        share = ratio(accepted, accepted_by_none)
        is_promised = name == "process"
        yield Finding(
            goal=GOAL.name,
            what=f"accepted, {name}",
            unit="/s",
            ours=spread(accepted),
            floor=spread(accepted_by_none),
            ratio=share,
            promise=f"≥ {LEAST:.0%} of no ledger" if is_promised else "",
            is_met=share.median >= LEAST if is_promised else None,
        )
        executed, executed_by_none = ([one.executed_per_s for one in side] for side in (bursts, none))
        yield Finding(
            goal=GOAL.name,
            what=f"executed, until the last has ended, {name}",
            unit="/s",
            ours=spread(executed),
            floor=spread(executed_by_none),
            ratio=ratio(executed, executed_by_none),
        )
