"""What planning is shown of this invoker, and who has to give way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp.invoker.fair import gives_way, may_evict
from visp.invoker.plan import PROTECTED_S, Demand, View
from visp.invoker.prewarm import Cell

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.clock import Clock
    from visp.entity.action import Action
    from visp.invoker.cores import Cores
    from visp.invoker.job import Job
    from visp.invoker.keepalive import Policy
    from visp.invoker.shelf import Shelf
    from visp.invoker.slot import Key, Slot
    from visp.invoker.waiting import Waiting

STARVED_S = 0.25
"""A job that waits for memory this much longer than another key's next one gets that key's container removed for it;
between namespaces, one that was charged less by what a container's memory costs for so long."""
BUSY_FACTOR = 2
"""While every core is busy, an action has as many containers as this times the cores at most."""


class Outlook:
    """Looks, and changes nothing. The pool's own words say what the functions mean that it is given."""

    def __init__(
        self,
        *,
        shelf: Shelf,
        waiting: Waiting,
        policy: Policy,
        starts_limit: int,
        clock: Clock,
        cores: Cores | None,
        concurrency_of: Callable[[Action], int],
        is_better_new: Callable[[Job], bool],
        is_provided: Callable[[Key], bool],
    ) -> None:
        self._shelf = shelf
        self._waiting = waiting
        self._policy = policy
        self._starts_limit = starts_limit
        self._clock = clock
        self._cores = cores
        self._concurrency_of = concurrency_of
        self._is_better_new = is_better_new
        self._is_provided = is_provided

    def demand(self, key: Key, job: Job) -> Demand:
        queue = self._waiting.queues[key]
        limits = job.action.limits
        now_s = self._clock.monotonic_s()
        usage = self._shelf.usage_of(key, now_s)
        containers = self._shelf.engaged.get(key, 0) - self._shelf.draining.get(key, 0)
        return Demand(
            memory_mb=limits.memory_mb,
            waiting=len(queue),
            waited_s=now_s - queue[0].arrived_s,
            containers=containers,
            starting=self._shelf.initializing.get(key, 0),
            arrivals=usage.arrivals(len(queue), now_s),
            service_s=usage.service_s,
            cold_s=usage.cold_s,
            concurrency=self._concurrency_of(job.action),
            instances=limits.instances or None,
            useful=self._useful(containers),
        )

    def _useful(self, containers: int) -> int | None:
        """How many an action should have now, that has so many; the kernel is asked only where that matters."""
        if self._cores is None or containers < (most := self._cores.count * BUSY_FACTOR):
            return None
        return most if self._cores.are_busy() else None

    def view(self, job: Job) -> View[Slot]:
        key, memory_mb = job.key, job.action.limits.memory_mb
        shelf = self._shelf
        paused = shelf.paused.get(key)
        cells = None if self._is_better_new(job) else shelf.cells.get(Cell(job.runtime, memory_mb))
        free_mb = shelf.free_mb
        blocked = self._waiting.blocked
        if blocked is not None and blocked.key != key:
            free_mb -= blocked.action.limits.memory_mb
        is_tight = free_mb < memory_mb
        return View(
            paused=paused[-1] if paused else None,
            stem_cell=cells[-1] if cells else None,
            free_mb=free_mb,
            starts=shelf.starts(self._clock.monotonic_s()),
            starts_limit=self._starts_limit,
            idle=self._evictable(key.namespace, memory_mb) if is_tight else (),
            spare=shelf.spare() if is_tight else (),
        )

    def _evictable(self, namespace: str, memory_mb: int) -> list[Slot]:
        """The idle containers that the namespace may have removed, the least worth first."""
        now_s = self._clock.monotonic_s()
        held_mb = self._shelf.held_mb
        own_mb = held_mb.get(namespace, 0)
        out = []
        for slot in self._shelf.idle():
            assert slot.key is not None
            assert slot.usage is not None
            owner = slot.key.namespace
            if self._is_provided(slot.key):
                continue
            if (
                owner == namespace
                or now_s - slot.idle_since_s >= PROTECTED_S
                or may_evict(memory_mb, own_mb, held_mb[owner])
            ):
                slot.priority = self._policy.priority(slot.usage, slot.memory_mb, slot.age, slot.idle_since_s, now_s)
                out.append(slot)
        out.sort(key=lambda slot: slot.priority)
        return out

    def must_give_way(self, slot: Slot, arrived_s: float) -> bool:
        """Whether this container is removed for the job whose turn it is to get memory, though it has work.

        `arrived_s` is when that work came, or now for work that is under way.
        """
        key, blocked = slot.key, self._waiting.blocked
        assert key is not None
        if blocked is None or blocked.key == key:
            return False
        shelf = self._shelf
        needed_mb = blocked.action.limits.memory_mb
        if shelf.free_mb + shelf.leaving_mb >= needed_mb:
            return False  # it will have it without
        taker, giver = blocked.key.namespace, key.namespace
        if taker == giver:
            return blocked.key not in shelf.engaged and blocked.arrived_s < arrived_s - STARVED_S
        held_mb = shelf.held_mb
        if gives_way(needed_mb, held_mb.get(taker, 0), slot.memory_mb, held_mb[giver]):
            return True
        turn = self._waiting.accounts.waiting_turn
        return turn(taker) + slot.memory_mb * STARVED_S < turn(giver)
