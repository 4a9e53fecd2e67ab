"""The containers of this invoker: the only owner of slots.

State changes happen in synchronous functions between awaits; what is slow (creating, pausing, destroying) is a task of
the invoker's group, begun after the slot's state says so. `plan` and `prewarm` decide, this module performs.

Warm path: `submit` finds a READY slot by one dictionary look-up, and the run line is out before it returns.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from visp.errors import ContainerGone, ContainerLost, StartFailed
from visp.invoker.plan import Create, Demand, Resume, Specialise, View, Wait, must_wait, plan
from visp.invoker.prewarm import Cell, Wanted, missing
from visp.invoker.slot import IDLE, Key, Slot, SlotEvent, State
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from visp.clock import Clock
    from visp.container.base import Container
    from visp.invoker.job import Job
    from visp.settings import Pool as PoolSettings

SMOOTHING = 0.2
TICK_S = 0.02
SWEEP_S = 0.5
STARVED_S = 0.25
"""A job that waits for memory this much longer than another key's next one gets that key's container removed for it."""
LAUNCH_S = 1.0
"""A start counts against the limit until its first answer, but no longer than this after its launcher began: how long
users' own initialisation takes is nobody else's business."""
BACKOFF_S = 1.0
TIMES_LIMIT = 10_000
TRIES = 3
"""How many containers a job may find dead before they were given it."""


K = TypeVar("K")


class Pool:
    """Slots by what they are good for, and the jobs that wait for them.

    The invoker's functions do the work: `open_cell` creates a container without code, `prepare` brings a job's code
    into a slot (creating its container if there is none; false when the job came to its end by that), `run` runs a job
    in a slot that is BUSY, `start_failed` ends a job for which no container could be had. Whatever the first two
    raise means that.
    """

    def __init__(
        self,
        *,
        settings: PoolSettings,
        memory_mb: int,
        starts_limit: int,
        wanted: Iterable[Wanted],
        clock: Clock,
        tasks: asyncio.TaskGroup,
        open_cell: Callable[[Slot], Awaitable[None]],
        prepare: Callable[[Slot, Job], Awaitable[bool]],
        run: Callable[[Slot, Job], None],
        start_failed: Callable[[Job, Exception], None],
    ) -> None:
        self.memory_mb = memory_mb
        self._settings = settings
        self._starts_limit = starts_limit
        self._wanted = tuple(wanted)
        self._clock = clock
        self._tasks = tasks
        self._open_cell = open_cell
        self._prepare = prepare
        self._run = run
        self._start_failed = start_failed
        self._slots: dict[str, Slot] = {}
        self._ready: dict[Key, list[Slot]] = {}
        self._paused: dict[Key, list[Slot]] = {}
        self._cells: dict[Cell, list[Slot]] = {}
        self._queues: dict[Key, deque[Job]] = {}
        self._engaged: dict[Key, int] = {}
        self._initializing: dict[Key, int] = {}
        self._service_s: dict[str, float] = {}
        self._cold_s: dict[str, float] = {}
        self._used_mb = 0
        self._starting: dict[str, float] = {}
        """Slots that count as starts, and until when."""
        self._preparing: set[asyncio.Task[None]] = set()
        self._starved: Job | None = None
        """The job for which containers of others were removed: what they held is kept for it."""
        self._next_id = 0
        self._tick: asyncio.TimerHandle | None = None
        self._cells_blocked_until_s = 0.0
        self._is_empty = asyncio.Event()
        self.is_closed = False

    # ── what the invoker asks ───────────────────────────────────────────────────────────────────────────────────

    @property
    def used_mb(self) -> int:
        """Memory of all slots, by their actions' limits."""
        return self._used_mb

    @property
    def starts(self) -> int:
        """Container starts under way."""
        now_s = self._clock.monotonic_s()
        return sum(until_s > now_s for until_s in self._starting.values())

    @property
    def waiting(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def submit(self, job: Job) -> None:
        """Runs the job now, or as soon as there is a container for it.

        Once the pool is closed, nothing is begun: accepted work runs at the next start.
        """
        ready = self._ready.get(job.key)
        if ready and job.key not in self._queues:
            self._engage(ready.pop(), job)
            return
        if self.is_closed:
            return
        memory_mb = job.action.limits.memory_mb
        if memory_mb > self.memory_mb:
            self._start_failed(job, StartFailed(f"{memory_mb} MB do not fit into a pool of {self.memory_mb} MB"))
            return
        queue = self._queues.get(job.key)
        if queue is None:
            queue = self._queues[job.key] = deque()
        queue.append(job)
        self._plan_key(job.key)

    def launched(self, slot: Slot) -> None:
        """The slot's container has been created: soon its start is over."""
        if slot.id in self._starting:
            self._starting[slot.id] = self._clock.monotonic_s() + LAUNCH_S

    def finished(self, slot: Slot, service_s: float | None) -> None:
        """The slot's job is done and its container may serve on: the next job of its key, or idle.

        `service_s` None: the job was not run.
        """
        job = slot.job
        assert job is not None
        if service_s is not None:
            self._smooth(self._service_s, job.message.action, service_s)
        slot.job = None
        key = job.key
        self._disengage(key)
        if slot.state is not State.BUSY:
            return  # removed meanwhile: the pool is closed
        slot.on(SlotEvent.DONE)
        slot.idle_since_s = self._clock.monotonic_s()
        if not self._queues:
            self._ready.setdefault(key, []).append(slot)
            return
        queue = self._queues.get(key)
        if self._gives_way(slot, queue[0] if queue else None):
            self.remove(slot)
        elif queue:
            self._engage(slot, self._pop(key))
        else:
            self._ready.setdefault(key, []).append(slot)
            self._plan_all()

    def failed(self, slot: Slot) -> None:
        """The slot's job is done and its container is not to be used again."""
        self._drop(slot)
        if self._queues:
            self._plan_all()

    def retry(self, slot: Slot, job: Job) -> None:
        """The container could not serve the job, and has not begun to: the job goes to another, before all others."""
        self._drop(slot)
        job.reset()
        if self.is_closed:
            return
        self._queues.setdefault(job.key, deque()).appendleft(job)
        self._plan_all()

    def _drop(self, slot: Slot) -> None:
        job = slot.job
        if job is not None:
            slot.job = None
            self._disengage(job.key)
        self.remove(slot)

    def lost(self, slot: Slot) -> None:
        """The container of a slot without a job has ended by itself."""
        if slot.state in (State.STARTING, State.STEMCELL):
            self._cells_blocked_until_s = self._clock.monotonic_s() + BACKOFF_S
        self.remove(slot)

    def remove(self, slot: Slot, heir: Slot | None = None) -> asyncio.Task[None] | None:
        """Ends the slot; once the container is gone its memory is free, or the heir's."""
        if slot.state in (State.REMOVING, State.GONE):
            return None
        self._unlist(slot)
        slot.on(SlotEvent.REMOVE)
        if slot.timer is not None:
            slot.timer.cancel()
            slot.timer = None
        return self._tasks.create_task(self._destroy(slot, heir))

    def forget_revisions(self, action: str, revision: int) -> None:
        """Idle containers of other revisions of an action will never be used again."""
        for slot in list(self._slots.values()):
            key = slot.key
            if key is not None and key.action == action and key.revision != revision and slot.state in IDLE:
                self.remove(slot)

    # ── planning ────────────────────────────────────────────────────────────────────────────────────────────────

    def _plan_all(self) -> None:
        """Every waiting key, the one whose first job came first before the others."""
        for key in sorted(self._queues, key=lambda key: self._queues[key][0].arrived_s):
            if key in self._queues:
                self._plan_key(key)

    def _plan_key(self, key: Key) -> None:
        """Performs steps for one key until there is nothing to do for it now."""
        while (queue := self._queues.get(key)) is not None:
            ready = self._ready.get(key)
            if ready:
                self._engage(ready.pop(), self._pop(key))
                continue
            job = queue[0]
            demand = self._demand(key, job)
            if must_wait(demand, has_paused=key in self._paused):
                self._arm_tick()
                return
            step = plan(demand, self._view(job))
            if isinstance(step, Wait):
                self._arm_tick()
                return
            self._perform(step, key)

    def _perform(self, step: Resume | Specialise | Create, key: Key) -> None:
        job = self._pop(key)
        if isinstance(step, Resume):
            slot = step.slot
            _discard(self._paused, key, slot)
            slot.on(SlotEvent.RESUME)
            self._take(slot, job)
            self._tasks.create_task(self._resume(slot, job))
            return
        if isinstance(step, Specialise):
            slot = step.slot
            _discard(self._cells, Cell(slot.kind, slot.memory_mb), slot)
            slot.key = key
            gone = []
        else:
            slot = self._add(job.action.exec.kind, job.action.limits.memory_mb, key)
            gone = [task for evicted in step.evicted if (task := self.remove(evicted, heir=slot)) is not None]
        slot.on(SlotEvent.INIT)
        self._take(slot, job)
        self._initializing[key] = self._initializing.get(key, 0) + 1
        self._prepare_in_task(self._initialize(slot, job, gone))

    def _demand(self, key: Key, job: Job) -> Demand:
        queue = self._queues[key]
        return Demand(
            kind=job.action.exec.kind,
            memory_mb=job.action.limits.memory_mb,
            waiting=len(queue),
            waited_s=self._clock.monotonic_s() - queue[0].arrived_s,
            busy=self._engaged.get(key, 0),
            starting=self._initializing.get(key, 0),
            service_s=self._service_s.get(key.action),
            cold_s=self._cold_s.get(key.action),
        )

    def _view(self, job: Job) -> View:
        kind, memory_mb = job.action.exec.kind, job.action.limits.memory_mb
        paused = self._paused.get(job.key)
        cells = self._cells.get(Cell(kind, memory_mb))
        free_mb = self.memory_mb - self._used_mb
        starved = self._starved
        if starved is not None and starved is not job and starved.arrived_s < job.arrived_s:
            free_mb -= starved.action.limits.memory_mb
        is_tight = free_mb < memory_mb
        return View(
            paused=paused[-1] if paused else None,
            stem_cell=cells[-1] if cells else None,
            free_mb=free_mb,
            starts=self.starts,
            starts_limit=self._starts_limit,
            idle=self._idle() if is_tight else (),
            spare=[slot for slots in self._cells.values() for slot in slots] if is_tight else (),
        )

    def _idle(self) -> list[Slot]:
        idle = [slot for slot in self._slots.values() if slot.state in IDLE]
        idle.sort(key=lambda slot: slot.idle_since_s)
        return idle

    def _gives_way(self, slot: Slot, own_next: Job | None) -> bool:
        """Whether another key's job has waited so much longer for memory that this container is removed for it."""
        if own_next is not None and len(self._queues) == 1:
            return False
        oldest = min((queue[0] for queue in self._queues.values()), key=lambda job: job.arrived_s)
        own_arrived_s = slot.idle_since_s if own_next is None else own_next.arrived_s
        if oldest is own_next or oldest.arrived_s > own_arrived_s - STARVED_S or oldest.key in self._engaged:
            return False
        if self.memory_mb - self._used_mb >= oldest.action.limits.memory_mb:
            return False
        self._starved = oldest
        return True

    # ── slots ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _add(self, kind: str, memory_mb: int, key: Key | None) -> Slot:
        self._next_id += 1
        slot = Slot(f"c{self._next_id:06d}", kind, memory_mb, self._clock.monotonic_s(), key)
        slot.missing_mb = max(0, memory_mb - (self.memory_mb - self._used_mb))
        self._slots[slot.id] = slot
        self._used_mb += memory_mb - slot.missing_mb
        self._starting[slot.id] = math.inf
        return slot

    def _take(self, slot: Slot, job: Job) -> None:
        """The slot is the job's from now on."""
        slot.job = job
        self._engaged[job.key] = self._engaged.get(job.key, 0) + 1

    def _engage(self, slot: Slot, job: Job) -> None:
        """Runs a job in a slot that is ready for its key."""
        if not self._ready.get(job.key, True):
            del self._ready[job.key]
        self._take(slot, job)
        slot.on(SlotEvent.RUN)
        self._run(slot, job)

    def _disengage(self, key: Key) -> None:
        left = self._engaged[key] - 1
        if left:
            self._engaged[key] = left
        else:
            del self._engaged[key]

    def _pop(self, key: Key) -> Job:
        queue = self._queues[key]
        job = queue.popleft()
        if not queue:
            del self._queues[key]
        if job is self._starved:
            self._starved = None
        return job

    def _unlist(self, slot: Slot) -> None:
        """Takes the slot out of the indexes of its state."""
        if slot.state is State.READY and slot.key is not None:
            _discard(self._ready, slot.key, slot)
        elif slot.state is State.PAUSED and slot.key is not None:
            _discard(self._paused, slot.key, slot)
        elif slot.state is State.STEMCELL:
            _discard(self._cells, Cell(slot.kind, slot.memory_mb), slot)

    def _prepare_in_task(self, work: Coroutine[None, None, None]) -> None:
        """What brings a container up is cut off when the pool closes."""
        task = self._tasks.create_task(work)
        self._preparing.add(task)
        task.add_done_callback(self._preparing.discard)

    async def _initialize(self, slot: Slot, job: Job, gone: list[asyncio.Task[None]]) -> None:
        """Brings the job's code up, in a new container once those that were evicted for it are gone."""
        if gone:
            await asyncio.wait(gone)
        is_new = slot.container is None
        began_s = self._clock.monotonic_s()
        try:
            is_up = await self._prepare(slot, job)
        except (ContainerGone, ContainerLost) as error:
            self._initialized(slot, job)
            self._dead_on_start(slot, job, error)
            return
        except Exception as error:  # whatever a driver or a store raises: the job ends with a record
            log.warning("pool.start_failed", slot=slot.id, action=job.message.action, reason=repr(error))
            self._initialized(slot, job)
            self.failed(slot)
            self._start_failed(job, error)
            return
        self._initialized(slot, job)
        if is_up and slot.state is State.INITIALIZING:
            if is_new:
                self._smooth(self._cold_s, job.message.action, self._clock.monotonic_s() - began_s)
            slot.on(SlotEvent.RUN)
            self._run(slot, job)
        self._plan_all()

    def _dead_on_start(self, slot: Slot, job: Job, error: Exception) -> None:
        log.warning("pool.container_gone", slot=slot.id, action=job.message.action, reason=str(error))
        if job.tries < TRIES:
            self.retry(slot, job)
        else:
            self.failed(slot)
            self._start_failed(job, error)

    def _initialized(self, slot: Slot, job: Job) -> None:
        left = self._initializing[job.key] - 1
        if left:
            self._initializing[job.key] = left
        else:
            del self._initializing[job.key]
        self._starting.pop(slot.id, None)

    async def _resume(self, slot: Slot, job: Job) -> None:
        try:
            assert slot.container is not None
            await slot.container.resume()
        except Exception as error:  # whatever a driver raises: the job goes to another container
            log.warning("pool.resume_failed", slot=slot.id, reason=repr(error))
            self.retry(slot, job)
            return
        if slot.state is State.RESUMING:
            slot.on(SlotEvent.RUN)
            self._run(slot, job)

    async def _destroy(self, slot: Slot, heir: Slot | None) -> None:
        container: Container | None = slot.container
        try:
            if slot.client is not None:
                slot.client.close()
            if container is not None:
                await container.destroy()
        except Exception as error:  # whatever a driver raises: the slot is gone all the same
            log.error("pool.destroy_failed", slot=slot.id, reason=repr(error))
        slot.on(SlotEvent.REMOVED)
        del self._slots[slot.id]
        self._free(slot, heir)
        if self.is_closed:
            if not self._slots:
                self._is_empty.set()
        elif self._queues:
            self._plan_all()

    def _free(self, slot: Slot, heir: Slot | None) -> None:
        freed_mb = slot.memory_mb - slot.missing_mb
        if heir is not None and heir.state not in (State.REMOVING, State.GONE):
            inherited_mb = min(freed_mb, heir.missing_mb)
            heir.missing_mb -= inherited_mb
            freed_mb -= inherited_mb
        self._used_mb -= freed_mb

    # ── time ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _arm_tick(self) -> None:
        """While jobs wait, look again: a run may take longer than runs used to."""
        if self._tick is None and not self.is_closed:
            self._tick = asyncio.get_running_loop().call_later(TICK_S, self._ticked)

    def _ticked(self) -> None:
        self._tick = None
        if self._queues and not self.is_closed:
            self._plan_all()
            if self._queues:
                self._arm_tick()

    async def sweep(self) -> None:
        """Pauses and removes idle containers and keeps stem cells; runs as long as the invoker does."""
        while True:
            self._pause_and_remove()
            self._keep_cells()
            await self._clock.sleep(SWEEP_S)

    def _pause_and_remove(self) -> None:
        now_s = self._clock.monotonic_s()
        for slot in list(self._slots.values()):
            idle_s = now_s - slot.idle_since_s
            if slot.state in IDLE and idle_s > self._settings.idle_s:
                self.remove(slot)
            elif slot.state is State.READY and idle_s > self._settings.pause_grace_s:
                self._unlist(slot)
                slot.on(SlotEvent.PAUSE)
                self._tasks.create_task(self._pause(slot))

    async def _pause(self, slot: Slot) -> None:
        try:
            assert slot.container is not None
            await slot.container.pause()
        except Exception as error:  # whatever a driver raises: such a container is not kept
            log.warning("pool.pause_failed", slot=slot.id, reason=repr(error))
            self.remove(slot)
            return
        if slot.state is State.PAUSING:
            slot.on(SlotEvent.PAUSED)
            assert slot.key is not None
            self._paused.setdefault(slot.key, []).append(slot)
            if self._queues:
                self._plan_all()

    def _keep_cells(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._queues or self.is_closed or now_s < self._cells_blocked_until_s:
            return  # work goes before preparation
        present = {cell: len(slots) for cell, slots in self._cells.items()}
        for slot in self._slots.values():
            if slot.state is State.STARTING and slot.key is None:
                cell = Cell(slot.kind, slot.memory_mb)
                present[cell] = present.get(cell, 0) + 1
        free_mb = self.memory_mb - self._used_mb
        for cell in missing(self._wanted, present, free_mb, self._starts_limit - self.starts):
            slot = self._add(cell.kind, cell.memory_mb, None)
            self._prepare_in_task(self._start_cell(slot))

    async def _start_cell(self, slot: Slot) -> None:
        try:
            await self._open_cell(slot)
        except Exception as error:  # whatever a driver raises: this cell is not to be
            log.warning("pool.cell_failed", slot=slot.id, kind=slot.kind, reason=repr(error))
            self._cells_blocked_until_s = self._clock.monotonic_s() + BACKOFF_S
            self._starting.pop(slot.id, None)
            self.remove(slot)
            if self._queues:
                self._plan_all()
            return
        self._starting.pop(slot.id, None)
        if slot.state is not State.STARTING:
            return
        slot.on(SlotEvent.UP)
        self._cells.setdefault(Cell(slot.kind, slot.memory_mb), []).append(slot)
        if self._queues:
            self._plan_all()
        else:
            self._keep_cells()

    def _smooth(self, table: dict[str, float], name: str, seconds: float) -> None:
        old = table.get(name)
        if old is None and len(table) >= TIMES_LIMIT:
            table.clear()
        table[name] = seconds if old is None else old + SMOOTHING * (seconds - old)

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def close(self) -> None:
        """Destroys every container; runs and starts that still go on are cut off."""
        self.is_closed = True
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        self._queues.clear()
        self._starved = None
        for task in list(self._preparing):
            task.cancel()
        if not self._slots:
            self._is_empty.set()
        for slot in list(self._slots.values()):
            self.remove(slot)
        await self._is_empty.wait()

    def __repr__(self) -> str:
        slots = ", ".join(map(repr, self._slots.values()))
        waiting = ", ".join(f"{key.action}:{len(queue)}" for key, queue in self._queues.items())
        return f"<pool {self._used_mb}/{self.memory_mb}MB starts={self.starts} [{slots}] waiting [{waiting}]>"


def _discard(index: dict[K, list[Slot]], key: K, slot: Slot) -> None:
    slots = index.get(key)
    if slots is not None and slot in slots:
        slots.remove(slot)
        if not slots:
            del index[key]
