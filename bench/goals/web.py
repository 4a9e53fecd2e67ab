"""Web actions by many clients, beside blocking invocations of the same action on the same server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.goals import Goal
from bench.measure import Finding, interleaved, ratio, spread
from bench.server import platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("web", "a web action's answers in Node.js, 1 and 32 clients")
RATIO = 0.9
CODE = "const main = () => ({body: {ok: true}})"


def measure(rig: Rig) -> Iterator[Finding]:
    with platform() as visp:
        visp.put_action("page", CODE, annotations={"web-export": True})
        for clients in (1, 32):
            visp.load("actions/page", clients=clients, seconds=1)
            visp.load_web("page", clients=clients, seconds=1)
            ours, floor = interleaved(
                rig.rounds,
                lambda clients=clients: visp.load_web("page", clients=clients, seconds=rig.seconds).per_s,
                lambda clients=clients: visp.load("actions/page", clients=clients, seconds=rig.seconds).per_s,
            )
            times = ratio(ours, floor)
            yield Finding(
                goal=GOAL.name,
                what=f"GET, {clients} client{'s' * (clients > 1)}; floor: a blocking invocation",
                unit="/s",
                ours=spread(ours),
                floor=spread(floor),
                ratio=times,
                promise=f"≥ {RATIO} × a blocking invocation",
                is_met=times.median >= RATIO,
            )
