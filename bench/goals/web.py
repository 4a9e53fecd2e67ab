"""Web actions by many clients, beside blocking invocations of the same action on the same server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.goals import Goal
from bench.measure import beside_invocations
from bench.server import platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.measure import Finding
    from bench.rig import Rig

GOAL = Goal("web", "a web action's answers in Node.js, 1 and 32 clients")
RATIO = 0.9
CODE = "const main = () => ({body: {ok: true}})"


def measure(rig: Rig) -> Iterator[Finding]:
    with platform() as visp:
        visp.put_action("page", CODE, annotations={"web-export": True})
        yield from beside_invocations(
            GOAL.name,
            rig.rounds,
            rig.seconds,
            RATIO,
            lambda clients, seconds: visp.load_web("page", clients=clients, seconds=seconds),
            lambda clients, seconds: visp.load("actions/page", clients=clients, seconds=seconds),
        )
