"""The containers of this invoker: the only owner of slots.

State changes happen in synchronous functions between awaits; what is slow (creating, pausing, destroying) is a task of
the invoker's group, begun after the slot's state says so. `plan`, `fair`, `keepalive` and `prewarm` decide, this module
performs.

Warm path: `submit` finds a READY slot by one dictionary look-up, and the run line is out before it returns.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from visp.errors import ContainerGone, ContainerLost, StartFailed
from visp.invoker.cell_demand import CellDemand
from visp.invoker.job import Cold
from visp.invoker.keepalive import POLICIES
from visp.invoker.outlook import Outlook
from visp.invoker.plan import (
    START_S,
    WAIT,
    Create,
    Resume,
    Specialise,
    Wait,
    must_wait,
    plan,
)
from visp.invoker.prewarm import Cell, Wanted
from visp.invoker.shelf import Shelf
from visp.invoker.slot import Key, Slot, SlotEvent, State
from visp.invoker.upkeep import Upkeep
from visp.invoker.waiting import Waiting
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from visp.clock import Clock
    from visp.container.base import Container
    from visp.entity.action import Action
    from visp.invoker.cores import Cores
    from visp.invoker.job import Job
    from visp.invoker.keepalive import Usage
    from visp.settings import Pool as PoolSettings

BUSY, RUN, DONE = State.BUSY, SlotEvent.RUN, SlotEvent.DONE
"""For the warm path: looking a member up in its enum takes as long as a whole transition."""
TICK_S = 0.02
MOMENT_S = 0.01
"""Runs that take no longer than this free their container sooner than another place would be found."""
TRIES = 3
"""How many containers a job may find dead before they were given it."""


class Pool:
    """Slots by what they are good for, and the jobs that wait for them.

    The invoker's functions do the work: `open_cell` creates a container without code, `prepare` brings a job's code
    into a slot (creating its container if there is none; false when the job came to its end by that), `run` runs a job
    in a slot that is BUSY, `start_failed` ends a job for which no container could be had. Whatever the first two
    raise means that. `rest` tells a container that nobody uses to give memory back. `concurrency_of` says how many runs
    of an action one container takes at once, `is_better_new` whether a container that is made for a job is up sooner
    than a stem cell; without `cores` there are always some to spare.
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
        rest: Callable[[Slot], None],
        concurrency_of: Callable[[Action], int],
        is_better_new: Callable[[Job], bool] = lambda job: False,
        cores: Cores | None = None,
    ) -> None:
        self.memory_mb = memory_mb
        self.is_closed = False
        self._policy = POLICIES[settings.keep_alive]
        self._starts_limit = starts_limit
        self._clock = clock
        self._tasks = tasks
        self._prepare = prepare
        self._run = run
        self._start_failed = start_failed
        self._concurrency_of = concurrency_of
        self.shelf = Shelf(memory_mb)
        self._waiting = Waiting()
        self._ready = self.shelf.ready  # these two for the warm path
        self._queues = self._waiting.queues
        most = settings.stem_cells_most if settings.stem_cells else 0
        self._cell_demand = CellDemand(wanted, most, self._policy, clock.monotonic_s())
        self._preparing: set[asyncio.Task[None]] = set()
        self._tick: asyncio.TimerHandle | None = None
        self.provided: dict[Key, int] = {}
        """How many containers of a key stay, used or not."""
        self._outlook = Outlook(
            shelf=self.shelf,
            waiting=self._waiting,
            policy=self._policy,
            starts_limit=starts_limit,
            clock=clock,
            cores=cores,
            concurrency_of=concurrency_of,
            is_better_new=is_better_new,
            is_provided=self.is_provided,
        )
        self.upkeep = Upkeep(
            shelf=self.shelf,
            settings=settings,
            policy=self._policy,
            cell_demand=self._cell_demand,
            starts_limit=starts_limit,
            clock=clock,
            tasks=tasks,
            open_cell=open_cell,
            remove=self.remove,
            rest=rest,
            prepare=self._prepare_in_task,
            look=self._look,
            is_provided=self.is_provided,
            is_calm=lambda: not self._queues and not self.is_closed,
        )
        self._is_empty = asyncio.Event()
        self._clearing: set[asyncio.Future[None]] = set()
        """What ended containers leave is being removed."""

    # ── what the invoker asks ───────────────────────────────────────────────────────────────────────────────────

    @property
    def used_mb(self) -> int:
        """Memory of all containers, by their actions' limits."""
        return self.shelf.used_mb

    @property
    def starts(self) -> int:
        """Container starts under way."""
        return self.shelf.starts(self._clock.monotonic_s())

    @property
    def waiting(self) -> int:
        """Activations for which there is no container yet."""
        return len(self._waiting)

    def warm(self) -> set[str]:
        """The actions, by id, that have a container here with room for a run, or one that will have it in a moment."""
        shelf, now_s = self.shelf, self._clock.monotonic_s()
        out = {key.action for index in (shelf.ready, shelf.paused) for key in index}
        for key in shelf.engaged:
            service_s = shelf.usage_of(key, now_s).service_s
            if key not in self._queues and service_s is not None and service_s < MOMENT_S:
                out.add(key.action)
        return out

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
        is_first = job.key not in self._queues
        self._waiting.push(job)
        if self._waiting.blocked is not None and self._waiting.is_before(job, self._waiting.blocked):
            self._plan_all()
        elif is_first or self._tick is None:  # behind others it is looked at with them: in a tick at the latest
            while job.key in self._queues and self._plan_key(job.key) is None:
                pass

    def provide(self, job: Job) -> None:
        """Brings up a container that nobody waits for; the job ends with that."""
        key, now_s = job.key, self._clock.monotonic_s()
        slot = self.shelf.add(job.runtime, job.action.limits.memory_mb, key, now_s)
        self.shelf.assign(slot, key, self.shelf.usage_of(key, now_s), self._concurrency_of(job.action))
        self.shelf.initialize(slot, job)
        self._prepare_in_task(self._initialize(slot, job, []))

    @property
    def starts_left(self) -> int:
        """How many containers may be started now, while nobody waits for one."""
        return 0 if self._queues or self.is_closed else max(0, self._starts_limit - self.starts)

    def count_of(self, key: Key) -> int:
        """The containers that serve this key, or will."""
        ready = sum(not slot.jobs for slot in self._ready.get(key, ()))
        return ready + len(self.shelf.paused.get(key, ())) + self.shelf.engaged.get(key, 0)

    def is_provided(self, key: Key) -> bool:
        """Whether none of the key's containers is to be taken away."""
        return key in self.provided and self.count_of(key) <= self.provided[key]

    def withdraw(self, which: Callable[[Job], bool]) -> list[Job]:
        """Takes jobs that wait out of their queues; who is left may be served sooner."""
        taken = self._waiting.withdraw(which)
        self._look()
        return taken

    def launched(self, slot: Slot) -> None:
        """The slot's container has been created: soon its start is over."""
        self.shelf.launched(slot, self._clock.monotonic_s())

    def finished(self, slot: Slot, job: Job, service_s: float | None) -> None:
        """The job is done and its container may serve on: the next job of its key, or idle.

        `service_s` None: the job was not run.
        """
        key, usage = slot.key, slot.usage
        assert key is not None
        assert usage is not None
        if service_s is not None:
            usage.served(service_s)
        now_s = self._clock.monotonic_s()
        self.shelf.release(slot, job, now_s)
        if slot.state is not BUSY:
            if slot.state is State.DRAINING and not slot.jobs:
                self.remove(slot, slot.why_spent)
            return  # or removed meanwhile: the pool is closed
        if not slot.jobs:
            slot.on(DONE)
        if not self._queues:
            if slot.concurrency == 1:
                self._ready.setdefault(key, []).append(slot)
            else:
                self._list(slot, key)
            return
        queue = self._queues.get(key)
        if (queue or slot.jobs) and self._outlook.must_give_way(slot, queue[0].arrived_s if queue else now_s):
            self._retire(slot, Cold.EVICTED)
        elif queue is None:
            self._list(slot, key)
            self._plan_all()
        else:
            was_blocked = queue[0] is self._waiting.blocked
            self._engage(slot, self._waiting.pop(key, now_s))
            if was_blocked and self._queues and (len(self._queues) > 1 or key not in self._queues):
                self._plan_all()  # what was kept for it is for the next

    def _list(self, slot: Slot, key: Key) -> None:
        """The slot has room for a run; it may have had some before."""
        ready = self._ready.setdefault(key, [])
        if slot not in ready:
            ready.append(slot)

    def failed(self, slot: Slot, job: Job) -> None:
        """The job is done and its container is not to be used again."""
        self._drop(slot, job)
        if self._queues:
            self._plan_all()

    def retry(self, slot: Slot, job: Job) -> None:
        """The container could not serve the job, and has not begun to: the job goes to another, before all others."""
        self._drop(slot, job)
        job.reset()
        job.tries += 1
        if self.is_closed:
            return
        self._waiting.push_first(job)
        self._plan_all()

    def _drop(self, slot: Slot, job: Job) -> None:
        if job in slot.jobs:
            self.shelf.release(slot, job, self._clock.monotonic_s())
        self._retire(slot, Cold.ENDED)

    def _retire(self, slot: Slot, why: Cold) -> None:
        """Removes the slot, or, while runs of others go on in it, lets them come to their own end first."""
        if slot.jobs:
            self.spend(slot, why)
        else:
            self.remove(slot, why)

    def spend(self, slot: Slot, why: Cold = Cold.ENDED) -> None:
        """The slot takes no more runs, and is removed after the last of those that it has."""
        if slot.state is State.BUSY:
            self.shelf.spend(slot, why)

    def lost(self, slot: Slot) -> None:
        """The container of a slot without a job has ended by itself."""
        if slot.state in (State.STARTING, State.STEMCELL):
            self.upkeep.cell_failed()
        self.remove(slot)

    def remove(self, slot: Slot, why: Cold = Cold.ENDED, heir: Slot | None = None) -> asyncio.Task[None] | None:
        """Ends the slot; once the container is gone its memory is free, or the heir's."""
        if slot.state in (State.REMOVING, State.GONE):
            return None
        if self.shelf.leave(slot, why, heir):
            assert slot.usage is not None
            self._cell_demand.gone(slot.usage, Cell(slot.kind, slot.memory_mb))
        if slot.timer is not None:
            slot.timer.cancel()
            slot.timer = None
        return self._tasks.create_task(self._destroy(slot, heir))

    def forget_revisions(self, action: str, revision: int) -> None:
        """Idle containers of other revisions of an action will never be used again."""
        for slot in list(self.shelf.idle()):
            key = slot.key
            if key is not None and key.action == action and key.revision != revision:
                self.remove(slot)

    # ── planning ────────────────────────────────────────────────────────────────────────────────────────────────

    def _look(self) -> bool:
        """Plans for whoever waits; whether anyone does."""
        if not self._queues:
            return False
        self._plan_all()
        return True

    def _plan_all(self) -> None:
        """Performs steps for whoever's turn it is, until there is nothing to do now: each step may change the turns."""
        while self._queues and self._plan_next():
            pass

    def _plan_next(self) -> bool:
        """Looks at the waiting keys in their turn, up to the first step; whether there was one.

        Of a namespace that found no memory, what needs as much is not looked at.
        """
        self._waiting.blocked = None
        full_mb: dict[str, int] = {}
        for key in self._waiting.in_turn():
            job = self._queues[key][0]
            memory_mb = job.action.limits.memory_mb
            if key.namespace in full_mb and memory_mb >= full_mb[key.namespace] and not self._has_container(job):
                continue
            wait = self._plan_key(key)
            if wait is None:
                return True
            if wait.is_full:
                full_mb[key.namespace] = memory_mb
        return False

    def _has_container(self, job: Job) -> bool:
        """Whether there is one that the job could have without more memory."""
        key, shelf = job.key, self.shelf
        cell = Cell(job.runtime, job.action.limits.memory_mb)
        return key in shelf.ready or key in shelf.paused or cell in shelf.cells

    def _plan_key(self, key: Key) -> Wait | None:
        """Performs a step for a waiting key; why there is none to do now."""
        ready = self._ready.get(key)
        if ready:
            self._engage(ready.pop(), self._waiting.pop(key, self._clock.monotonic_s()))
            return None
        job = self._queues[key][0]
        demand = self._outlook.demand(key, job)
        if must_wait(demand, has_paused=key in self.shelf.paused):
            self._arm_tick()
            return WAIT
        step = plan(demand, self._outlook.view(job))
        if isinstance(step, Wait):
            if step.is_full and self._waiting.blocked is None:
                self._waiting.blocked = job
            self._arm_tick()
            return step
        self._perform(step, key)
        return None

    def _perform(self, step: Resume[Slot] | Specialise[Slot] | Create[Slot], key: Key) -> None:
        now_s = self._clock.monotonic_s()
        job = self._waiting.pop(key, now_s)
        usage = self.shelf.usage_of(key, now_s)
        usage.uses += 1
        if isinstance(step, Resume):
            slot = step.slot
            usage.pauses.add(job.arrived_s - slot.idle_since_s)
            self.shelf.resume(slot, job)
            self._tasks.create_task(self._resume(slot, job))
            return
        is_busy = key in self.shelf.engaged
        job.cold = usage.why_cold(key.revision, is_busy=is_busy)
        if job.cold is not Cold.FIRST_USE and not is_busy:
            usage.pauses.add(job.arrived_s - usage.last_s)
        usage.revision = key.revision
        kind, memory_mb = job.runtime, job.action.limits.memory_mb
        self._cell_demand.draw(Cell(kind, memory_mb))
        gone = []
        if isinstance(step, Specialise):
            slot = step.slot
        else:
            slot = self.shelf.add(kind, memory_mb, key, now_s)
            for evicted in step.evicted:
                task = self.remove(evicted, Cold.EVICTED, heir=slot)
                if task is not None:
                    gone.append(task)
        self.shelf.assign(slot, key, usage, self._concurrency_of(job.action))
        self.shelf.initialize(slot, job)
        self._charge(slot, usage, key, usage.cold_s or START_S)
        self._prepare_in_task(self._initialize(slot, job, gone))

    def _charge(self, slot: Slot, usage: Usage, key: Key, more_s: float = 0.0) -> None:
        """While others wait, what begins is on its namespace's account.

        A container is paid for once: of a run that begins beside others, for how much longer it is likely to last.
        """
        if not self._queues:
            return
        seconds = (usage.service_s or START_S) + more_s
        now_s = self._clock.monotonic_s()
        paid_s = max(0.0, slot.charged_until_s - now_s) if slot.state is State.BUSY else 0.0
        slot.charged_until_s = now_s + max(seconds, paid_s)
        self._waiting.accounts.charge(key.namespace, slot.memory_mb, max(0.0, seconds - paid_s))

    # ── a slot's work ───────────────────────────────────────────────────────────────────────────────────────────

    def _engage(self, slot: Slot, job: Job) -> None:
        """Runs a job in a slot that is ready for its key."""
        if not self._ready.get(job.key, True):
            del self._ready[job.key]
        usage = slot.usage
        assert usage is not None
        usage.uses += 1
        if self._queues:
            self._charge(slot, usage, job.key)
        if not slot.jobs:
            pause_s = job.arrived_s - slot.idle_since_s
            if pause_s > usage.pauses.SHORTEST_S:
                usage.pauses.add(pause_s)
            slot.on(RUN)
        self.shelf.take(slot, job)
        if slot.concurrency > 1 and slot.has_room:
            self._list(slot, job.key)
        self._run(slot, job)

    def _prepare_in_task(self, work: Coroutine[None, None, None]) -> None:
        """What brings a container up is cut off when the pool closes."""
        task = self._tasks.create_task(work)
        self._preparing.add(task)
        task.add_done_callback(self._preparing.discard)

    async def _initialize(self, slot: Slot, job: Job, gone: list[asyncio.Task[None]]) -> None:
        """Brings the job's code up, in a new container once those that were evicted for it are gone."""
        if gone:
            await asyncio.wait(gone)
        began_s = self._clock.monotonic_s()
        prepared_s = 0.0
        if slot.container is not None:  # a stem cell; the next start will have none
            prepared_s = self._cell_demand.start_s(Cell(slot.kind, slot.memory_mb))
        try:
            is_up = await self._prepare(slot, job)
        except (ContainerGone, ContainerLost) as error:
            self.shelf.initialized(slot, job.key)
            self._dead_on_start(slot, job, error)
            return
        except Exception as error:  # whatever a driver or a store raises: the job ends with a record
            log.warning("pool.start_failed", slot=slot.id, action=job.message.action, reason=repr(error))
            self.shelf.initialized(slot, job.key)
            self.failed(slot, job)
            self._start_failed(job, error)
            return
        self.shelf.initialized(slot, job.key)
        if is_up and slot.state is State.INITIALIZING:
            assert slot.usage is not None
            took_s = self._clock.monotonic_s() - began_s
            slot.usage.started(took_s + prepared_s)
            self._begin(slot, job)
        self._plan_all()

    def _dead_on_start(self, slot: Slot, job: Job, error: Exception) -> None:
        log.warning("pool.container_gone", slot=slot.id, action=job.message.action, reason=str(error))
        if job.tries < TRIES:
            self.retry(slot, job)
        else:
            self.failed(slot, job)
            self._start_failed(job, error)

    async def _resume(self, slot: Slot, job: Job) -> None:
        try:
            assert slot.container is not None
            await slot.container.resume()
        except Exception as error:  # whatever a driver raises: the job goes to another container
            log.warning("pool.resume_failed", slot=slot.id, reason=repr(error))
            self.shelf.resumed(slot, job.key)
            self.retry(slot, job)
            return
        self.shelf.resumed(slot, job.key)
        if slot.state is State.RESUMING:
            self._begin(slot, job)
            if self._queues:
                self._plan_all()

    def _begin(self, slot: Slot, job: Job) -> None:
        """The first run in a slot that was brought up, or resumed, for it; what else waits may join it."""
        slot.on(SlotEvent.RUN)
        if job.is_provision:
            self.finished(slot, job, None)
            return
        if slot.has_room:
            self._list(slot, job.key)
        self._run(slot, job)

    async def _destroy(self, slot: Slot, heir: Slot | None) -> None:
        """The memory is free once the container has ended; what it leaves is removed while others go on."""
        if slot.client is not None:
            slot.client.close()
        if slot.container is not None:
            await self._clear_away(slot.container)
        self.shelf.removed(slot, heir)
        if self.is_closed:
            if not self.shelf.slots:
                self._is_empty.set()
        elif self._queues:
            self._plan_all()

    async def _clear_away(self, container: Container) -> None:
        """Returns when the container has ended."""
        clearing: asyncio.Future[None] = self._tasks.create_task(self._end(container))
        self._clearing.add(clearing)
        clearing.add_done_callback(self._clearing.discard)
        both: tuple[asyncio.Future[Any], ...] = clearing, container.exited
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)

    async def _end(self, container: Container) -> None:
        try:
            await container.destroy()
        except Exception as error:  # whatever a driver raises: the slot is gone all the same
            log.error("pool.destroy_failed", container=container.id, reason=repr(error))

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

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def close(self) -> None:
        """Destroys every container; runs and starts that still go on are cut off."""
        self.is_closed = True
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        self._waiting.clear()
        for task in list(self._preparing):
            task.cancel()
        if not self.shelf.slots:
            self._is_empty.set()
        for slot in list(self.shelf.slots.values()):
            self.remove(slot)
        await self._is_empty.wait()
        await asyncio.gather(*self._clearing)

    def __repr__(self) -> str:
        shelf = self.shelf
        slots = ", ".join(map(repr, shelf.slots.values()))
        waiting = ", ".join(f"{key.action}:{len(queue)}" for key, queue in self._queues.items())
        return f"<pool {shelf.used_mb}/{shelf.memory_mb}MB starts={self.starts} [{slots}] waiting [{waiting}]>"
