"""Where every slot of the pool stands: by what it is good for, and what it holds. No tasks, no policy."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from visp.invoker.job import Cold
from visp.invoker.keepalive import Usage
from visp.invoker.prewarm import Cell
from visp.invoker.slot import IDLE, Key, Slot, SlotEvent, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from visp.container.base import Way
    from visp.invoker.job import Job

LAUNCH_S = 1.0
"""A start counts against the limit until its first answer, but no longer than this after its launcher began: how long
users' own initialisation takes is nobody else's business."""
USAGES_LIMIT = 10_000
"""Actions whose use is remembered; beyond it, those without a container are forgotten."""

K = TypeVar("K")


class Shelf:
    """The slots, indexed by state and key; the memory they hold; and how their actions are used.

    `ready`, `paused` and `cells` have no empty lists; in `ready` is every slot that has room for a run, the BUSY ones
    too. `engaged` counts the slots of a key that work for a job or several: of them `initializing` those that are being
    brought up, or resumed for several, and `draining` those that take no more. `held_mb` is the memory of each
    namespace's containers.
    """

    def __init__(self, memory_mb: int) -> None:
        self.memory_mb = memory_mb
        self.slots: dict[str, Slot] = {}
        self.ready: dict[Key, list[Slot]] = {}
        self.paused: dict[Key, list[Slot]] = {}
        self.cells: dict[Cell, list[Slot]] = {}
        self.engaged: dict[Key, int] = {}
        self.initializing: dict[Key, int] = {}
        self.draining: dict[Key, int] = {}
        self.held_mb: dict[str, int] = {}
        self.used_mb = 0
        self.leaving_mb = 0
        """Of it, what slots that are being removed, or will be after their last run, give back to all."""
        self.evicted = self.expired = 0
        self.made: Counter[Way] = Counter()
        self.age = 0.0
        """The priority of the container that was evicted last."""
        self._starting: dict[str, float] = {}
        """Slots that count as starts, and until when."""
        self._usages: dict[tuple[str, str], Usage] = {}
        self._next_id = 0

    # ── a slot's way ────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, kind: str, memory_mb: int, key: Key | None, now_s: float) -> Slot:
        """A slot that is being started. What memory it lacks, others leave to it."""
        self._next_id += 1
        slot = Slot(f"c{self._next_id:06d}", kind, memory_mb, now_s, key)
        slot.missing_mb = max(0, memory_mb - self.free_mb)
        self.slots[slot.id] = slot
        self.used_mb += memory_mb - slot.missing_mb
        self._starting[slot.id] = math.inf
        return slot

    def assign(self, slot: Slot, key: Key, usage: Usage, concurrency: int) -> None:
        """The slot serves this key from now on, with so many runs at once."""
        if slot.state is State.STEMCELL:
            _discard(self.cells, Cell(slot.kind, slot.memory_mb), slot)
        slot.key, slot.usage, slot.concurrency = key, usage, concurrency
        self.held_mb[key.namespace] = self.held_mb.get(key.namespace, 0) + slot.memory_mb

    def initialize(self, slot: Slot, job: Job) -> None:
        """The job's code is being brought into the slot."""
        slot.on(SlotEvent.INIT)
        self.initializing[job.key] = self.initializing.get(job.key, 0) + 1
        self.take(slot, job)

    def initialized(self, slot: Slot, key: Key) -> None:
        """That is over, one way or the other."""
        _count_down(self.initializing, key)
        self._starting.pop(slot.id, None)

    def resume(self, slot: Slot, job: Job) -> None:
        """The slot is being resumed for the job. One that takes more counts as coming for those that wait."""
        self.unlist(slot)
        slot.on(SlotEvent.RESUME)
        if slot.concurrency > 1:
            self.initializing[job.key] = self.initializing.get(job.key, 0) + 1
        self.take(slot, job)

    def resumed(self, slot: Slot, key: Key) -> None:
        """That is over, one way or the other."""
        if slot.concurrency > 1:
            _count_down(self.initializing, key)

    def take(self, slot: Slot, job: Job) -> None:
        """The slot works for the job from now on."""
        jobs = slot.jobs
        if not jobs:
            self.engaged[job.key] = self.engaged.get(job.key, 0) + 1
        jobs.add(job)

    def release(self, slot: Slot, job: Job, now_s: float) -> None:
        """The slot does not work for the job any more."""
        jobs = slot.jobs
        jobs.remove(job)
        if jobs:
            return
        slot.idle_since_s = now_s
        slot.age = self.age
        key = job.key
        left = self.engaged[key] - 1
        if left:
            self.engaged[key] = left
        else:
            del self.engaged[key]

    def launched(self, slot: Slot, now_s: float) -> None:
        """The slot's container has been created: soon its start is over."""
        if slot.id in self._starting:
            self._starting[slot.id] = now_s + LAUNCH_S

    def cell_is_up(self, slot: Slot) -> None:
        slot.on(SlotEvent.UP)
        self.cells.setdefault(Cell(slot.kind, slot.memory_mb), []).append(slot)

    def start_ended(self, slot: Slot) -> None:
        self._starting.pop(slot.id, None)

    def unlist(self, slot: Slot) -> None:
        """Takes the slot out of the index of its state."""
        if slot.state in (State.READY, State.BUSY) and slot.key is not None:
            _discard(self.ready, slot.key, slot)
        elif slot.state is State.PAUSED and slot.key is not None:
            _discard(self.paused, slot.key, slot)
        elif slot.state is State.STEMCELL:
            _discard(self.cells, Cell(slot.kind, slot.memory_mb), slot)

    def spend(self, slot: Slot, why: Cold) -> None:
        """The slot takes no more runs; those that it has go on."""
        self.unlist(slot)
        slot.on(SlotEvent.SPEND)
        slot.why_spent = why
        assert slot.key is not None
        self.draining[slot.key] = self.draining.get(slot.key, 0) + 1
        self.leaving_mb += slot.memory_mb

    def leave(self, slot: Slot, why: Cold, heir: Slot | None) -> bool:
        """The slot serves nobody any more. Whether it was the last of its action."""
        if slot.state is State.DRAINING:
            assert slot.key is not None
            _count_down(self.draining, slot.key)
        elif heir is None:
            self.leaving_mb += slot.memory_mb
        self.unlist(slot)
        slot.on(SlotEvent.REMOVE)
        if why is Cold.EVICTED:
            self.evicted += 1
            self.age = max(self.age, slot.priority)
        elif why is Cold.EXPIRED:
            self.expired += 1
        key, usage = slot.key, slot.usage
        if key is None or usage is None:
            return False
        _count_down(self.held_mb, key.namespace, slot.memory_mb)
        usage.gone = why
        usage.last_s = slot.idle_since_s
        return key not in self.ready and key not in self.paused and key not in self.engaged

    def removed(self, slot: Slot, heir: Slot | None) -> None:
        """The slot's container is gone: its memory is the heir's, as far as that lacks any, or free."""
        slot.on(SlotEvent.REMOVED)
        del self.slots[slot.id]
        if heir is None:
            self.leaving_mb -= slot.memory_mb
        freed_mb = slot.memory_mb - slot.missing_mb
        if heir is not None and heir.state not in (State.REMOVING, State.GONE):
            inherited_mb = min(freed_mb, heir.missing_mb)
            heir.missing_mb -= inherited_mb
            freed_mb -= inherited_mb
        self.used_mb -= freed_mb

    # ── what there is ───────────────────────────────────────────────────────────────────────────────────────────

    @property
    def free_mb(self) -> int:
        return self.memory_mb - self.used_mb

    def starts(self, now_s: float) -> int:
        """Container starts under way."""
        return sum(until_s > now_s for until_s in self._starting.values())

    def idle(self) -> Iterator[Slot]:
        """The slots whose container may be taken away."""
        return (slot for slot in self.slots.values() if slot.state in IDLE)

    def spare(self) -> list[Slot]:
        return [slot for slots in self.cells.values() for slot in slots]

    def cell_counts(self) -> dict[Cell, int]:
        """Stem cells by sort, those that are being started included."""
        out = {cell: len(slots) for cell, slots in self.cells.items()}
        for slot in self.slots.values():
            if slot.state is State.STARTING and slot.key is None:
                cell = Cell(slot.kind, slot.memory_mb)
                out[cell] = out.get(cell, 0) + 1
        return out

    def usage_of(self, key: Key, now_s: float) -> Usage:
        """How the key's namespace uses its action, whatever its revision."""
        name = (key.namespace, key.action)
        usage = self._usages.get(name)
        if usage is None:
            if len(self._usages) >= USAGES_LIMIT:
                kept = {id(slot.usage) for slot in self.slots.values()}
                self._usages = {name: usage for name, usage in self._usages.items() if id(usage) in kept}
            usage = self._usages[name] = Usage(now_s)
        return usage


def _discard(index: dict[K, list[Slot]], key: K, slot: Slot) -> None:
    slots = index.get(key)
    if slots is not None and slot in slots:
        slots.remove(slot)
        if not slots:
            del index[key]


def _count_down(counts: dict[K, int], key: K, by: int = 1) -> None:
    left = counts[key] - by
    if left:
        counts[key] = left
    else:
        del counts[key]
