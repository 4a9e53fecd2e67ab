"""The pool over scripted containers: who gets one, who waits, who gives way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from visp.bus.messages import ActivationMessage
from visp.clock import ManualClock
from visp.container.base import ContainerSpec
from visp.container.fake import FakeContainer, FakeDriver
from visp.entity.action import Action
from visp.entity.execs import Code, CodeExec
from visp.entity.limits import ActionLimits
from visp.entity.names import FullyQualifiedName
from visp.errors import ContainerGone, StartFailed
from visp.invoker.job import Job
from visp.invoker.pool import BACKOFF_S, LAUNCH_S, STARVED_S, SWEEP_S, Pool
from visp.invoker.prewarm import Cell, Wanted
from visp.invoker.slot import Key, Slot, State
from visp.settings import Pool as PoolSettings

KIND = "python:3.11"


def a_job(name: str, id: str, now_s: float, memory_mb: int, revision: int = 1) -> Job:
    action = Action(
        name=FullyQualifiedName("guest", None, name),
        exec=CodeExec(KIND, Code(False, inline="")),
        limits=ActionLimits(memory_mb=memory_mb),
        revision=revision,
    )
    message = ActivationMessage(
        id=id,
        transid="t",
        namespace="guest",
        namespace_uuid="u",
        subject="guest",
        action=action.name.id,
        revision=revision,
        content=b"{}",
        received_ms=0,
    )
    return Job(message, action, Key("guest", action.name.id, revision), now_s)


class Bench:
    """A pool whose containers are made by a fake driver and whose jobs run until told to end."""

    def __init__(self, *, memory_mb: int = 512, starts_limit: int = 4, cells: int = 0) -> None:
        self.clock = ManualClock()
        self.driver = FakeDriver(clock=self.clock)
        self.tasks = asyncio.TaskGroup()
        self.running: dict[str, Slot] = {}
        self.failed: dict[str, Exception] = {}
        self.prepared: list[str] = []
        self.hold_init = asyncio.Event()
        self.hold_init.set()
        self.init_error: Exception | None = None
        self._count = 0
        self.pool = Pool(
            settings=PoolSettings(pause_grace_s=10.0, idle_s=600.0),
            memory_mb=memory_mb,
            starts_limit=starts_limit,
            wanted=(Wanted(Cell(KIND, 256), cells),),
            clock=self.clock,
            tasks=self.tasks,
            open_cell=self._open,
            prepare=self._prepare,
            run=self._run,
            start_failed=self._failed,
        )

    async def _open(self, slot: Slot) -> None:
        spec = ContainerSpec(id=slot.id, argv=(), env={}, memory_mb=slot.memory_mb)
        container = await self.driver.create(spec)
        slot.container = container
        container.exited.add_done_callback(lambda _: self.pool.lost(slot) if slot.job is None else None)
        self.pool.launched(slot)

    async def _prepare(self, slot: Slot, job: Job) -> bool:
        if slot.container is None:
            await self._open(slot)
        self.prepared.append(job.message.id)
        await self.hold_init.wait()
        if self.init_error is not None:
            raise self.init_error
        return True

    def _run(self, slot: Slot, job: Job) -> None:
        assert slot.job is job
        assert slot.state is State.BUSY
        self.running[job.message.id] = slot

    def _failed(self, job: Job, error: Exception) -> None:
        self.failed[job.message.id] = error

    def submit(self, name: str, *, memory_mb: int = 256, revision: int = 1) -> str:
        self._count += 1
        id = f"{name}{self._count}"
        self.pool.submit(a_job(name, id, self.clock.monotonic_s(), memory_mb, revision))
        return id

    def finish(self, id: str, service_s: float = 0.01) -> None:
        self.pool.finished(self.running.pop(id), service_s)

    async def settle(self) -> None:
        """Until every task has got as far as it can without time passing."""
        for _ in range(30):
            await asyncio.sleep(0)

    async def warm(self, name: str, memory_mb: int = 256) -> Slot:
        """A READY container for the action."""
        id = self.submit(name, memory_mb=memory_mb)
        await self.settle()
        slot = self.running[id]
        self.finish(id)
        return slot

    def states(self) -> list[str]:
        return [slot.state.name for slot in self.pool._slots.values()]


@contextlib.asynccontextmanager
async def opened(held: Bench) -> AsyncIterator[Bench]:
    async with held.tasks:
        yield held
        held.hold_init.set()
        if not held.pool.is_closed:
            await held.pool.close()
        assert held.pool.used_mb == 0
        assert held.driver.containers == {}


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with opened(Bench()) as held:
        yield held


async def test_a_warm_container_is_used_within_the_call(bench: Bench) -> None:
    slot = await bench.warm("a")
    id = bench.submit("a")
    assert bench.running[id] is slot
    assert len(bench.driver.created) == 1


async def test_another_action_or_revision_gets_a_container_of_its_own(bench: Bench) -> None:
    first = await bench.warm("a")
    id = bench.submit("a", revision=2)
    await bench.settle()
    assert bench.running[id] is not first


async def test_jobs_of_one_action_run_in_the_order_they_came(bench: Bench) -> None:
    slot = await bench.warm("a", memory_mb=512)
    ids = [bench.submit("a", memory_mb=512) for _ in range(3)]
    for id in ids:
        assert list(bench.running) == [id]
        assert bench.running[id] is slot
        bench.finish(id)


async def test_a_burst_of_short_runs_starts_no_container_that_comes_too_late(bench: Bench) -> None:
    bench.driver.create_s = 1.0
    id = bench.submit("a")
    await bench.settle()
    bench.clock.advance(1.0)
    await bench.settle()
    bench.finish(id, 0.001)
    ids = [bench.submit("a") for _ in range(5)]
    await bench.settle()
    assert list(bench.running) == ids[:1]
    assert len(bench.driver.created) == 1
    assert repr(bench.pool).endswith("waiting [guest/a:4]>")


async def test_memory_is_taken_only_when_the_evicted_container_has_left(bench: Bench) -> None:
    bench.driver.destroy_s = 0.5
    await bench.warm("a")
    await bench.warm("b")
    id = bench.submit("c", memory_mb=512)
    await bench.settle()
    assert bench.states() == ["REMOVING", "REMOVING", "INITIALIZING"]
    assert bench.pool.used_mb == 512
    assert id not in bench.running
    bench.clock.advance(0.5)
    await bench.settle()
    assert id in bench.running
    assert bench.driver.peak_mb == 512
    bench.driver.destroy_s = 0.0


async def test_what_eviction_frees_beyond_the_need_is_free(bench: Bench) -> None:
    await bench.warm("a", memory_mb=512)
    id = bench.submit("b", memory_mb=128)
    await bench.settle()
    assert id in bench.running
    assert bench.pool.used_mb == 128


async def test_the_longest_idle_is_evicted_and_never_a_busy_one(bench: Bench) -> None:
    oldest = await bench.warm("a")
    bench.clock.advance(1)
    await bench.warm("b")
    bench.submit("a")
    id = bench.submit("c")
    await bench.settle()
    assert oldest.state is State.BUSY
    assert id in bench.running
    assert repr(bench.pool) == (
        "<pool 512/512MB starts=0 [<c000001 python:3.11 256MB BUSY guest:guest/a@1>, "
        "<c000003 python:3.11 256MB BUSY guest:guest/c@1>] waiting []>"
    )


async def test_who_waits_for_memory_gets_it_when_a_run_ends(bench: Bench) -> None:
    busy = [bench.submit("a"), bench.submit("b")]
    await bench.settle()
    id = bench.submit("c")
    await bench.settle()
    assert id not in bench.running
    bench.finish(busy[0])
    await bench.settle()
    assert id in bench.running


async def test_a_busy_action_gives_way_to_one_that_starves() -> None:
    async with opened(Bench(memory_mb=512)) as bench:
        running = [bench.submit("a"), bench.submit("b")]
        await bench.settle()
        starving = bench.submit("c", memory_mb=512)
        bench.clock.advance(STARVED_S + 0.1)
        more = [bench.submit("a"), bench.submit("b")]
        for id in running:
            bench.finish(id)
            await bench.settle()
        assert list(bench.running) == [starving]
        bench.finish(starving)
        await bench.settle()
        assert sorted(bench.running) == sorted(more)


async def test_what_is_larger_than_the_pool_ends_at_once(bench: Bench) -> None:
    id = bench.submit("a", memory_mb=1024)
    assert isinstance(bench.failed[id], StartFailed)
    assert bench.pool.waiting == 0


async def test_no_more_starts_at_once_than_allowed() -> None:
    async with opened(Bench(memory_mb=2048, starts_limit=2)) as bench:
        bench.driver.create_s = 0.5
        for name in "abcd":
            bench.submit(name)
        await bench.settle()
        assert (bench.pool.starts, bench.pool.waiting) == (2, 2)
        for _ in range(3):
            bench.clock.advance(0.5)
            await bench.settle()
        assert len(bench.running) == 4


async def test_slow_user_initialisation_does_not_hold_up_other_starts() -> None:
    async with opened(Bench(memory_mb=2048, starts_limit=1)) as bench:
        bench.hold_init.clear()
        bench.submit("slow")
        await bench.settle()
        bench.submit("quick")
        await bench.settle()
        assert len(bench.driver.created) == 1
        bench.clock.advance(LAUNCH_S)
        bench.pool._plan_all()
        await bench.settle()
        assert len(bench.driver.created) == 2


@pytest.mark.parametrize("error", [StartFailed("no"), OSError("no"), RuntimeError("no")])
async def test_whatever_a_start_raises_ends_the_job_and_nothing_else(bench: Bench, error: Exception) -> None:
    bench.init_error = error
    ids = [bench.submit("a"), bench.submit("a")]
    await bench.settle()
    await bench.settle()
    assert bench.failed == dict.fromkeys(ids, error)
    assert bench.pool.used_mb == 0
    bench.init_error = None
    id = bench.submit("b")
    await bench.settle()
    assert id in bench.running


async def test_a_container_that_is_dead_on_start_is_replaced_a_few_times(bench: Bench) -> None:
    bench.init_error = ContainerGone("dead")
    id = bench.submit("a")
    for _ in range(5):
        await bench.settle()
    assert bench.prepared == [id] * 4
    assert bench.failed == {id: bench.init_error}


async def test_a_job_whose_container_was_gone_goes_before_all_others(bench: Bench) -> None:
    slot = await bench.warm("a", memory_mb=512)
    first = bench.submit("a", memory_mb=512)
    second = bench.submit("a", memory_mb=512)
    job = slot.job
    assert job is not None
    del bench.running[first]
    bench.pool.retry(slot, job)
    await bench.settle()
    assert list(bench.running) == [first]
    assert job.tries == 1
    bench.finish(first)
    assert list(bench.running) == [second]


async def test_stem_cells_are_kept_used_and_replaced() -> None:
    async with opened(Bench(memory_mb=1024, cells=2)) as bench:
        sweeping = asyncio.ensure_future(bench.pool.sweep())
        await bench.settle()
        assert bench.states() == ["STEMCELL", "STEMCELL"]
        id = bench.submit("a")
        await bench.settle()
        assert bench.running[id].id in ("c000001", "c000002")
        bench.clock.advance(SWEEP_S)
        await bench.settle()
        assert sorted(bench.states()) == ["BUSY", "STEMCELL", "STEMCELL"]
        sweeping.cancel()


async def test_stem_cells_that_end_by_themselves_are_not_made_again_at_once() -> None:
    async with opened(Bench(memory_mb=1024, cells=1)) as bench:
        sweeping = asyncio.ensure_future(bench.pool.sweep())
        await bench.settle()
        (container,) = bench.driver.containers.values()
        await container.destroy()
        await bench.settle()
        bench.clock.advance(SWEEP_S)
        await bench.settle()
        assert bench.states() == []
        bench.clock.advance(BACKOFF_S)
        await bench.settle()
        assert bench.states() == ["STEMCELL"]
        sweeping.cancel()


async def test_a_stem_cell_gives_way_before_a_warm_container() -> None:
    async with opened(Bench(memory_mb=640, cells=1)) as bench:
        warm = await bench.warm("a")
        bench.pool._keep_cells()
        await bench.settle()
        id = bench.submit("b", memory_mb=384)
        await bench.settle()
        assert id in bench.running
        assert warm.state is State.READY


async def test_idle_containers_are_paused_resumed_and_removed(bench: Bench) -> None:
    slot = await bench.warm("a")
    sweeping = asyncio.ensure_future(bench.pool.sweep())
    bench.clock.advance(10.5)
    await bench.settle()
    assert slot.state is State.PAUSED
    assert isinstance(slot.container, FakeContainer)
    assert slot.container.is_paused
    id = bench.submit("a")
    await bench.settle()
    assert bench.running[id] is slot
    assert not slot.container.is_paused
    bench.finish(id)
    bench.clock.advance(601)
    await bench.settle()
    assert slot.state is State.GONE
    sweeping.cancel()


async def test_a_container_that_cannot_be_resumed_is_replaced(bench: Bench) -> None:
    slot = await bench.warm("a")
    sweeping = asyncio.ensure_future(bench.pool.sweep())
    bench.clock.advance(10.5)
    await bench.settle()
    sweeping.cancel()
    bench.driver.failing = frozenset({"resume"})
    id = bench.submit("a")
    await bench.settle()
    assert id in bench.running
    assert bench.running[id] is not slot


async def test_a_container_that_cannot_be_paused_is_not_kept(bench: Bench) -> None:
    slot = await bench.warm("a")
    bench.driver.failing = frozenset({"pause", "destroy"})
    sweeping = asyncio.ensure_future(bench.pool.sweep())
    bench.clock.advance(10.5)
    await bench.settle()
    sweeping.cancel()
    assert slot.state is State.GONE
    assert bench.pool.used_mb == 0


async def test_other_revisions_leave_when_idle(bench: Bench) -> None:
    await bench.warm("a")
    bench.pool.forget_revisions("guest/a", 2)
    await bench.settle()
    assert bench.states() == []


async def test_close_ends_everything_and_begins_nothing(bench: Bench) -> None:
    running = bench.submit("a")
    await bench.settle()
    bench.hold_init.clear()
    starting = bench.submit("b")
    waiting = bench.submit("c")
    await bench.settle()
    await bench.pool.close()
    assert bench.driver.containers == {}
    bench.finish(running)
    late = bench.submit("a")
    await bench.settle()
    assert bench.running == {}
    assert {starting, waiting, late}.isdisjoint(bench.failed), "accepted work runs at the next start instead"
    assert bench.states() == []
