"""The goals, a file each: `GOAL` says what is promised, `measure` finds out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol, cast

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.measure import Chart, Finding
    from bench.rig import Rig

NAMES = (
    "warm",
    "throughput",
    "web",
    "gateway",
    "cpu",
    "own_python",
    "openwhisk",
    "sequence",
    "cold_python",
    "cold_node",
    "cold_native",
    "cold_kinds",
    "cold_rate",
    "working_set",
    "resume",
    "rush",
    "fairness",
    "accepted",
    "fire",
    "durability",
    "recovery",
    "large",
    "records",
    "growth",
    "reads",
    "shards",
    "launch",
    "memory",
    "idle",
    "alarms",
    "changes",
)
"""In the order in which they are measured."""


class Goal(msgspec.Struct, frozen=True):
    name: str
    sentence: str


class Benchmark(Protocol):
    """What each file here is."""

    GOAL: Goal

    def measure(self, rig: Rig) -> Iterator[Finding | Chart]: ...


def benchmark(name: str) -> Benchmark:
    return cast("Benchmark", importlib.import_module(f"bench.goals.{name}"))
