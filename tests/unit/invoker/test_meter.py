"""What an invoker counts of the activations that it ends."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from visp.container.base import Way
from visp.entity.activation import Phases, Status
from visp.invoker.meter import (
    COLD_STARTS,
    CONTAINERS,
    MADE,
    MEMORY_LIMIT,
    MEMORY_USED,
    OUTCOMES,
    PHASE_SECONDS,
    REMOVED,
    WAITING,
    Meter,
)
from visp.invoker.slot import State
from visp.telemetry.metrics import Distribution

SLOTS = {str(n): SimpleNamespace(state=state) for n, state in enumerate((State.BUSY, State.BUSY, State.PAUSED))}
SHELF = SimpleNamespace(slots=SLOTS, evicted=4, expired=5, made=Counter({Way.COPIED: 6}))
POOL: Any = SimpleNamespace(used_mb=256, memory_mb=1024, waiting=3, shelf=SHELF)
WARM = Phases(0, 5, None, None, 20, 420, 430, 440)
COLD = Phases(0, 1000, 6000, 16_000, 16_010, 20_010, 20_020, 20_030, "first use")
STEM_CELL = Phases(0, 1000, None, 3000, 3010, 4010, None, 4030, "all busy")
NOT_BEGUN = Phases(0, 1000, None, None, None, None, None, 2000, "expired")


def shown(meter: Meter) -> dict[str, dict[tuple[str, ...], Any]]:
    return {family.name: family.samples for family in meter.families(POOL)}


def sums_us(meter: Meter) -> dict[str, int]:
    samples = shown(meter)[PHASE_SECONDS].items()
    return {name: round(value.sum_s * 1e6) for (name,), value in samples if isinstance(value, Distribution)}


def counts(meter: Meter) -> dict[str, int]:
    return {name: value.buckets[-1][1] for (name,), value in shown(meter)[PHASE_SECONDS].items()}


def test_a_warm_run() -> None:
    meter = Meter()
    meter.record("python:3.11", Status.SUCCESS, WARM)
    assert sums_us(meter) == {"wait": 5, "create": 0, "init": 0, "run": 400, "logs": 10}
    assert counts(meter) == {"wait": 1, "create": 0, "init": 0, "run": 1, "logs": 1}
    assert shown(meter)[COLD_STARTS] == {}
    assert shown(meter)[OUTCOMES] == {("python:3.11", "success"): 1}


def test_a_cold_run_in_a_new_container_and_in_a_stem_cell() -> None:
    meter = Meter()
    meter.record("python:3.11", Status.SUCCESS, COLD)
    assert sums_us(meter) == {"wait": 1000, "create": 5000, "init": 10_000, "run": 4000, "logs": 10}
    meter.record("nodejs:20", Status.APPLICATION_ERROR, STEM_CELL)
    assert sums_us(meter) == {"wait": 2000, "create": 5000, "init": 12_000, "run": 5000, "logs": 10}
    assert shown(meter)[COLD_STARTS] == {("python:3.11", "first use"): 1, ("nodejs:20", "all busy"): 1}
    meter.record_late_logs(90)
    assert sums_us(meter)["logs"] == 100


def test_what_never_ran_has_no_duration() -> None:
    meter = Meter()
    meter.record("python:3.11", Status.INTERNAL_ERROR, NOT_BEGUN)
    assert counts(meter) == {"wait": 1, "create": 0, "init": 0, "run": 0, "logs": 0}
    assert shown(meter)[OUTCOMES] == {("python:3.11", "whisk internal error"): 1}
    assert shown(meter)[COLD_STARTS] == {("python:3.11", "expired"): 1}


def test_the_pool_as_it_is() -> None:
    samples = shown(Meter())
    assert samples[MEMORY_USED] == {(): 256 << 20}
    assert samples[MEMORY_LIMIT] == {(): 1024 << 20}
    assert samples[WAITING] == {(): 3}
    assert samples[MADE] == {("started",): 0, ("forked",): 0, ("copied",): 6}
    assert samples[REMOVED] == {("evicted",): 4, ("expired",): 5}
    assert {state: count for state, count in samples[CONTAINERS].items() if count} == {("busy",): 2, ("paused",): 1}
    assert ("ready",) in samples[CONTAINERS]
