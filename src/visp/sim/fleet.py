"""The simulated invokers and their containers: who holds how much memory, what is idle, what waits.

The state of `invoker/shelf.py` reduced to what a simulation needs: numbers in place of names, no pausing, and an order
of eviction that is kept instead of made anew for each look, for there may be thousands of containers. What waits
(`invoker/waiting.py`) and what draws on stem cells (`invoker/cell_demand.py`) are the server's own.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from enum import IntEnum, auto
from typing import TYPE_CHECKING, Any

import msgspec

from visp.invoker.cell_demand import CellDemand
from visp.invoker.fair import may_evict
from visp.invoker.job import Cold
from visp.invoker.keepalive import Usage
from visp.invoker.plan import PROTECTED_S
from visp.invoker.prewarm import Cell
from visp.invoker.waiting import Waiting

if TYPE_CHECKING:
    from collections import deque

    from visp.invoker.keepalive import Policy

KIND = "any"
"""The traces do not tell kinds: all actions are of one."""
STALE_PART = 16
"""Worths change while containers are idle. They are looked up again after a sixteenth of the idle ones was evicted."""


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """The simulated machines, all alike; the last three are the server's settings of those names."""

    invokers: int
    memory_mb: int
    starts_at_once: int
    idle_s: float
    stem_cells_most: int


class Standing(IntEnum):
    STARTING = auto()
    CELL = auto()
    """Started, without code."""
    IDLE = auto()
    BUSY = auto()
    GONE = auto()


class Key:
    """One action; what `Waiting` orders by."""

    __slots__ = ("action", "memory_mb", "namespace", "namespace_number")

    def __init__(self, action: int, namespace: str, namespace_number: int, memory_mb: int) -> None:
        self.action = action
        self.namespace = namespace
        self.namespace_number = namespace_number
        self.memory_mb = memory_mb


class Job:
    """An invocation that waits, as `Waiting` knows it."""

    __slots__ = ("arrived_s", "key", "look_s", "placed_s", "run_s")

    def __init__(self, key: Key, arrived_s: float, run_s: float) -> None:
        self.key = key
        self.arrived_s = arrived_s
        self.placed_s = arrived_s
        self.run_s = run_s
        self.look_s = float("inf")
        """When it is looked at again, unless something happens before."""


class Container:
    """`key` None: a stem cell. `check_s` is when its time-out is looked at next."""

    __slots__ = (
        "age",
        "check_s",
        "idle_since_s",
        "invoker",
        "job",
        "keep_s",
        "key",
        "memory_mb",
        "pauses_seen",
        "priority",
        "run_s",
        "serial",
        "standing",
        "usage",
    )

    def __init__(self, invoker: Invoker, serial: int, memory_mb: int, now_s: float) -> None:
        self.invoker = invoker
        self.serial = serial
        self.memory_mb = memory_mb
        self.key: Key | None = None
        self.usage: Usage | None = None
        self.job: Job | None = None
        self.standing = Standing.STARTING
        self.idle_since_s = now_s
        self.age = self.priority = 0.0
        self.run_s = 0.0
        self.check_s = float("inf")
        self.keep_s = 0.0
        self.pauses_seen = -1
        """How many pauses had been seen when `keep_s` was asked for."""


class Invoker:
    """One invoker. `ready` has no empty lists; `idle` is sorted, the least worth first."""

    __slots__ = (
        "age",
        "blocked",
        "cell_demand",
        "cells",
        "coming",
        "engaged",
        "evicted_since",
        "held_mb",
        "id",
        "idle",
        "initializing",
        "is_ticking",
        "memory_mb",
        "ready",
        "starts",
        "sweep_s",
        "usages",
        "used_mb",
        "waiting",
    )

    def __init__(self, id: int, memory_mb: int, policy: Policy, stem_cells_most: int) -> None:
        self.id = id
        self.memory_mb = memory_mb
        self.used_mb = 0
        self.starts = 0
        self.ready: dict[int, list[Container]] = {}
        self.idle: list[tuple[float, int, Container]] = []
        self.cells: dict[int, list[Container]] = {}
        """By memory; no empty lists."""
        self.coming: list[Container] = []
        """Stem cells that are being started."""
        self.usages: dict[int, Usage] = {}
        self.engaged: dict[int, int] = {}
        self.initializing: dict[int, int] = {}
        self.held_mb: dict[int, int] = {}
        # It asks of a job what `Job` and `Key` above have as well.
        self.waiting: Any = Waiting()
        self.blocked: Job | None = None
        self.cell_demand = CellDemand((), stem_cells_most, policy, 0.0)
        self.is_ticking = False
        """Whether a look at all that waits is in the calendar."""
        self.sweep_s = float("inf")
        self.age = 0.0
        self.evicted_since = 0

    @property
    def queues(self) -> dict[Key, deque[Job]]:
        queues: dict[Key, deque[Job]] = self.waiting.queues
        return queues

    def usage_of(self, action: int, now_s: float) -> Usage:
        usage = self.usages.get(action)
        if usage is None:
            usage = self.usages[action] = Usage(now_s)
        return usage

    # ── containers ──────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, serial: int, memory_mb: int, now_s: float) -> Container:
        """A container that is being started."""
        self.used_mb += memory_mb
        self.starts += 1
        return Container(self, serial, memory_mb, now_s)

    def assign(self, container: Container, key: Key, usage: Usage, job: Job) -> None:
        """The container is brought up for this job, and serves its key from now on."""
        if container.standing is Standing.CELL:
            self._take_cell(container)
            self.starts += 1
        container.key, container.usage, container.job = key, usage, job
        container.standing = Standing.STARTING
        held_mb, namespace = self.held_mb, key.namespace_number
        held_mb[namespace] = held_mb.get(namespace, 0) + container.memory_mb
        action = key.action
        self.initializing[action] = self.initializing.get(action, 0) + 1
        self.engaged[action] = self.engaged.get(action, 0) + 1

    def initialized(self, container: Container, action: int) -> None:
        self.starts -= 1
        count_down(self.initializing, action)
        container.standing = Standing.BUSY

    def shelve(self, container: Container, action: int, priority: float) -> None:
        """A container that was released is idle."""
        container.standing = Standing.IDLE
        ready = self.ready.get(action)
        if ready is None:
            self.ready[action] = [container]
        else:
            ready.append(container)
        container.priority = priority
        insort(self.idle, (priority, container.serial, container))

    def fetch(self, action: int) -> Container | None:
        """A warm container, which is busy from now on."""
        ready = self.ready.get(action)
        if ready is None:
            return None
        container = ready.pop()
        if not ready:
            del self.ready[action]
        self._unlist(container)
        container.standing = Standing.BUSY
        engaged = self.engaged
        engaged[action] = engaged.get(action, 0) + 1
        return container

    def remove(self, container: Container, why: Cold) -> bool:
        """The container is gone at once. Whether it was the last of its action."""
        if container.standing is Standing.CELL:
            self._take_cell(container)
        elif container.standing is Standing.IDLE:
            assert container.key is not None
            ready = self.ready[container.key.action]
            ready.remove(container)
            if not ready:
                del self.ready[container.key.action]
            self._unlist(container)
        container.standing = Standing.GONE
        self.used_mb -= container.memory_mb
        if why is Cold.EVICTED:
            self.age = max(self.age, container.priority)
        key, usage = container.key, container.usage
        if key is None or usage is None:
            return False
        count_down(self.held_mb, key.namespace_number, container.memory_mb)
        usage.gone = why
        usage.last_s = container.idle_since_s
        return key.action not in self.ready and key.action not in self.engaged

    def add_coming_cell(self, serial: int, memory_mb: int, now_s: float) -> Container:
        container = self.add(serial, memory_mb, now_s)
        self.coming.append(container)
        return container

    def cell_is_up(self, container: Container) -> None:
        self.starts -= 1
        self.coming.remove(container)
        container.standing = Standing.CELL
        self.cells.setdefault(container.memory_mb, []).append(container)

    def _take_cell(self, container: Container) -> None:
        cells = self.cells[container.memory_mb]
        cells.remove(container)
        if not cells:
            del self.cells[container.memory_mb]

    def _unlist(self, container: Container) -> None:
        at = bisect_left(self.idle, (container.priority, container.serial))
        assert self.idle[at][2] is container
        del self.idle[at]

    # ── what planning asks ──────────────────────────────────────────────────────────────────────────────────────

    def spare(self) -> list[Container]:
        return [container for cells in self.cells.values() for container in cells]

    def evictable(self, key: Key, needed_mb: int, policy: Policy, now_s: float) -> list[Container]:
        """The idle containers that the key's namespace may have removed, the least worth first, as far as needed."""
        if self.evicted_since * STALE_PART >= len(self.idle):
            self._order_anew(policy, now_s)
        held_mb, namespace = self.held_mb, key.namespace_number
        own_mb = held_mb.get(namespace, 0)
        out: list[Container] = []
        for _, _, container in self.idle:
            if needed_mb <= 0:
                break
            assert container.key is not None
            owner = container.key.namespace_number
            if (
                owner == namespace
                or now_s - container.idle_since_s >= PROTECTED_S
                or may_evict(key.memory_mb, own_mb, held_mb[owner])
            ):
                out.append(container)
                needed_mb -= container.memory_mb
        return out

    def _order_anew(self, policy: Policy, now_s: float) -> None:
        self.evicted_since = 0
        for _, _, container in self.idle:
            assert container.usage is not None
            container.priority = policy.priority(
                container.usage, container.memory_mb, container.age, container.idle_since_s, now_s
            )
        self.idle = sorted((container.priority, container.serial, container) for _, _, container in self.idle)

    def cell_counts(self) -> dict[Cell, int]:
        """Stem cells by sort, those that are being started included."""
        out = {Cell(KIND, memory_mb): len(cells) for memory_mb, cells in self.cells.items()}
        for container in self.coming:
            cell = Cell(KIND, container.memory_mb)
            out[cell] = out.get(cell, 0) + 1
        return out

    def __repr__(self) -> str:
        return f"<invoker {self.id} {self.used_mb}/{self.memory_mb}MB starts={self.starts} waiting={len(self.waiting)}>"


def count_down(counts: dict[int, int], key: int, by: int = 1) -> None:
    left = counts[key] - by
    if left:
        counts[key] = left
    else:
        del counts[key]
