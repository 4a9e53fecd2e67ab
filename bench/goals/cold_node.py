"""Cold Node.js starts, with a stem cell and without, beside the start of plain Node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import floors
from bench.goals import Goal
from bench.goals.cold import ColdStarts, chart, medians_ms
from bench.measure import Chart, Finding, bar, ratio, spread
from bench.server import HELLO_NODE, NODE_KIND, platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("cold_node", "a cold Node.js hello in the sandbox: create, init, run")
LIMIT_MS, RATIO = 10.0, 1.3


def measure(rig: Rig) -> Iterator[Finding | Chart]:
    with platform() as with_cells, platform({"pool.stem_cells": 0}) as without:
        cell_ms, none_ms, floor_ms = medians_ms(
            rig,
            ColdStarts(with_cells, HELLO_NODE, NODE_KIND).start_s,
            ColdStarts(without, HELLO_NODE, NODE_KIND).start_s,
            lambda: floors.node_start_s(rig.node),
        )
    cell, times = spread(cell_ms), ratio(none_ms, floor_ms)
    yield Finding(
        goal=GOAL.name,
        what="p50, with a stem cell",
        unit="ms",
        ours=cell,
        promise=f"≤ {LIMIT_MS:.0f} ms",
        is_met=cell.median <= LIMIT_MS,
    )
    yield Finding(
        goal=GOAL.name,
        what="p50, without; floor: plain node",
        unit="ms",
        ours=spread(none_ms),
        floor=spread(floor_ms),
        ratio=times,
        promise=f"≤ {RATIO} × floor",
        is_met=times.median <= RATIO,
    )
    yield chart(
        bar("Node.js, no stem cell", spread(none_ms).median),
        bar("Node.js, stem cell", cell.median),
        bar("floor: plain node", spread(floor_ms).median),
    )
