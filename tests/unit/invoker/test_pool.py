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
from visp.invoker.job import Cold, Job
from visp.invoker.keepalive import LINGER_S, SEEN_PAUSES
from visp.invoker.outlook import STARVED_S
from visp.invoker.plan import PROTECTED_S
from visp.invoker.pool import Pool
from visp.invoker.prewarm import Cell, Wanted
from visp.invoker.shelf import LAUNCH_S
from visp.invoker.slot import Key, Slot, State
from visp.invoker.upkeep import BACKOFF_S, SWEEP_S
from visp.settings import Pool as PoolSettings

KIND = "python:3.11"


def a_job(
    name: str,
    id: str,
    now_s: float,
    memory_mb: int,
    revision: int = 1,
    namespace: str = "guest",
    concurrency: int = 1,
) -> Job:
    action = Action(
        name=FullyQualifiedName("guest", None, name),
        exec=CodeExec(KIND, Code(False, inline="")),
        limits=ActionLimits(memory_mb=memory_mb, concurrency=concurrency),
        revision=revision,
    )
    message = ActivationMessage(
        id=id,
        transid="t",
        namespace=namespace,
        namespace_uuid="u",
        subject="guest",
        action=action.name.id,
        revision=revision,
        content=b"{}",
        received_ms=0,
    )
    return Job(message, action, Key(namespace, action.name.id, revision), now_s)


class Bench:
    """A pool whose containers are made by a fake driver and whose jobs run until told to end."""

    def __init__(self, *, memory_mb: int = 512, starts_limit: int = 4, cells: int = 0, cells_most: int = 0) -> None:
        self.clock = ManualClock()
        self.driver = FakeDriver(clock=self.clock)
        self.tasks = asyncio.TaskGroup()
        self.jobs: dict[str, Job] = {}
        self.running: dict[str, Slot] = {}
        self.failed: dict[str, Exception] = {}
        self.prepared: list[str] = []
        self.rested: list[Slot] = []
        self.hold_init = asyncio.Event()
        self.hold_init.set()
        self.init_error: Exception | None = None
        self._count = 0
        self.pool = Pool(
            settings=PoolSettings(pause_grace_s=10.0, idle_s=600.0, stem_cells_most=cells_most),
            memory_mb=memory_mb,
            starts_limit=starts_limit,
            wanted=(Wanted(Cell(KIND, 256), cells),),
            clock=self.clock,
            tasks=self.tasks,
            open_cell=self._open,
            prepare=self._prepare,
            run=self._run,
            start_failed=self._failed,
            rest=self.rested.append,
            concurrency_of=lambda action: action.limits.concurrency,
        )

    async def _open(self, slot: Slot) -> None:
        spec = ContainerSpec(id=slot.id, argv=(), env={}, memory_mb=slot.memory_mb)
        container = await self.driver.create(spec)
        slot.container = container
        container.exited.add_done_callback(lambda _: None if slot.jobs else self.pool.lost(slot))
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
        assert job in slot.jobs
        assert slot.state is State.BUSY
        self.running[job.message.id] = slot

    def _failed(self, job: Job, error: Exception) -> None:
        self.failed[job.message.id] = error

    def submit(
        self, name: str, *, memory_mb: int = 256, revision: int = 1, namespace: str = "guest", concurrency: int = 1
    ) -> str:
        self._count += 1
        id = f"{name}{self._count}"
        job = self.jobs[id] = a_job(name, id, self.clock.monotonic_s(), memory_mb, revision, namespace, concurrency)
        self.pool.submit(job)
        return id

    def finish(self, id: str, service_s: float = 0.01) -> None:
        self.pool.finished(self.running.pop(id), self.jobs[id], service_s)

    async def settle(self) -> None:
        """Until every task has got as far as it can without time passing."""
        for _ in range(30):
            await asyncio.sleep(0)

    async def warm(self, name: str, memory_mb: int = 256, namespace: str = "guest") -> Slot:
        """A READY container for the action."""
        id = self.submit(name, memory_mb=memory_mb, namespace=namespace)
        await self.settle()
        slot = self.running[id]
        self.finish(id)
        return slot

    def states(self) -> list[str]:
        return [slot.state.name for slot in self.pool.shelf.slots.values()]


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


async def test_memory_is_free_while_what_has_ended_is_removed(bench: Bench) -> None:
    bench.driver.clean_s = 0.5
    await bench.warm("a", memory_mb=512)
    id = bench.submit("b", memory_mb=512)
    await bench.settle()
    assert id in bench.running
    closing = asyncio.ensure_future(bench.pool.close())
    await bench.settle()
    assert not closing.done(), "it waits for that"
    bench.clock.advance(0.5)
    await bench.settle()
    assert closing.done()


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
    job = bench.jobs[first]
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
        sweeping = asyncio.ensure_future(bench.pool.upkeep.sweep())
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
        sweeping = asyncio.ensure_future(bench.pool.upkeep.sweep())
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
        bench.pool.upkeep.keep_cells()
        await bench.settle()
        id = bench.submit("b", memory_mb=384)
        await bench.settle()
        assert id in bench.running
        assert warm.state is State.READY


async def test_idle_containers_are_paused_resumed_and_removed(bench: Bench) -> None:
    slot = await bench.warm("a")
    sweeping = asyncio.ensure_future(bench.pool.upkeep.sweep())
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


async def test_a_container_rests_once_before_it_is_paused(bench: Bench) -> None:
    slot = await bench.warm("a")
    sweeping = asyncio.ensure_future(bench.pool.upkeep.sweep())
    for seconds, rested in ((4.0, 0), (1.5, 1), (1.0, 1)):
        bench.clock.advance(seconds)
        await bench.settle()
        assert bench.rested == [slot] * rested
    id = bench.submit("a")
    await bench.settle()
    bench.finish(id)
    bench.clock.advance(5.5)
    await bench.settle()
    assert bench.rested == [slot] * 2
    sweeping.cancel()


async def test_a_container_that_cannot_be_resumed_is_replaced(bench: Bench) -> None:
    slot = await bench.warm("a")
    sweeping = asyncio.ensure_future(bench.pool.upkeep.sweep())
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
    sweeping = asyncio.ensure_future(bench.pool.upkeep.sweep())
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


# ── keeping ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_worth_least_is_evicted_not_what_is_idle_longest(bench: Bench) -> None:
    for _ in range(5):
        favourite = await bench.warm("favourite")
        bench.clock.advance(0.1)
    once = await bench.warm("once")
    for slot in (favourite, once):
        assert slot.usage is not None
        slot.usage.cold_s = 0.1
    bench.submit("new")
    await bench.settle()
    assert once.state is State.GONE
    assert favourite.state is State.READY
    assert bench.pool.shelf.evicted == 1


async def test_a_container_of_a_regular_action_expires_soon(bench: Bench) -> None:
    for _ in range(SEEN_PAUSES + 2):
        slot = await bench.warm("a")
        bench.clock.advance(300.0)
    slot = await bench.warm("a")
    bench.clock.advance(LINGER_S + 0.1)
    bench.pool.upkeep.pause_and_remove()
    await bench.settle()
    assert slot.state is State.GONE
    assert bench.pool.shelf.expired == 1


async def test_each_cold_start_has_its_reason(bench: Bench) -> None:
    first = bench.submit("a")
    await bench.settle()
    second = bench.submit("a")
    await bench.settle()
    for id in (first, second):
        bench.finish(id)
    warm = bench.submit("a")
    bench.finish(warm)
    other = bench.submit("a", revision=2)
    await bench.settle()
    bench.finish(other)
    bench.clock.advance(601)
    bench.pool.upkeep.pause_and_remove()
    await bench.settle()
    late = bench.submit("a", revision=2)
    await bench.settle()
    bench.pool.failed(bench.running.pop(late), bench.jobs[late])
    again = bench.submit("a", revision=2)
    await bench.settle()
    reasons = {id: bench.jobs[id].cold for id in (first, second, warm, other, late, again)}
    assert reasons == {
        first: Cold.FIRST_USE,
        second: Cold.ALL_BUSY,
        warm: None,
        other: Cold.NEW_REVISION,
        late: Cold.EXPIRED,
        again: Cold.ENDED,
    }


async def test_evicted_is_a_reason_too(bench: Bench) -> None:
    await bench.warm("a")
    bench.clock.advance(1)
    await bench.warm("b", memory_mb=512)
    bench.clock.advance(1)
    id = bench.submit("a")
    await bench.settle()
    assert bench.jobs[id].cold is Cold.EVICTED


async def test_stem_cells_follow_cold_starts() -> None:
    async with opened(Bench(memory_mb=4096, cells_most=3)) as bench:
        for name in "abcde":
            bench.submit(name, memory_mb=512)
        await bench.settle()
        bench.clock.advance(1.0)
        bench.pool.upkeep.keep_cells()
        await bench.settle()
        assert bench.pool.shelf.cell_counts() == {Cell(KIND, 512): 3}
        bench.clock.advance(300.0)
        bench.pool.upkeep.keep_cells()
        await bench.settle()
        assert bench.pool.shelf.cell_counts() == {}, "what nobody asks for any more is given back"


# ── between namespaces ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_flood_does_not_take_the_warm_container_of_who_holds_less(bench: Bench) -> None:
    own = await bench.warm("calm", namespace="small")
    for _ in range(5):
        bench.submit("flood", namespace="large")
    await bench.settle()
    assert own.state is State.READY
    bench.clock.advance(PROTECTED_S)
    bench.pool._plan_all()
    await bench.settle()
    assert own.state is State.GONE, "nobody has used it for a while"


async def test_a_newcomer_gets_a_container_of_a_flood_after_one_run() -> None:
    async with opened(Bench(memory_mb=1024)) as bench:
        flood = [bench.submit("flood", namespace="large") for _ in range(20)]
        await bench.settle()
        id = bench.submit("calm", namespace="small")
        await bench.settle()
        assert id not in bench.running
        bench.finish(next(iter(bench.running)), service_s=0.05)
        await bench.settle()
        assert id in bench.running
        assert sum(id in bench.running for id in flood) == 3


async def test_a_container_that_is_never_at_rest_gives_way_too() -> None:
    """Room for two, all held by a container that has always another run: it takes no more, and goes after the last."""
    async with opened(Bench(memory_mb=256)) as bench:
        busy = bench.submit("busy", namespace="large", concurrency=2)
        await bench.settle()
        slot = bench.running[busy]
        starving = bench.submit("calm", namespace="small")
        for _ in range(20):
            beside = bench.submit("busy", namespace="large", concurrency=2)
            bench.clock.advance(0.2)
            bench.finish(busy, service_s=0.2)
            await bench.settle()
            if slot.state is not State.BUSY:
                break
            busy = beside
        assert slot.state is State.DRAINING
        bench.finish(beside, service_s=0.2)
        await bench.settle()
        assert list(bench.running) == [starving]


async def test_a_container_is_paid_for_once_however_many_it_runs() -> None:
    async with opened(Bench(memory_mb=256)) as bench:
        first = bench.submit("many", namespace="large", concurrency=4)
        await bench.settle()
        bench.finish(first, service_s=1.0)
        bench.submit("many", namespace="large", concurrency=4)
        bench.submit("calm", namespace="small")
        turn = bench.pool._waiting.accounts.turn
        bench.submit("many", namespace="large", concurrency=4)
        after_one = turn("large")
        bench.submit("many", namespace="large", concurrency=4)
        assert turn("large") == after_one, "it begins and is likely to end when the other does"
        bench.clock.advance(0.5)
        bench.submit("many", namespace="large", concurrency=4)
        assert turn("large") == after_one + 256 * 0.5


async def test_a_container_with_room_serves_before_another_is_started(bench: Bench) -> None:
    slot = await bench.warm("a", memory_mb=128)
    ids = [bench.submit("a", memory_mb=128) for _ in range(1)]
    assert bench.running[ids[0]] is slot
    first = bench.submit("many", memory_mb=128, concurrency=3)
    others = [bench.submit("many", memory_mb=128, concurrency=3) for _ in range(2)]
    await bench.settle()
    assert len({bench.running[id].id for id in (first, *others)}) == 1
    assert len(bench.driver.created) == 2
    bench.finish(first)
    again = bench.submit("many", memory_mb=128, concurrency=3)
    assert bench.running[again] is bench.running[others[0]]
    full = bench.submit("many", memory_mb=128, concurrency=3)
    assert full not in bench.running


async def test_what_waits_for_a_paused_container_runs_in_it_together(bench: Bench) -> None:
    first = bench.submit("many", concurrency=3)
    await bench.settle()
    slot = bench.running[first]
    bench.finish(first)
    bench.clock.advance(10.1)
    bench.pool.upkeep.pause_and_remove()
    await bench.settle()
    assert slot.state is State.PAUSED
    ids = [bench.submit("many", concurrency=3) for _ in range(3)]
    await bench.settle()
    assert [bench.running.get(id) for id in ids] == [slot] * 3
    bench.pool.upkeep.pause_and_remove()
    assert slot.state is State.BUSY


async def test_what_holds_as_much_takes_turns_by_memory_and_time() -> None:
    """One container's room, two namespaces that always want it: each gets about half of the time."""
    async with opened(Bench(memory_mb=256)) as bench:
        got = {"a": 0, "b": 0}
        for name in got:
            for _ in range(100):
                bench.submit("same", namespace=name)
        await bench.settle()
        for _ in range(120):
            (id,) = bench.running
            got[bench.jobs[id].key.namespace] += 1
            bench.clock.advance(0.1)
            bench.finish(id, service_s=0.1)
            bench.pool._plan_all()  # as each tick does
            await bench.settle()
        assert abs(got["a"] - got["b"]) <= 12, got
