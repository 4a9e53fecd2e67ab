"""What a simulation found, policy by policy: figures, and how they are written as a table, JSON and CSV."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from visp.sim.fleet import Setup

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from visp.sim.outcome import Outcome
    from visp.sim.tally import Quantiles

POINTS = 100
"""A distribution is given by its values at 0 %, 1 % … 100 %."""
MB_S_IN_GB_H = 1024.0 * 3600.0


class Delay(msgspec.Struct, frozen=True):
    """Milliseconds, within 1 %."""

    mean: float
    p50: float
    p90: float
    p99: float
    longest: float


class ColdStarts(msgspec.Struct, frozen=True):
    """`share` of all invocations; `of_actions` the distribution over actions of their own shares."""

    count: int
    share: float
    of_actions_p50: float
    of_actions_p75: float
    into_stem_cells: int
    reasons: dict[str, int]
    of_actions: list[float]


class Memory(msgspec.Struct, frozen=True):
    """Shares of all invokers' memory × time; `wasted` is what idle containers and stem cells held."""

    busy: float
    starting: float
    idle: float
    stem_cells: float
    wasted_gb_h: float


class Containers(msgspec.Struct, frozen=True):
    evicted: int
    expired: int
    stem_cells_started: int
    stem_cells_used: int


class Fairness(msgspec.Struct, frozen=True):
    """Of the namespaces' slowdowns: what a run took with its delay, over what it took (0.1 s at least), on average.

    `unfairness` is 1 less Jain's index: 0 when all are served alike, towards 1 when one bears it all.
    """

    unfairness: float
    slowdown_p50: float
    slowdown_p99: float
    slowdown_worst: float
    slowdowns: list[float]


class Timeline(msgspec.Struct, frozen=True):
    """Samples each `step_s`: memory in MB, how many wait, and totals of arrivals and cold starts up to then."""

    step_s: float
    columns: tuple[str, ...]
    rows: list[tuple[float, ...]]


class PolicyReport(msgspec.Struct, frozen=True):
    policy: str
    invocations: int
    refused: int
    end_s: float
    cold_starts: ColdStarts
    queueing_ms: Delay
    delay_ms: Delay
    memory: Memory
    containers: Containers
    fairness: Fairness
    timeline: Timeline


class Report(msgspec.Struct, frozen=True):
    """All that a run prints. The same inputs give the same bytes: no clock, no host, no order of hashing is in it."""

    workload: str
    seed: int
    setup: Setup
    policies: list[PolicyReport]

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)


def summarise(policy: str, outcome: Outcome, setup: Setup) -> PolicyReport:
    """The figures of one policy's run."""
    served = outcome.arrived - outcome.refused
    own_shares = sorted(
        cold / arrived for cold, arrived in zip(outcome.cold_of, outcome.arrived_of, strict=True) if arrived
    )
    slowdowns = sorted(total / runs for total, runs in zip(outcome.slowdown_of, outcome.runs_of, strict=True) if runs)
    capacity_mb_s = setup.invokers * setup.memory_mb * outcome.end_s or 1.0
    wasted_mb_s = outcome.idle_mb_s + outcome.cells_mb_s
    return PolicyReport(
        policy=policy,
        invocations=outcome.arrived,
        refused=outcome.refused,
        end_s=outcome.end_s,
        cold_starts=ColdStarts(
            count=outcome.cold,
            share=outcome.cold / served if served else 0.0,
            of_actions_p50=_quantile(own_shares, 0.5),
            of_actions_p75=_quantile(own_shares, 0.75),
            into_stem_cells=outcome.cells_used,
            reasons={reason.value: count for reason, count in outcome.reasons.items() if count},
            of_actions=_points(own_shares),
        ),
        queueing_ms=_delay(outcome.queueing),
        delay_ms=_delay(outcome.delay),
        memory=Memory(
            busy=outcome.busy_mb_s / capacity_mb_s,
            starting=outcome.starting_mb_s / capacity_mb_s,
            idle=outcome.idle_mb_s / capacity_mb_s,
            stem_cells=outcome.cells_mb_s / capacity_mb_s,
            wasted_gb_h=wasted_mb_s / MB_S_IN_GB_H,
        ),
        containers=Containers(
            evicted=outcome.evicted,
            expired=outcome.expired,
            stem_cells_started=outcome.cells_started,
            stem_cells_used=outcome.cells_used,
        ),
        fairness=Fairness(
            unfairness=1.0 - _jain(slowdowns),
            slowdown_p50=_quantile(slowdowns, 0.5),
            slowdown_p99=_quantile(slowdowns, 0.99),
            slowdown_worst=slowdowns[-1] if slowdowns else 0.0,
            slowdowns=_points(slowdowns),
        ),
        timeline=Timeline(outcome.series.step_s, outcome.series.names, outcome.series.rows),
    )


def table(report: Report) -> list[list[str]]:
    """Rows of cells for a reader: a head, then a line for each figure with a column for each policy."""
    rows = [["", *(one.policy for one in report.policies)]]
    rows += [[label, *(cells)] for label, cells in _lines(report.policies)]
    return rows


def csv(report: Report) -> str:
    """A line for each policy: every single figure, without distributions and time line."""
    flat = [dict(_flat(msgspec.to_builtins(one))) for one in report.policies]
    names = list(dict.fromkeys(name for one in flat for name in one))
    lines = [",".join(names), *(",".join(str(one.get(name, 0)) for name in names) for one in flat)]
    return "".join(f"{line}\n" for line in lines)


def _lines(policies: Sequence[PolicyReport]) -> list[tuple[str, list[str]]]:
    return [
        ("cold starts", [f"{one.cold_starts.share:.2%}" for one in policies]),
        ("  of the median action", [f"{one.cold_starts.of_actions_p50:.2%}" for one in policies]),
        ("  of the action at 75 %", [f"{one.cold_starts.of_actions_p75:.2%}" for one in policies]),
        ("  into a stem cell", [f"{one.cold_starts.into_stem_cells:,}" for one in policies]),
        ("queueing p50 / p99, ms", [f"{one.queueing_ms.p50:.1f} / {one.queueing_ms.p99:.1f}" for one in policies]),
        ("delay p50 / p99, ms", [f"{one.delay_ms.p50:.1f} / {one.delay_ms.p99:.1f}" for one in policies]),
        ("memory busy", [f"{one.memory.busy:.2%}" for one in policies]),
        ("memory idle", [f"{one.memory.idle + one.memory.stem_cells:.2%}" for one in policies]),
        ("wasted memory, GB h", [f"{one.memory.wasted_gb_h:,.1f}" for one in policies]),
        ("evicted", [f"{one.containers.evicted:,}" for one in policies]),
        ("expired", [f"{one.containers.expired:,}" for one in policies]),
        (
            "stem cells used / started",
            [f"{one.containers.stem_cells_used:,} / {one.containers.stem_cells_started:,}" for one in policies],
        ),
        ("unfairness", [f"{one.fairness.unfairness:.3f}" for one in policies]),
        (
            "  slowdown p50 / p99",
            [f"{one.fairness.slowdown_p50:.2f} / {one.fairness.slowdown_p99:.2f}" for one in policies],
        ),
        ("refused", [f"{one.refused:,}" for one in policies]),
    ]


def _flat(value: dict[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    for name, part in value.items():
        if isinstance(part, dict):
            if name != "timeline":
                yield from _flat(part, f"{prefix}{name.replace(' ', '_')}.")
        elif not isinstance(part, list):
            yield f"{prefix}{name.replace(' ', '_')}", part


def _delay(of: Quantiles) -> Delay:
    return Delay(of.mean_s * 1e3, of.at(0.5) * 1e3, of.at(0.9) * 1e3, of.at(0.99) * 1e3, of.longest_s * 1e3)


def _quantile(ordered: Sequence[float], quantile: float) -> float:
    """The smallest value that this part of all do not exceed."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(quantile * len(ordered)) - 1)]


def _points(ordered: Sequence[float]) -> list[float]:
    return [_quantile(ordered, point / POINTS) for point in range(POINTS + 1)] if ordered else []


def _jain(values: Sequence[float]) -> float:
    """Jain's fairness index: (sum of x)² / (n × sum of x²)."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0
