"""What is asked of the simulated platform: a table of actions, and arrivals in order of time."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Arrival = tuple[float, int, float]
"""When (seconds since the beginning), which action (its row), for how long it runs (seconds)."""

LONGEST_RUN_S = 600.0
"""Runs are cut off here: no platform lets them go on for ever (the traces' own limit was 10 minutes)."""


class WorkloadError(Exception):
    """A workload that cannot be read or made; the sentence says which file and line, if it is one."""


class Actions:
    """The actions by number, in columns: a million of them take 20 MB and the names that they came with.

    `cold_s` is how long a whole cold start takes. Names of generated ones are made when they are asked for.
    """

    __slots__ = ("cold_s", "memory_mb", "names", "namespace", "namespaces")

    def __init__(self) -> None:
        self.namespace = array("I")
        self.memory_mb = array("I")
        self.cold_s = array("d")
        self.names: Sequence[str] | None = None
        self.namespaces: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.namespace)

    def add(self, namespace: int, memory_mb: int, cold_s: float) -> int:
        """The number of the new action."""
        self.namespace.append(namespace)
        self.memory_mb.append(memory_mb)
        self.cold_s.append(cold_s)
        return len(self.namespace) - 1

    def name_of(self, action: int) -> str:
        return f"action{action}" if self.names is None else self.names[action]

    def namespace_name(self, namespace: int) -> str:
        return f"ns{namespace}" if self.namespaces is None else self.namespaces[namespace]

    def namespace_of(self, action: int) -> str:
        return self.namespace_name(self.namespace[action])


class Workload(Protocol):
    """Something to simulate. The same object gives the same arrivals as often as it is asked."""

    @property
    def actions(self) -> Actions: ...

    @property
    def source(self) -> str:
        """A line for the report: where it is from, with what parameters."""
        ...

    def arrivals(self) -> Iterator[Arrival]:
        """Sorted by time; raises `WorkloadError` where a file is damaged."""
        ...


class Cut(NamedTuple):
    """How much of a workload is wanted: its first `seconds`, its first `invocations`; None: all."""

    seconds: float | None = None
    invocations: int | None = None

    def of(self, arrivals: Iterator[Arrival]) -> Iterator[Arrival]:
        left = -1 if self.invocations is None else self.invocations
        until_s = float("inf") if self.seconds is None else self.seconds
        for arrival in arrivals:
            if left == 0 or arrival[0] >= until_s:
                return
            left -= 1
            yield arrival
