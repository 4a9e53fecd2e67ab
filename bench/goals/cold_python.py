"""A cold Python start without a stem cell, beside a bare fork into fresh namespaces."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from tests.images import engine as engines

from bench import floors
from bench.goals import Goal
from bench.goals.cold import ColdStarts, chart, medians_ms
from bench.measure import Chart, Finding, bar, interleaved, ratio, spread
from bench.server import GREETING, HELLO_PYTHON, NAME, PYTHON_KIND, platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("cold_python", "a cold Python hello in the sandbox, no stem cell: create, init, run")
LIMIT_MS, RATIO, DOCKER = 8.0, 2.0, 50.0
STARTS_OF_DOCKER = 10


def measure(rig: Rig) -> Iterator[Finding | Chart]:
    with (
        platform({"pool.stem_cells": 0}) as visp,
        platform() as with_cells,
        floors.fork_hello(rig.python) as prepared,
    ):
        own_ms, cell_ms, floor_ms = medians_ms(
            rig,
            ColdStarts(visp, HELLO_PYTHON, PYTHON_KIND).start_s,
            ColdStarts(with_cells, HELLO_PYTHON, PYTHON_KIND).start_s,
            lambda: prepared.start_s(HELLO_PYTHON, NAME, expected=GREETING),
        )
        docker = beside_docker(ColdStarts(visp, HELLO_PYTHON, PYTHON_KIND))
    ours, times = spread(own_ms), ratio(own_ms, floor_ms)
    yield Finding(
        goal=GOAL.name,
        what="p50; floor: fork in fresh namespaces",
        unit="ms",
        ours=ours,
        floor=spread(floor_ms),
        ratio=times,
        promise=f"≤ {RATIO:.0f} × floor",
        is_met=times.median <= RATIO,
    )
    yield Finding(
        goal=GOAL.name,
        what="p50",
        unit="ms",
        ours=ours,
        promise=f"≤ {LIMIT_MS:.0f} ms",
        is_met=ours.median <= LIMIT_MS,
        note="promised for a quiet machine",
    )
    yield docker
    yield Finding(goal=GOAL.name, what="p50, with a stem cell", unit="ms", ours=spread(cell_ms))
    yield chart(
        bar("Python, no stem cell", ours.median),
        bar("Python, stem cell", spread(cell_ms).median),
        bar("floor: fork in fresh namespaces", spread(floor_ms).median),
    )


def beside_docker(own: ColdStarts) -> Finding:
    what, promise = "p50; rival: docker run of the same", f"{DOCKER:.0f} × faster"
    try:
        with engines.running() as engine:
            run = floors.DockerRun(engine)
            theirs, ours = interleaved(
                STARTS_OF_DOCKER, lambda: run.start_s(HELLO_PYTHON, NAME, expected=GREETING), own.start_s
            )
    except engines.NoEngine as none:
        return Finding(goal=GOAL.name, what=what, promise=promise, note=f"not measured: {none}")
    faster = statistics.median(theirs) / statistics.median(ours)
    return Finding(
        goal=GOAL.name,
        what=what,
        unit="ms",
        ours=spread([1000 * each for each in ours]),
        floor=spread([1000 * each for each in theirs]),
        promise=promise,
        is_met=faster >= DOCKER,
        note=f"{faster:.0f} × faster",
    )
