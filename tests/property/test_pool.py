"""The real pool under any order of events, in a loop of its own with a clock that stands still between them.

Never over memory, never more starts than allowed, never evicts what is busy; nothing waits while a step is possible;
every job ends exactly once.
"""

import asyncio
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.unit.invoker.test_pool import a_job

from visp.clock import ManualClock
from visp.container.base import ContainerSpec
from visp.container.fake import FakeDriver
from visp.errors import ContainerGone, StartFailed
from visp.invoker.job import Job
from visp.invoker.plan import Wait, plan
from visp.invoker.pool import Pool
from visp.invoker.prewarm import Cell, Wanted
from visp.invoker.shelf import LAUNCH_S
from visp.invoker.slot import WORKING, Key, Slot, State
from visp.invoker.upkeep import SWEEP_S
from visp.settings import Pool as PoolSettings

KIND = "python:3.11"
MEMORY_MB = 1024
STARTS = 2
ACTIONS = {"a": 128, "b": 256, "c": 512, "d": 256, "huge": 2048, "many": 256, "pair": 512}
CONCURRENCY = {"many": 3, "pair": 2}


class PoolMachine(RuleBasedStateMachine):
    """Containers are created, initialised and destroyed when a rule says so, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.held: dict[str, asyncio.Future[Exception | None]] = {}
        """What a task waits for, and how it will go on: `create c1`, `init c1`, `destroy c1`."""
        self.running: dict[str, Slot] = {}
        self.submitted: dict[str, Job] = {}
        self.ended: dict[str, str] = {}

    @initialize(cells=st.integers(0, 2))
    def open(self, cells: int) -> None:
        self.clock = ManualClock()
        self.driver = FakeDriver(clock=self.clock)
        self.loop.run_until_complete(self._open(cells))

    async def _open(self, cells: int) -> None:
        self.tasks = asyncio.TaskGroup()
        self.role = self.loop.create_task(self._live())
        await asyncio.sleep(0)
        self.pool = Pool(
            settings=PoolSettings(pause_grace_s=5.0, idle_s=60.0),
            memory_mb=MEMORY_MB,
            starts_limit=STARTS,
            wanted=(Wanted(Cell(KIND, 256), cells),),
            clock=self.clock,
            tasks=self.tasks,
            open_cell=self._create,
            prepare=self._prepare,
            run=self._run,
            start_failed=lambda job, _: self._end(job, "failed"),
            rest=lambda slot: None,
            concurrency_of=lambda action: action.limits.concurrency,
        )

    async def _live(self) -> None:
        async with self.tasks:
            self.is_over = self.loop.create_future()
            await self.is_over

    async def _hold(self, name: str) -> None:
        held: asyncio.Future[Exception | None] = self.loop.create_future()
        self.held[name] = held
        try:
            error = await held
        finally:
            del self.held[name]
        if error is not None:
            raise error

    async def _create(self, slot: Slot) -> None:
        container = await self.driver.create(ContainerSpec(id=slot.id, argv=(), env={}, memory_mb=slot.memory_mb))
        slot.container = _Held(self, container)
        await self._hold(f"create {slot.id}")
        self.pool.launched(slot)

    async def _prepare(self, slot: Slot, job: Job) -> bool:
        assert slot.jobs == {job}
        if slot.container is None:
            await self._create(slot)
        await self._hold(f"init {slot.id}")
        return True

    def _run(self, slot: Slot, job: Job) -> None:
        assert job in slot.jobs
        assert slot.key == job.key
        assert slot.state is State.BUSY
        assert job.message.id not in self.ended
        assert job.message.id not in self.running
        self.running[job.message.id] = slot

    def _end(self, job: Job, how: str) -> None:
        assert job.message.id not in self.ended, "a job ends once"
        self.ended[job.message.id] = how

    def settle(self) -> None:
        async def turns() -> None:
            for _ in range(12):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())
        if self.role.done():
            self.role.result()  # nothing that a container does may end the role

    # ── what may happen ─────────────────────────────────────────────────────────────────────────────────────────

    @rule(
        name=st.sampled_from([*sorted(ACTIONS), "many", "many", "pair"]),
        namespace=st.sampled_from(["guest", "other"]),
        revision=st.integers(1, 2),
    )
    def submit(self, name: str, namespace: str, revision: int) -> None:
        id = f"{name}{len(self.submitted)}"
        job = a_job(
            name,
            id,
            self.clock.monotonic_s(),
            ACTIONS[name],
            revision,
            namespace,
            CONCURRENCY.get(name, 1),
        )
        self.submitted[id] = job

        async def submit() -> None:
            self.pool.submit(job)
            self.pool._plan_all()  # what is behind others is looked at within a tick

        self.loop.run_until_complete(submit())
        self.settle()

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        error=st.sampled_from([None, None, None, StartFailed("no"), OSError("no"), ContainerGone("no")]),
    )
    def go_on(self, data: st.DataObject, error: Exception | None) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        self.held[name].set_result(error)
        self.settle()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), how=st.sampled_from(["finished", "finished", "finished", "failed", "retry"]))
    def end_a_run(self, data: st.DataObject, how: str) -> None:
        id = data.draw(st.sampled_from(sorted(self.running)))
        slot = self.running.pop(id)
        job = self.submitted[id]

        async def end() -> None:
            if how == "retry":
                self.pool.retry(slot, job)
                return
            self._end(job, how)
            if how == "finished":
                self.pool.finished(slot, job, 0.01)
            else:
                self.pool.failed(slot, job)

        self.loop.run_until_complete(end())
        self.settle()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def a_container_breaks(self, data: st.DataObject) -> None:
        """Its runs are ended one by one afterwards; until then it takes no more."""
        slot = self.running[data.draw(st.sampled_from(sorted(self.running)))]

        async def breaks() -> None:
            self.pool.spend(slot)

        self.loop.run_until_complete(breaks())
        self.settle()

    @precondition(lambda self: any(slot.state is State.STEMCELL for slot in self.pool.shelf.slots.values()))
    @rule()
    def a_stem_cell_ends(self) -> None:
        slot = next(slot for slot in self.pool.shelf.slots.values() if slot.state is State.STEMCELL)

        async def end() -> None:
            self.pool.lost(slot)

        self.loop.run_until_complete(end())
        self.settle()

    @rule(seconds=st.sampled_from([0.03, SWEEP_S, LAUNCH_S, 5.1, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

        async def look() -> None:  # the pool's own ticks, which a clock that stands still does not bring
            self.pool._plan_all()
            self.pool.upkeep.pause_and_remove()
            self.pool.upkeep.keep_cells()

        self.loop.run_until_complete(look())
        self.settle()

    @rule(name=st.sampled_from(sorted(ACTIONS)))
    def an_action_changes(self, name: str) -> None:
        async def forget() -> None:
            self.pool.forget_revisions(f"guest/{name}", 2)

        self.loop.run_until_complete(forget())
        self.settle()

    # ── what always holds ───────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def never_over_memory(self) -> None:
        real_mb = sum(container.memory_mb for container in self.driver.containers.values())
        assert real_mb <= self.pool.used_mb <= MEMORY_MB
        slots = self.pool.shelf.slots.values()
        assert self.pool.used_mb == sum(slot.memory_mb - slot.missing_mb for slot in slots)
        held_mb: dict[str, int] = {}
        for slot in slots:
            if slot.key is not None and slot.state is not State.REMOVING:
                held_mb[slot.key.namespace] = held_mb.get(slot.key.namespace, 0) + slot.memory_mb
        assert self.pool.shelf.held_mb == held_mb

    @invariant()
    def no_more_starts_than_allowed(self) -> None:
        assert self.pool.starts <= STARTS

    @invariant()
    def what_is_busy_stays(self) -> None:
        for id, slot in self.running.items():
            assert slot.state in WORKING, id
            assert slot.id in self.driver.containers

    @invariant()
    def every_slot_is_listed_where_it_belongs(self) -> None:
        shelf = self.pool.shelf
        for index, belongs in (
            (shelf.ready, lambda slot: slot.has_room),
            (shelf.paused, lambda slot: slot.state is State.PAUSED),
            (shelf.cells, lambda slot: slot.state is State.STEMCELL),
        ):
            listed = [slot for slots in index.values() for slot in slots]
            assert len(listed) == len(set(listed))
            assert set(listed) == {slot for slot in shelf.slots.values() if belongs(slot)}
            assert all(index.values())

    @invariant()
    def never_more_runs_than_a_container_takes(self) -> None:
        engaged: dict[Key, int] = {}
        for slot in self.pool.shelf.slots.values():
            assert len(slot.jobs) <= slot.concurrency
            if slot.state in (State.READY, State.PAUSING, State.PAUSED, State.STEMCELL):
                assert not slot.jobs
            elif slot.state in WORKING:
                assert slot.jobs
            for job in slot.jobs:
                assert job.key == slot.key
            if slot.jobs:
                assert slot.key is not None
                engaged[slot.key] = engaged.get(slot.key, 0) + 1
        assert self.pool.shelf.engaged == engaged
        draining = [slot.key for slot in self.pool.shelf.slots.values() if slot.state is State.DRAINING]
        assert self.pool.shelf.draining == {key: draining.count(key) for key in draining}

    @invariant()
    def what_is_leaving_is_counted_once(self) -> None:
        shelf = self.pool.shelf
        assert (
            0
            <= shelf.leaving_mb
            <= sum(slot.memory_mb for slot in shelf.slots.values() if slot.state in (State.REMOVING, State.DRAINING))
        )

    @invariant()
    def every_job_is_in_one_place(self) -> None:
        waiting = [job.message.id for queue in self.pool._queues.values() for job in queue]
        held = [job.message.id for slot in self.pool.shelf.slots.values() for job in slot.jobs]
        assert sorted([*waiting, *held, *self.ended]) == sorted(self.submitted)

    @invariant()
    def nothing_waits_while_a_step_is_possible(self) -> None:
        for key, queue in self.pool._queues.items():
            assert key not in self.pool.shelf.ready
            step = plan(self.pool._outlook.demand(key, queue[0]), self.pool._outlook.view(queue[0]))
            assert isinstance(step, Wait), (key, step)

    def teardown(self) -> None:
        """Left alone, everything ends; then the pool closes and nothing is left."""
        try:
            if hasattr(self, "pool"):
                self._drain()
                self._close()
        finally:
            self.loop.close()

    def _drain(self) -> None:
        for _ in range(40 * (len(self.submitted) + 4)):
            if len(self.ended) == len(self.submitted):
                return
            for held in list(self.held.values()):
                held.set_result(None)
            self.settle()
            for id in list(self.running):
                slot, job = self.running.pop(id), self.submitted[id]

                async def finish(slot: Slot = slot, job: Job = job) -> None:
                    self._end(job, "finished")
                    self.pool.finished(slot, job, 0.01)

                self.loop.run_until_complete(finish())
            self.time_passes(0.03)
        raise AssertionError(f"jobs wait for ever: {self.pool!r}")

    def _close(self) -> None:
        async def close() -> None:
            closing = asyncio.ensure_future(self.pool.close())
            while not closing.done():
                for held in list(self.held.values()):
                    if not held.done():
                        held.set_result(None)
                await asyncio.sleep(0)
            self.is_over.set_result(None)
            await self.role

        self.loop.run_until_complete(close())
        assert self.driver.containers == {}
        assert self.pool.used_mb == 0


class _Held:
    """A fake container whose end takes until a rule lets it."""

    def __init__(self, machine: PoolMachine, container: Any) -> None:
        self._machine = machine
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    async def destroy(self) -> None:
        try:
            await self._machine._hold(f"destroy {self._container.id}")
        finally:
            await self._container.destroy()


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_any_order_of_events = PoolMachine.TestCase
