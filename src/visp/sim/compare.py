"""One workload under several policies: what `visp sim` and the benchmarks call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp.sim.engine import Engine
from visp.sim.report import Report, summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from visp.sim.fleet import Setup
    from visp.sim.workload import Cut, Workload


def compare(
    workload: Workload,
    setup: Setup,
    policies: Sequence[str],
    *,
    seed: int,
    cut: Cut,
    progress: Callable[[str, int, float], None] | None = None,
) -> Report:
    """`progress` is told policy, arrivals and virtual seconds now and then. Raises `WorkloadError`."""
    reports = []
    for policy in policies:
        engine = Engine(workload.actions, setup, policy)
        told = None if progress is None else _for_policy(progress, policy)
        reports.append(summarise(policy, engine.run(cut.of(workload.arrivals()), told), setup))
    return Report(workload.source, seed, setup, reports)


def _for_policy(progress: Callable[[str, int, float], None], policy: str) -> Callable[[int, float], None]:
    return lambda arrived, at_s: progress(policy, arrived, at_s)
