"""The invoker between a bus, a ledger and containers that do as they are told: what is recorded, what is acknowledged.

First over local containers, then over images that speak HTTP on loopback.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from visp.bus import base as topics
from visp.bus.memory import MemoryBus
from visp.bus.messages import ActivationMessage, CompletionAck, Detached, EntityChanged, Message, Ping, ResultAck
from visp.clock import Clock, ManualClock, SystemClock
from visp.container.base import Address, Container, ContainerSpec, Exit, Pipes, Way
from visp.container.fake import OK, OUT_OF_MEMORY, Act, FakeDriver
from visp.entity.action import Action
from visp.entity.activation import ActivationRecord, Phases, Status
from visp.entity.execs import BlackboxExec, Code, CodeExec
from visp.entity.limits import RESULT_LIMIT_BYTES, ActionLimits
from visp.entity.locking import Locks
from visp.entity.names import FullyQualifiedName
from visp.entity.parameters import plain
from visp.errors import Corrupt, StartFailed, StoreFull, StoreUnavailable
from visp.invoker.imports import COMMON
from visp.invoker.invoker import PING_S, Invoker
from visp.invoker.job import Cold
from visp.invoker.logs import SENTINEL
from visp.invoker.meter import COLD_STARTS, OUTCOMES
from visp.invoker.pool import TRIES
from visp.invoker.prewarm import Cell, Wanted
from visp.invoker.runs import LATE_LOGS_S, LOGS_S
from visp.invoker.upkeep import SWEEP_S
from visp.runtime import base
from visp.runtime.base import STDERR, STDOUT, ActionClient, CodeRefused, Command, OnOutput, PreparedCode, Takes
from visp.runtime.client import HttpClient, PipeClient
from visp.settings import Pool, Settings
from visp.store.base import Document, Then, Work
from visp.store.cache import EntityCache, Write
from visp.store.memory import MemoryBlobs, MemoryEntities, MemoryLedger

KIND = "python:3.11"
SETTINGS = Settings(pool=Pool(start_timeout_s=0.05, stem_cells_most=0))
NO_RESOURCES = {"error": "Failed to provision resources to run the action."}


class Ledger(MemoryLedger):
    """Also keeps the order in which entries were made, and fails by order."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[str] = []
        self.error: Exception | None = None

    def start(self, ids: Any, then: Then) -> None:
        self.entries += [f"started {id}" for id in ids]
        if self.error is None:
            super().start(ids, then)
        else:
            asyncio.get_running_loop().call_soon(then, self.error)

    def finish(self, record: ActivationRecord, then: Then, **named: bool) -> None:
        self.entries.append(f"finished {record.head.id}")
        super().finish(record, lambda _: then(self.error), **named)


class Entities(MemoryEntities):
    """Reads wait, or fail, by order."""

    def __init__(self) -> None:
        super().__init__()
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.error: Exception | None = None

    async def get(self, id: str) -> Document | None:
        await self.may_read.wait()
        if self.error is not None:
            raise self.error
        return await super().get(id)


class Kind:
    """A kind of this machine: some command."""

    takes = Takes.TREE
    recipe = None
    rests = keeps_compiled = False

    def __init__(self, *, is_concurrent: bool = False) -> None:
        self.is_concurrent = is_concurrent
        self.is_sentinelled = True

    def command(self, memory_mb: int) -> Command:
        return Command(argv=("/usr/bin/launcher",), env={"A": "1"}, mounts=(("/host/launcher", "/visp/launcher"),))


class Plane:
    """An invoker with everything around it."""

    def __init__(
        self,
        driver: Any,
        clock: Clock,
        *,
        cells: int = 0,
        memory_mb: int = 1024,
        settings: Settings = SETTINGS,
        kind: Kind | None = None,
    ) -> None:
        self.driver = driver
        self.clock = clock
        self.bus = MemoryBus()
        self.ledger = Ledger()
        self.store = Entities()
        self.entities = EntityCache(self.store, MemoryBlobs())
        self.heard: list[Message] = []
        self.code: Callable[[Code], PreparedCode] = lambda code: PreparedCode(text=code.inline)
        self._count = 0
        self.bus.subscribe(topics.ACKS, self.heard.append)
        self.bus.subscribe(topics.PINGS, self.heard.append)
        self.invoker = Invoker(
            id=0,
            bus=self.bus,
            ledger=self.ledger,
            entities=self.entities,
            driver=driver,
            connect=self._connect,
            kind_of={KIND: kind or Kind(), "nodejs:20": Kind(is_concurrent=True)}.get,
            prepare_code=self._prepare,
            locks=Locks(),
            key_of=self._key_of,
            settings=settings,
            wanted=(Wanted(Cell(KIND, 256), cells),),
            memory_mb=memory_mb,
            starts_limit=4,
            compiled=None,
            api_host="http://api",
            open_doors=lambda *_: None,
            lead_out=self._lead_out,
            clock=clock,
        )

    def _connect(self, container: Container, kind: str, on_output: OnOutput) -> ActionClient:
        loop, wire = asyncio.get_running_loop(), container.wire
        if isinstance(wire, Pipes):
            ends = (wire.stdin, wire.replies, wire.stdout, wire.stderr)
            return PipeClient(loop, ends, on_output, kind.partition(":")[0], RESULT_LIMIT_BYTES)
        client = HttpClient(loop, wire.host, wire.port, on_output, RESULT_LIMIT_BYTES)
        assert isinstance(container, ImageContainer)
        container.feed = client.feed
        return client

    async def _prepare(self, exec: CodeExec | BlackboxExec, kind: base.Kind, namespace: str) -> PreparedCode:
        assert exec.code is not None
        return self.code(exec.code)

    async def _lead_out(self, *_: object) -> dict[str, str]:
        return {}

    async def _key_of(self, namespace_uuid: str) -> str:
        return f"{namespace_uuid}:key"

    async def add(self, name: str = "hello", **fields: Any) -> Action:
        """Stores an action."""
        values: dict[str, Any] = {
            "name": FullyQualifiedName("guest", None, name),
            "exec": CodeExec(KIND, Code(False, inline="code")),
            "annotations": plain("provide-api-key", False),
        }
        await self.entities.write(Write(Action(**(values | fields)), None))
        found = self.entities.peek(f"guest/{name}")
        assert isinstance(found, Action)
        return found

    def send(self, name: str = "hello", content: bytes = b"{}", **fields: Any) -> str:
        self._count += 1
        message = ActivationMessage(
            id=f"{self._count:032x}",
            transid="t",
            namespace="guest",
            namespace_uuid="uuid",
            subject="guest",
            action=f"guest/{name}",
            revision=1,
            content=content,
            received_ms=self.clock.now_ms(),
            **fields,
        )
        if message.is_accepted:
            self.ledger.accept([Work(message.id, b"")], None, lambda _: None)
        self.bus.publish(topics.invoker_topic(0), message)
        return message.id

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not is_so():  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(0)

    async def settle(self) -> None:
        """Until everything has got as far as it can without time passing."""
        for _ in range(60):
            await asyncio.sleep(0)

    def acks(self, id: str) -> list[str]:
        """What was said of an activation, in order: a result that is complete says both."""
        said: list[str] = []
        for message in self.heard:
            if isinstance(message, ResultAck) and message.head.id == id:
                said += ["ResultAck", "CompletionAck"] if message.is_complete else ["ResultAck"]
            elif isinstance(message, CompletionAck) and message.id == id:
                said.append("CompletionAck")
        return said

    async def result(self, id: str) -> ResultAck:
        await self.until(lambda: "ResultAck" in self.acks(id))
        return next(ack for ack in self.heard if isinstance(ack, ResultAck) and ack.head.id == id)

    async def ended(self, id: str) -> ActivationRecord:
        """The record, once the activation has left the invoker."""
        await self.until(lambda: "CompletionAck" in self.acks(id))
        assert self.acks(id) == ["ResultAck", "CompletionAck"]
        record = await self.ledger.get("guest", id)
        assert record is not None
        return record

    async def run(self, name: str = "hello", content: bytes = b"{}", **fields: Any) -> ActivationRecord:
        return await self.ended(self.send(name, content, **fields))


def noting(into: list[Any], act: Act = OK, *, name: str | None = None) -> Callable[[bytes], Act]:
    """A script that keeps each line it gets, or that it got one."""

    def script(line: bytes) -> Act:
        into.append(json.loads(line) if name is None else name)
        return act

    return script


@contextlib.asynccontextmanager
async def plane_of(driver: Any, clock: Clock, **options: Any) -> AsyncIterator[Plane]:
    plane = Plane(driver, clock, **options)
    async with plane.invoker:
        yield plane
    assert driver.containers == {}
    await driver.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def driver(clock: ManualClock) -> FakeDriver:
    return FakeDriver(clock=clock)


@pytest.fixture
async def plane(driver: FakeDriver, clock: ManualClock) -> AsyncIterator[Plane]:
    async with plane_of(driver, clock) as held:
        yield held


def error_of(record: ActivationRecord) -> tuple[Status, Any]:
    return Status(record.head.status), json.loads(record.result)


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_cold_run_then_a_warm_one(plane: Plane, driver: FakeDriver, clock: ManualClock) -> None:
    lines: list[Any] = []
    driver.on_init = noting(lines)
    driver.on_run = noting(lines, Act(reply=b'{"a": 1.0}'))
    await plane.add()
    cold = await plane.run(content=b'{"n":1}')
    warm = await plane.run(content=b'{"n":2}')
    assert (cold.head.init_ms, warm.head.init_ms) == (0, None)
    assert cold.result == warm.result == b'{"a": 1.0}'
    assert (cold.head.status, cold.head.is_timeout, cold.head.kind, cold.head.path) == (0, False, KIND, "guest/hello")
    assert [line["value"] for line in lines[1:]] == [{"n": 1}, {"n": 2}]
    assert lines[0]["value"]["code"] == "code"
    (spec,) = driver.created
    assert (spec.id, spec.memory_mb, spec.code_folder) == ("c000001", 256, None)
    assert spec.env == {"A": "1", "__OW_API_HOST": "http://api"}


class Templated(Kind):
    """One whose containers come out of a template."""

    def command(self, memory_mb: int) -> Command:
        return msgspec.structs.replace(super().command(memory_mb), template="/host/template.py")


@pytest.mark.parametrize(("kind", "told"), [(Templated(), tuple(sorted(COMMON))), (Kind(), None)])
async def test_imports_are_looked_for_where_a_template_can_load_them(
    driver: FakeDriver, clock: ManualClock, kind: Kind, told: tuple[str, ...] | None
) -> None:
    """Text that reads the same in another language is not Python's, and keeps no stem cell from its action."""
    async with plane_of(driver, clock, kind=kind) as plane:
        plane.code = lambda _: PreparedCode(text="import http from 'node:http'")
        await plane.add()
        await plane.run()
        imports = plane.invoker._imports.of("guest/hello")
    template = driver.created[-1].template
    assert (None if template is None else template.imports) == told
    assert imports == (told or ())


async def test_times_are_the_clocks(plane: Plane, driver: FakeDriver, clock: ManualClock) -> None:
    driver.on_init = lambda _: Act(after_s=0.2)
    driver.on_run = lambda _: Act(after_s=0.3)
    began_ms = clock.now_ms()
    await plane.add()
    id = plane.send()
    await plane.settle()
    clock.advance(0.2)
    await plane.settle()
    clock.advance(0.3)
    head = (await plane.ended(id)).head
    assert (head.start_ms, head.end_ms, head.duration_ms) == (began_ms, began_ms + 500, 500)
    assert (head.init_ms, head.wait_ms) == (200, 0)
    assert head.phases is not None
    assert head.phases.cold == Cold.FIRST_USE
    assert head.phases == Phases(0, 0, 0, 200_000, 200_000, 500_000, 500_000, 500_000, head.phases.cold)


async def test_phases_of_a_warm_run_have_no_container_and_no_reason(plane: Plane) -> None:
    await plane.add()
    await plane.run()
    assert (await plane.run()).head.phases == Phases(0, 0, None, None, 0, 0, 0, 0)
    counted = {family.name: family.samples for family in plane.invoker.measured()}
    assert counted[COLD_STARTS] == {(KIND, "first use"): 1}
    assert counted[OUTCOMES] == {(KIND, "success"): 2}


async def test_what_is_printed_by_init_and_run_is_the_log(plane: Plane, driver: FakeDriver) -> None:
    driver.on_init = lambda _: Act(stdout=b"loading\n")
    driver.on_run = lambda _: Act(stdout=b"one\n", stderr=b"two")
    await plane.add()
    cold, warm = await plane.run(), await plane.run()
    assert [entry[31:] for entry in cold.logs] == ["stdout: loading", "stdout: one", "stderr: two"]
    assert [entry[31:] for entry in warm.logs] == ["stdout: one", "stderr: two"]
    assert cold.has_all_logs


async def test_a_flood_of_output_is_cut_at_the_limit(plane: Plane, driver: FakeDriver) -> None:
    driver.on_run = lambda _: Act(stdout=b"x" * 1023 * 4096 + b"\n", stderr=b"last\n")
    await plane.add(limits=ActionLimits(logs_mb=1))
    record = await plane.run()
    assert sum(map(len, record.logs)) < 1.1 * (1 << 20)
    assert record.logs[-1].endswith(
        "stderr: Logs were truncated because the total bytes size exceeds the limit of 1048576 bytes."
    )


async def test_what_comes_between_two_runs_belongs_to_none(plane: Plane, driver: FakeDriver) -> None:
    await plane.add()
    await plane.run()
    (container,) = driver.containers.values()
    container.print(b"left behind\n")
    await plane.settle()
    assert (await plane.run()).logs == ()


async def test_a_result_over_the_limit_is_an_application_error_and_the_container_stays(
    plane: Plane, driver: FakeDriver
) -> None:
    driver.on_run = lambda _: Act(reply=b'{"a":"' + b"x" * (2 * RESULT_LIMIT_BYTES) + b'"}')
    await plane.add()
    record = await plane.run()
    assert record.head.status == Status.APPLICATION_ERROR
    assert record.head.size == 2 * RESULT_LIMIT_BYTES + 8
    assert len(driver.containers) == 1


async def test_the_key_goes_to_actions_that_ask_for_it(plane: Plane, driver: FakeDriver) -> None:
    lines: list[Any] = []
    driver.on_run = noting(lines)
    await plane.add("asks", annotations=plain("provide-api-key", True))
    await plane.add("does_not")
    await plane.run("asks")
    await plane.run("does_not")
    assert [line.get("api_key") for line in lines] == ["uuid:key", None]


# ── what goes wrong in an action ────────────────────────────────────────────────────────────────────────────────


async def test_an_init_that_fails_ends_the_container(plane: Plane, driver: FakeDriver) -> None:
    driver.on_init = lambda _: Act(reply=b'!{"error":"no main"}', stderr=b"trace\n")
    await plane.add()
    record = await plane.run()
    assert error_of(record) == (Status.DEVELOPER_ERROR, {"error": "no main"})
    assert [entry[31:] for entry in record.logs] == [
        "stderr: trace",
        "stderr: The action did not initialize or run as expected. Log data might be missing.",
    ]
    assert record.head.init_ms == record.head.duration_ms == 0
    await plane.settle()
    assert driver.containers == {}


@pytest.mark.parametrize(
    ("kind", "is_init", "exit", "sentence"),
    [
        (KIND, False, Exit(1), "command exited"),
        ("nodejs:20", False, Exit(1), "The action did not produce a valid response and exited unexpectedly."),
        ("nodejs:20", True, Exit(1), "The action did not initialize and exited unexpectedly."),
        (KIND, False, OUT_OF_MEMORY, "The action exhausted its memory and was aborted."),
        (KIND, True, OUT_OF_MEMORY, "The action exhausted its memory and was aborted."),
    ],
)
async def test_a_container_that_ends_under_way(
    plane: Plane, driver: FakeDriver, kind: str, is_init: bool, exit: Exit, sentence: str
) -> None:
    ending = Act(reply=None, stdout=b"last words\n", exit=exit)
    driver.on_init = lambda _: ending if is_init else Act()
    driver.on_run = lambda _: ending
    await plane.add(exec=CodeExec(kind, Code(False, inline="")))
    record = await plane.run()
    assert error_of(record) == (Status.DEVELOPER_ERROR, {"error": sentence})
    assert record.logs[0].endswith("stdout: last words")
    assert len(driver.created) == 1, "what was begun is not begun again"


@pytest.mark.parametrize("is_init", [True, False])
async def test_over_time(plane: Plane, driver: FakeDriver, clock: ManualClock, is_init: bool) -> None:
    driver.on_init = lambda _: Act(reply=None) if is_init else Act()
    driver.on_run = lambda _: Act(reply=None)
    await plane.add(limits=ActionLimits(timeout_ms=20))
    id = plane.send()
    await plane.settle()
    clock.advance(0.02)
    record = await plane.ended(id)
    where = " during initialization" if is_init else ""
    assert error_of(record) == (
        Status.DEVELOPER_ERROR,
        {"error": f"The action exceeded its time limits of 20 milliseconds{where}."},
    )
    assert (record.head.is_timeout, record.head.duration_ms) == (True, 20)


@pytest.mark.parametrize("is_init", [True, False])
async def test_an_answer_that_comes_over_time_counts_for_nothing(
    plane: Plane, driver: FakeDriver, clock: ManualClock, is_init: bool
) -> None:
    late = Act(after_s=61)
    driver.on_init = lambda _: late if is_init else Act()
    driver.on_run = lambda _: late
    await plane.add()
    id = plane.send()
    await plane.settle()
    clock.advance(61)
    record = await plane.ended(id)
    assert record.head.is_timeout is True
    assert record.head.status == Status.DEVELOPER_ERROR


async def test_a_quick_run_after_a_slow_limit_has_a_deadline_of_its_own(
    plane: Plane, driver: FakeDriver, clock: ManualClock
) -> None:
    await plane.add(limits=ActionLimits(timeout_ms=20))
    await plane.run()
    clock.advance(1)
    driver.on_run = lambda _: Act(reply=None)
    id = plane.send()
    await plane.settle()
    clock.advance(0.02)
    assert (await plane.ended(id)).head.is_timeout is True


# ── containers that are lost ────────────────────────────────────────────────────────────────────────────────────


async def test_a_run_for_a_container_that_is_gone_goes_to_another(plane: Plane, driver: FakeDriver) -> None:
    await plane.add()
    await plane.run()
    (container,) = driver.containers.values()
    container.end(Exit(1))  # nobody has heard of it yet
    record = await plane.run()
    assert record.head.status == Status.SUCCESS
    assert record.head.init_ms == 0
    assert len(driver.created) == 2


async def test_an_idle_container_that_ends_leaves_the_pool(plane: Plane, driver: FakeDriver) -> None:
    await plane.add()
    await plane.run()
    (container,) = driver.containers.values()
    container.end(Exit(1))
    await plane.settle()
    assert plane.invoker.pool.used_mb == 0


async def test_one_that_ends_right_after_its_reply_leaves_too(
    plane: Plane, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visp.invoker.containers.EXIT_GRACE_S", 0.001)
    driver.on_run = lambda _: Act(exit=Exit(0))
    await plane.add()
    assert (await plane.run()).head.status == Status.SUCCESS
    await plane.until(lambda: plane.invoker.pool.used_mb == 0)


async def test_a_stem_cell_that_is_dead_when_it_gets_the_code_is_passed_over(
    driver: FakeDriver, clock: ManualClock
) -> None:
    async with plane_of(driver, clock, cells=1) as plane:
        await plane.settle()
        await plane.add()
        (cell,) = driver.containers.values()
        cell.end(Exit(1))
        assert (await plane.run()).head.status == Status.SUCCESS


# ── containers that cannot be had ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error", [StartFailed("no sandbox"), OSError("no memory"), ValueError("a driver's bug")])
async def test_whatever_a_driver_raises_is_an_internal_error(
    plane: Plane, driver: FakeDriver, error: Exception
) -> None:
    def refuse(_: ContainerSpec) -> None:
        raise error

    driver.on_create = refuse
    await plane.add()
    ids = [plane.send() for _ in range(3)]
    for id in ids:
        record = await plane.ended(id)
        assert error_of(record) == (Status.INTERNAL_ERROR, NO_RESOURCES)
        assert (record.head.init_ms, record.head.duration_ms) == (None, 0)
    driver.on_create = lambda _: None
    assert (await plane.run()).head.status == Status.SUCCESS


async def test_a_start_that_hangs_ends_with_a_record(plane: Plane, driver: FakeDriver) -> None:
    driver.create_s = 1e9
    await plane.add()
    assert error_of(await plane.run()) == (Status.INTERNAL_ERROR, NO_RESOURCES)


@pytest.mark.parametrize(
    "fields",
    [{"exec": CodeExec("go:1.22", Code(False, inline=""))}, {"limits": ActionLimits(memory_mb=2048)}],
    ids=["kind that is not here", "larger than the pool"],
)
async def test_what_can_never_start_does_not_wait_for_ever(plane: Plane, fields: dict[str, Any]) -> None:
    await plane.add(**fields)
    assert error_of(await plane.run()) == (Status.INTERNAL_ERROR, NO_RESOURCES)


async def test_an_image_without_an_engine_is_its_developers_error(plane: Plane) -> None:
    await plane.add(exec=BlackboxExec("me/image"))
    assert error_of(await plane.run()) == (
        Status.DEVELOPER_ERROR,
        {"error": "Failed to pull container image 'me/image'."},
    )


async def test_code_that_cannot_be_unpacked_is_a_failed_init(plane: Plane) -> None:
    def refuse(_: Code) -> PreparedCode:
        raise CodeRefused("too many files")

    plane.code = refuse
    await plane.add()
    record = await plane.run()
    assert error_of(record) == (Status.DEVELOPER_ERROR, {"error": "too many files"})
    assert record.head.init_ms == 0


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (Corrupt(), "Action version is not compatible and cannot be invoked."),
        (StoreUnavailable(), "Action could not be fetched."),
    ],
)
async def test_code_that_cannot_be_read(plane: Plane, error: Exception, sentence: str) -> None:
    def refuse(_: Code) -> PreparedCode:
        raise error

    plane.code = refuse
    await plane.add()
    assert error_of(await plane.run()) == (Status.INTERNAL_ERROR, {"error": sentence})


async def test_a_tree_is_linked_into_the_stem_cell(driver: FakeDriver, clock: ManualClock) -> None:
    lines: list[Any] = []
    driver.on_init = noting(lines)
    async with plane_of(driver, clock, cells=1) as plane:
        plane.code = lambda _: PreparedCode(folder="/cache/tree")
        await plane.add()
        await plane.settle()
        assert (await plane.run()).head.status == Status.SUCCESS
        assert driver.containers["c000001"].added == ["/cache/tree"]
        assert lines[0]["value"]["folder"] == "/action"


async def test_a_tree_too_large_for_that_gets_a_container_over_it(driver: FakeDriver, clock: ManualClock) -> None:
    driver.can_add_code = False
    async with plane_of(driver, clock, cells=1) as plane:
        plane.code = lambda _: PreparedCode(folder="/cache/tree")
        await plane.add()
        await plane.settle()
        assert (await plane.run()).head.status == Status.SUCCESS
        assert (await plane.run()).head.init_ms is None
        assert [(spec.id, spec.code_folder) for spec in list(driver.created)[:2]] == [
            ("c000001", None),
            ("c000001-tree", "/cache/tree"),
        ]
        assert "c000001" not in driver.containers
        assert plane.invoker.pool.used_mb == 256


# ── actions that cannot be had ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (None, Status.APPLICATION_ERROR, "Action could not be found or may have been deleted."),
        (Corrupt(), Status.INTERNAL_ERROR, "Action version is not compatible and cannot be invoked."),
        (StoreUnavailable(), Status.INTERNAL_ERROR, "Action could not be fetched."),
        (RuntimeError(), Status.INTERNAL_ERROR, "Action could not be fetched."),
    ],
)
async def test_without_an_action_there_is_a_fallback_record(
    plane: Plane, error: Exception | None, status: Status, sentence: str
) -> None:
    plane.store.error = error
    record = await plane.run("gone")
    assert error_of(record) == (status, {"error": sentence})
    assert (record.head.path, record.head.kind, record.head.limits) == ("guest/gone", None, None)


async def test_an_action_that_is_not_in_memory_is_read(plane: Plane) -> None:
    await plane.add()
    plane.entities.forget("guest/hello")
    assert (await plane.run()).head.status == Status.SUCCESS


async def test_a_changed_action_runs_in_a_new_container(plane: Plane, driver: FakeDriver) -> None:
    action = await plane.add()
    await plane.run()
    await plane.entities.write(Write(msgspec.structs.replace(action, version="0.0.2"), action.revision))
    newer = plane.entities.peek("guest/hello")
    assert isinstance(newer, Action)
    plane.bus.publish(topics.ENTITIES, EntityChanged("guest/hello", newer.revision))
    await plane.settle()
    assert driver.containers == {}
    assert (await plane.run()).head.version == "0.0.2"


# ── accepted work ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_started_is_in_the_ledger_before_the_line_goes_out(plane: Plane, driver: FakeDriver) -> None:
    entries = plane.ledger.entries
    driver.on_init = noting(entries, name="init")
    driver.on_run = noting(entries, name="run")
    await plane.add()
    cold = (await plane.run(is_accepted=True)).head.id
    warm = (await plane.run(is_accepted=True)).head.id
    assert entries == [
        *(f"started {cold}", "init", "run", f"finished {cold}"),
        *(f"started {warm}", "run", f"finished {warm}"),
    ]


@pytest.mark.parametrize("is_cold", [True, False])
async def test_what_cannot_be_marked_is_run_once_it_can(
    plane: Plane, driver: FakeDriver, clock: ManualClock, is_cold: bool
) -> None:
    await plane.add()
    if not is_cold:
        await plane.run()
    runs: list[Any] = []
    driver.on_init = driver.on_run = noting(runs)
    plane.ledger.error = StoreFull()
    id = plane.send(is_accepted=True)
    for _ in range(TRIES + 1):
        await plane.settle()
        clock.advance(PING_S)
    await plane.settle()
    assert runs == plane.acks(id) == []
    assert plane.invoker.under_way == 1
    plane.ledger.error = None
    clock.advance(PING_S)
    assert (await plane.ended(id)).head.status == Status.SUCCESS
    assert len(runs) == 1 + is_cold


async def test_a_message_that_comes_again_runs_nothing_again(plane: Plane, driver: FakeDriver) -> None:
    runs: list[Any] = []
    driver.on_run = noting(runs, Act(after_s=1.0))
    await plane.add()
    heard: list[Message] = []
    plane.bus.subscribe(topics.invoker_topic(0), heard.append)
    ids = [plane.send(is_accepted=True), plane.send()]
    for message in heard.copy():
        plane.bus.publish(topics.invoker_topic(0), message)
    await plane.settle()
    plane.clock.advance(1.0)
    for id in ids:
        await plane.ended(id)
    plane.bus.publish(topics.invoker_topic(0), heard[0])  # accepted: however late
    await plane.settle()
    assert len(runs) == 2


async def test_what_cannot_be_marked_is_left_to_the_next_start(plane: Plane, clock: ManualClock) -> None:
    await plane.add()
    plane.ledger.error = StoreFull()
    id = plane.send(is_accepted=True)
    await plane.settle()
    plane.invoker.hold_back()
    assert plane.invoker.under_way == 0
    clock.advance(PING_S)
    await plane.settle()
    assert plane.acks(id) == []


async def test_the_caller_hears_that_the_record_could_not_be_written(plane: Plane) -> None:
    await plane.add()
    plane.ledger.error = StoreFull()
    id = plane.send()
    assert (await plane.result(id)).error is not None
    assert plane.acks(id) == ["ResultAck", "CompletionAck"]


async def test_a_caller_that_leaves_during_the_run_marks_it_at_once(plane: Plane, driver: FakeDriver) -> None:
    driver.on_run = lambda _: Act(reply=None)
    await plane.add()
    id = plane.send()
    await plane.settle()
    plane.bus.publish("invoker0", Detached(id))
    assert plane.ledger.entries == [f"started {id}"]


async def test_a_caller_that_leaves_while_the_container_starts(
    plane: Plane, driver: FakeDriver, clock: ManualClock
) -> None:
    driver.create_s = 0.01
    driver.on_init = noting(plane.ledger.entries, name="init")
    await plane.add()
    id = plane.send()
    await plane.settle()
    plane.bus.publish("invoker0", Detached(id))
    assert plane.ledger.entries == []
    clock.advance(0.01)
    await plane.ended(id)
    assert plane.ledger.entries == [f"started {id}", "init", f"finished {id}"]


async def test_a_caller_that_leaves_while_the_action_is_read(plane: Plane) -> None:
    await plane.add()
    plane.entities.forget("guest/hello")
    plane.store.may_read.clear()
    id = plane.send()
    await plane.settle()
    plane.bus.publish("invoker0", Detached(id))
    plane.store.may_read.set()
    await plane.ended(id)
    assert plane.ledger.entries == [f"started {id}", f"finished {id}"]


async def test_a_caller_that_leaves_while_it_waits(plane: Plane, driver: FakeDriver) -> None:
    driver.on_run = lambda _: Act(reply=None)
    await plane.add(limits=ActionLimits(memory_mb=1024))
    plane.send()
    await plane.settle()
    id = plane.send()
    plane.bus.publish("invoker0", Detached(id))
    assert plane.ledger.entries == []
    driver.on_run = lambda _: Act()
    (container,) = driver.containers.values()
    container.end(Exit(1))
    await plane.ended(id)
    assert plane.ledger.entries[1:] == [f"started {id}", f"finished {id}"]


async def test_a_caller_that_leaves_after_the_end_changes_nothing(plane: Plane) -> None:
    await plane.add()
    id = (await plane.run()).head.id
    plane.bus.publish("invoker0", Detached(id))
    assert plane.ledger.entries == [f"finished {id}"]


async def test_at_the_end_nothing_is_recorded_of_what_has_not_begun(driver: FakeDriver, clock: ManualClock) -> None:
    driver.create_s = 0.01
    async with plane_of(driver, clock) as plane:
        await plane.add(limits=ActionLimits(memory_mb=1024))
        for _ in range(3):
            plane.send(is_accepted=True)
        await plane.settle()
    assert plane.ledger.entries == []


async def test_the_end_does_not_wait_for_an_init_that_never_answers(driver: FakeDriver, clock: ManualClock) -> None:
    driver.on_init = lambda _: Act(reply=None)
    async with plane_of(driver, clock) as plane:
        await plane.add()
        plane.send()
        await plane.settle()
        began_s = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began_s < 30, "the action's own limit is 60 s"


async def test_the_fleet_hears_what_is_in_use(plane: Plane, driver: FakeDriver, clock: ManualClock) -> None:
    await plane.add()
    await plane.run()
    clock.advance(PING_S)
    await plane.settle()
    pings = [message for message in plane.heard if isinstance(message, Ping)]
    assert pings == [Ping(0, 1024, 0, 0), Ping(0, 1024, 256, 0, ("guest/hello",))]


async def test_stem_cells_of_kinds_that_are_here_are_kept(driver: FakeDriver, clock: ManualClock) -> None:
    async with plane_of(driver, clock, cells=2) as plane:
        await plane.settle()
        assert len(driver.containers) == 2
        await plane.add()
        assert (await plane.run()).head.init_ms == 0
        clock.advance(SWEEP_S)
        await plane.settle()
        assert len(driver.containers) == 3


# ── images, over HTTP ───────────────────────────────────────────────────────────────────────────────────────────


class HttpAct(msgspec.Struct, frozen=True, kw_only=True):
    """What an image does with one call: output before the answer, the sentinels unless said otherwise."""

    status: int = 200
    body: bytes = b"{}"
    stdout: bytes = SENTINEL + b"\n"
    stderr: bytes = SENTINEL + b"\n"


class ImageContainer:
    """A fake image process: a server of `/init` and `/run` on loopback, its output followed beside."""

    code_at = "/action"
    doors = ()

    def __init__(self, images: "Images", spec: ContainerSpec) -> None:
        self.way = Way.STARTED
        self.id = spec.id
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.feed: Callable[[int, bytes], None] = lambda _, __: None
        self._images = images
        self._writers: list[asyncio.StreamWriter] = []

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.wire = Address("127.0.0.1", self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("Content-L"))
                body = await reader.readexactly(length)
                path = head.split(" ")[1]
                act = HttpAct(stdout=b"", stderr=b"") if path == "/init" else self._images.on_run(self.id, body)
                self.feed(STDOUT, act.stdout)
                self.feed(STDERR, act.stderr)
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (act.status, len(act.body)) + act.body)
        writer.close()

    async def add_code(self, folder: str) -> bool:
        return False

    async def pause(self) -> None: ...

    async def resume(self) -> None: ...

    async def destroy(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        if not self.exited.done():
            self.exited.set_result(Exit(-9))
        self._images.containers.pop(self.id, None)


class Images:
    """A driver whose containers have an address."""

    name = "images"

    has_templates = False

    def __init__(self) -> None:
        self.containers: dict[str, ImageContainer] = {}
        self.on_run: Callable[[str, bytes], HttpAct] = lambda _, __: HttpAct()

    async def start(self) -> None: ...

    async def reap(self) -> int:
        return 0

    async def create(self, spec: ContainerSpec) -> ImageContainer:
        container = ImageContainer(self, spec)
        await container.listen()
        self.containers[spec.id] = container
        return container

    async def close(self) -> None:
        await asyncio.sleep(0.001)  # closed connections tell their servers in the next turns of the loop


@pytest.fixture
def images() -> Images:
    return Images()


@pytest.fixture
async def image_plane(images: Images, clock: ManualClock) -> AsyncIterator[Plane]:
    async with plane_of(images, clock) as held:
        yield held


async def test_an_image_runs_cold_and_warm(image_plane: Plane, images: Images) -> None:
    bodies: list[Any] = []

    def run(_: str, body: bytes) -> HttpAct:
        bodies.append(json.loads(body)["value"])
        return HttpAct(body=b'{"a":1}', stdout=b"out\n" + SENTINEL + b"\n", stderr=b"err\n" + SENTINEL + b"\n")

    images.on_run = run
    await image_plane.add()
    cold, warm = await image_plane.run(content=b'{"n":1}'), await image_plane.run(content=b'{"n":2}')
    assert bodies == [{"n": 1}, {"n": 2}]
    assert cold.result == warm.result == b'{"a":1}'
    assert (cold.head.init_ms is not None, warm.head.init_ms) == (True, None)
    for record in (cold, warm):
        assert record.has_all_logs
        assert [entry[31:] for entry in record.logs] == ["stdout: out", "stderr: err"]
    assert len(images.containers) == 1


async def test_the_answer_does_not_wait_for_the_logs_and_the_container_does(image_plane: Plane, images: Images) -> None:
    images.on_run = lambda _, __: HttpAct(stdout=b"early\n", stderr=b"")
    await image_plane.add()
    id = image_plane.send()
    await image_plane.result(id)
    record = await image_plane.ledger.get("guest", id)
    assert record is not None
    assert not record.has_all_logs
    assert record.head.phases is not None
    assert record.head.phases.logs is None
    await image_plane.settle()
    assert image_plane.acks(id) == ["ResultAck"], "its place is not free yet"
    (container,) = images.containers.values()
    container.feed(STDOUT, b"late\n" + SENTINEL + b"\n")
    container.feed(STDERR, SENTINEL + b"\n")
    record = await image_plane.ended(id)
    assert record.has_all_logs
    assert record.head.phases is not None
    assert record.head.phases.logs == record.head.phases.answered
    assert [entry[31:] for entry in record.logs] == ["stdout: early", "stdout: late"]
    assert len(images.containers) == 1


async def test_logs_that_never_end_cost_the_container_and_not_the_record(
    image_plane: Plane, images: Images, clock: ManualClock
) -> None:
    images.on_run = lambda _, __: HttpAct(stdout=b"early\n", stderr=b"")
    await image_plane.add()
    id = image_plane.send()
    await image_plane.result(id)
    await image_plane.settle()
    clock.advance(LOGS_S)
    record = await image_plane.ended(id)
    assert record.has_all_logs
    assert record.head.status == Status.SUCCESS
    assert record.logs[0].endswith("stdout: early")
    assert record.logs[1].endswith("stderr: There was an issue while collecting your logs. Data might be missing.")
    await image_plane.settle()
    assert images.containers == {}


async def test_after_a_developer_error_only_what_is_on_its_way_is_waited_for(
    image_plane: Plane, images: Images, clock: ManualClock
) -> None:
    images.on_run = lambda _, __: HttpAct(status=502, body=b'{"error":"why"}', stdout=b"early\n", stderr=b"")
    await image_plane.add()
    id = image_plane.send()
    await image_plane.result(id)
    await image_plane.settle()
    clock.advance(LATE_LOGS_S)
    record = await image_plane.ended(id)
    assert error_of(record) == (Status.DEVELOPER_ERROR, {"error": "why"})
    assert record.logs[0].endswith("stdout: early")
    assert not any("collecting your logs" in line for line in record.logs)
    assert record.has_all_logs
    await image_plane.settle()
    assert images.containers == {}


async def test_a_container_that_is_shutting_down_loses_its_run_to_another(image_plane: Plane, images: Images) -> None:
    served: list[str] = []

    def run(id: str, _: bytes) -> HttpAct:
        served.append(id)
        return HttpAct(status=503 if len(served) == 2 else 200)

    images.on_run = run
    await image_plane.add()
    await image_plane.run()
    record = await image_plane.run()
    assert record.head.status == Status.SUCCESS
    assert record.head.init_ms is not None
    assert served[0] == served[1] != served[2]
    assert list(images.containers) == [served[2]]


async def test_an_image_that_only_ever_shuts_down_is_not_tried_for_ever(image_plane: Plane, images: Images) -> None:
    served: list[str] = []

    def run(id: str, _: bytes) -> HttpAct:
        served.append(id)
        return HttpAct(status=503, body=b'{"error":"never"}')

    images.on_run = run
    await image_plane.add()
    assert error_of(await image_plane.run()) == (Status.DEVELOPER_ERROR, {"error": "never"})
    assert len(set(served)) == 4


async def test_the_end_does_not_wait_for_an_images_logs(images: Images) -> None:
    images.on_run = lambda _, __: HttpAct(stdout=b"", stderr=b"")
    async with plane_of(images, SystemClock()) as plane:
        await plane.add()
        id = plane.send()
        await plane.result(id)
    assert plane.acks(id) == ["ResultAck", "CompletionAck"]


# ── before the end ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def narrow(driver: FakeDriver, clock: ManualClock) -> AsyncIterator[Plane]:
    """Room for one container, in which something runs for a second."""
    async with plane_of(driver, clock, memory_mb=256) as plane:
        await plane.add()
        driver.on_run = lambda line: Act(after_s=1.0) if b'"slow"' in line else OK
        await plane.run()
        plane.send(content=b'{"slow":1}')
        await plane.settle()
        yield plane


async def test_accepted_work_that_waits_is_held_back_and_what_is_waited_for_is_not(
    narrow: Plane, clock: ManualClock
) -> None:
    accepted, blocking = narrow.send(is_accepted=True), narrow.send(is_blocking=True)
    narrow.invoker.hold_back()
    later = narrow.send(is_accepted=True)
    assert narrow.invoker.under_way == 2
    clock.advance(1.0)
    await narrow.ended(blocking)
    await narrow.settle()
    assert narrow.invoker.under_way == 0
    assert f"started {accepted}" not in narrow.ledger.entries
    assert narrow.acks(accepted) == narrow.acks(later) == []


async def test_what_was_held_back_runs_when_the_server_goes_on(narrow: Plane, clock: ManualClock) -> None:
    ids = [narrow.send(is_accepted=True) for _ in range(3)]
    narrow.invoker.hold_back()
    clock.advance(1.0)
    await narrow.settle()
    narrow.invoker.go_on()
    for id in ids:
        assert (await narrow.ended(id)).head.status == Status.SUCCESS
    assert narrow.invoker.under_way == 0


async def test_who_is_detached_while_work_is_held_back_is_not_begun_either(narrow: Plane, clock: ManualClock) -> None:
    blocking = narrow.send(is_blocking=True)
    narrow.invoker.hold_back()
    narrow.bus.publish(topics.invoker_topic(0), Detached(blocking))
    await narrow.settle()
    clock.advance(1.0)
    await narrow.settle()
    assert narrow.invoker.under_way == 0
    assert narrow.acks(blocking) == []
    assert f"started {blocking}" not in narrow.ledger.entries
