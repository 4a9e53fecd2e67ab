"""The invoker and containers that run several activations of an action at once."""

import contextlib
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.unit.invoker.test_invoker import Plane, error_of, plane_of

from visp import wording
from visp.bus import base as topics
from visp.bus.messages import Detached, Message, Part
from visp.clock import ManualClock
from visp.container.base import ContainerSpec, Exit
from visp.container.fake import OUT_OF_MEMORY, FakeContainer, FakeDriver
from visp.entity.activation import ActivationRecord, Status
from visp.entity.execs import Code, CodeExec
from visp.entity.limits import ActionLimits
from visp.invoker.slot import State
from visp.settings import Limits, Pool, Settings
from visp.store.base import Then

CONCURRENT = b'{"ok":true,"concurrent":true,"stream":true}'
NODE = "nodejs:20"
PYTHON = "python:3.11"
MIXED = f"stderr: {wording.LOGS_MIXED}"


class Several(FakeDriver):
    """Containers that take every line as it comes, and answer runs when they are told to."""

    init_answer = CONCURRENT

    async def create(self, spec: ContainerSpec) -> FakeContainer:
        container = _Taking(self, spec)
        self.containers[spec.id] = container
        self.created.append(spec)
        return container

    @property
    def taken(self) -> list[list[str]]:
        """The activations under way in each container."""
        return [list(container.runs) for container in self.all]

    @property
    def all(self) -> list["_Taking"]:
        return [container for container in self.containers.values() if isinstance(container, _Taking)]

    def holder(self, id: str) -> "_Taking":
        return next(container for container in self.all if id in container.runs)


class _Taking(FakeContainer):
    """`inits` and `runs` are the bodies it got; runs by activation, until they are answered."""

    def __init__(self, driver: Several, spec: ContainerSpec) -> None:
        super().__init__(driver, spec)
        self.inits: list[Any] = []
        self.runs: dict[str, Any] = {}
        self._answer_of_init = driver.init_answer

    def _go_on(self) -> None:
        while self._lines:
            body = json.loads(self._lines.popleft())
            if not self.inits:
                self.inits.append(body["value"])
                os.write(self._replies, self._answer_of_init + b"\n")
            else:
                self.runs[body["activation_id"]] = body

    def answer(self, id: str, reply: bytes | None = None) -> None:
        del self.runs[id]
        os.write(self._replies, b"@%b %b\n" % (id.encode(), reply or b'{"id":"%b"}' % id.encode()))

    def say(self, data: bytes) -> None:
        os.write(self._replies, data)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def driver(clock: ManualClock) -> Several:
    return Several(clock=clock)


@pytest.fixture
async def plane(driver: Several, clock: ManualClock) -> AsyncIterator[Plane]:
    settings = Settings(pool=Pool(start_timeout_s=0.05, stem_cells_most=0), limits=Limits(concurrency=10))
    async with plane_of(driver, clock, settings=settings) as held:
        yield held


async def three_in_one(plane: Plane, driver: Several, *, timeout_ms: int = 60_000, **fields: Any) -> list[str]:
    """An action with a concurrency of 3, and as many of its runs in one container."""
    limits = ActionLimits(concurrency=3, timeout_ms=timeout_ms)
    await plane.add(exec=CodeExec(NODE, Code(False, inline="code")), limits=limits)
    ids = [plane.send(**fields) for _ in range(3)]
    await plane.until(lambda: [sorted(runs) for runs in driver.taken] == [ids])
    return ids


def result_of(record: ActivationRecord) -> Any:
    assert record.head.status == Status.SUCCESS
    return json.loads(record.result)


def states(plane: Plane) -> list[State]:
    return [slot.state for slot in plane.invoker.pool.shelf.slots.values()]


# ── placing ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_runs_share_a_container_and_each_gets_its_own_answer(plane: Plane, driver: Several) -> None:
    ids = await three_in_one(plane, driver)
    (container,) = driver.all
    assert container.inits[0]["concurrency"] == 3
    for id in reversed(ids):
        container.answer(id)
    for id in ids:
        assert result_of(await plane.ended(id)) == {"id": id}
    await plane.settle()
    assert states(plane) == [State.READY]


async def test_one_more_than_it_takes_waits_or_gets_another(plane: Plane, driver: Several) -> None:
    ids = await three_in_one(plane, driver)
    more = plane.send()
    await plane.until(lambda: len(driver.all) == 2 and more in driver.all[1].runs)
    driver.all[0].answer(ids[0])
    await plane.ended(ids[0])
    last = plane.send()
    await plane.until(lambda: any(last in runs for runs in driver.taken))
    assert sorted(len(runs) for runs in driver.taken) in ([1, 3], [2, 2])


@pytest.mark.parametrize(
    ("kind", "allowed", "answer"),
    [(PYTHON, 10, CONCURRENT), (NODE, 1, CONCURRENT), (NODE, 10, b'{"ok":true}')],
    ids=["a kind that cannot", "a server that does not allow it", "a launcher that does not know of it"],
)
async def test_else_they_run_one_at_a_time(
    driver: Several, clock: ManualClock, kind: str, allowed: int, answer: bytes
) -> None:
    driver.init_answer = answer
    settings = Settings(pool=Pool(start_timeout_s=0.05, stem_cells_most=0), limits=Limits(concurrency=allowed))
    async with plane_of(driver, clock, settings=settings, memory_mb=256) as plane:
        exec = CodeExec(kind, Code(False, inline="code"))
        await plane.add(exec=exec, limits=ActionLimits(concurrency=3))
        first, second = plane.send(), plane.send()
        await plane.until(lambda: driver.taken == [[first]])
        await plane.settle()
        (container,) = driver.all
        assert list(container.runs) == [first]
        del container.runs[first]
        container.say(b'{"n":1}\n')
        assert result_of(await plane.ended(first)) == {"n": 1}
        await plane.until(lambda: second in container.runs)
        container.say(b'{"n":2}\n')
        assert result_of(await plane.ended(second)) == {"n": 2}


async def test_an_accepted_run_is_marked_before_it_joins(plane: Plane, driver: Several) -> None:
    ids = await three_in_one(plane, driver, is_accepted=True)
    assert {f"started {id}" for id in ids} <= set(plane.ledger.entries)


async def test_each_callers_leave_marks_its_own_run(plane: Plane, driver: Several) -> None:
    ids = await three_in_one(plane, driver)
    plane.bus.publish(topics.invoker_topic(0), Detached(ids[1]))
    await plane.settle()
    assert [entry for entry in plane.ledger.entries if entry.startswith("started")] == [f"started {ids[1]}"]


# ── when one goes wrong ─────────────────────────────────────────────────────────────────────────────────────────


async def test_one_that_is_over_time_does_not_take_the_others_with_it(
    plane: Plane, driver: Several, clock: ManualClock
) -> None:
    slow, *others = await three_in_one(plane, driver, timeout_ms=20)
    container = driver.holder(slow)
    container.answer(others[0])
    await plane.ended(others[0])
    clock.advance(0.015)
    later = plane.send()
    await plane.until(lambda: later in container.runs)
    clock.advance(0.005)
    record = await plane.ended(slow)
    assert error_of(record) == (
        Status.DEVELOPER_ERROR,
        {"error": "The action exceeded its time limits of 20 milliseconds."},
    )
    await plane.ended(others[1])
    assert states(plane) == [State.DRAINING]
    elsewhere = plane.send()
    await plane.until(lambda: any(elsewhere in other.runs for other in driver.all if other is not container))
    container.answer(later)
    assert result_of(await plane.ended(later)) == {"id": later}
    await plane.until(lambda: len(driver.all) == 1)
    assert driver.taken == [[elsewhere]]
    driver.all[0].answer(elsewhere)
    await plane.ended(elsewhere)


async def test_an_answer_that_comes_over_time_is_nobodys(plane: Plane, driver: Several, clock: ManualClock) -> None:
    slow, *others = await three_in_one(plane, driver, timeout_ms=20)
    container = driver.holder(slow)
    clock.advance(0.015)
    container.answer(others[0])
    await plane.ended(others[0])
    fresh = plane.send()
    await plane.until(lambda: fresh in container.runs)
    clock.advance(0.005)
    await plane.ended(slow)
    container.answer(slow, b'{"late":true}')
    container.answer(fresh)
    assert result_of(await plane.ended(fresh)) == {"id": fresh}


async def test_a_run_that_has_not_begun_goes_elsewhere(
    plane: Plane, driver: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, bad, last = await three_in_one(plane, driver)
    container = driver.holder(bad)
    container.answer(ended)
    await plane.ended(ended)
    held: list[Then] = []
    monkeypatch.setattr(plane.ledger, "start", lambda _, then: held.append(then))
    accepted = plane.send(is_accepted=True)
    await plane.settle()
    container.answer(bad, b'!{"error":"no"}')
    await plane.ended(bad)
    held.pop()(None)
    await plane.until(lambda: bool(held))
    held.pop()(None)
    await plane.until(lambda: any(accepted in other.runs for other in driver.all if other is not container))
    assert list(container.runs) == [last]


async def test_a_developer_error_ends_the_container_after_the_others(plane: Plane, driver: Several) -> None:
    bad, *others = await three_in_one(plane, driver)
    container = driver.holder(bad)
    container.answer(bad, b'!{"error":"no"}')
    assert (await plane.ended(bad)).head.status == Status.DEVELOPER_ERROR
    assert states(plane) == [State.DRAINING]
    for id in others:
        container.answer(id)
        assert result_of(await plane.ended(id)) == {"id": id}
    await plane.until(lambda: not driver.containers)


@pytest.mark.parametrize(("exit", "sentence"), [(Exit(1), wording.RUN_EXITED), (OUT_OF_MEMORY, wording.OUT_OF_MEMORY)])
async def test_a_container_that_ends_is_the_end_of_all_its_runs(
    plane: Plane, driver: Several, exit: Exit, sentence: str
) -> None:
    ids = await three_in_one(plane, driver)
    driver.holder(ids[0]).end(exit)
    for id in ids:
        assert error_of(await plane.ended(id)) == (Status.DEVELOPER_ERROR, {"error": sentence})
    await plane.until(lambda: not driver.containers)


async def test_a_forged_reply_ends_the_container_and_answers_nobody(plane: Plane, driver: Several) -> None:
    ids = await three_in_one(plane, driver)
    driver.holder(ids[0]).say(b"@" + b"f" * 32 + b' {"forged":true}\n')
    for id in ids:
        assert (await plane.ended(id)).head.status == Status.DEVELOPER_ERROR
    await plane.until(lambda: not driver.containers)


# ── logs ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_line_is_in_the_logs_of_one_of_those_that_overlap(plane: Plane, driver: Several) -> None:
    first, second, third = await three_in_one(plane, driver)
    container = driver.holder(first)
    container.print(b"one\n")
    container.answer(second)
    logs = [entry[31:] for entry in (await plane.ended(second)).logs]
    assert logs == ["stdout: one", MIXED]
    container.print(b"two\n")
    container.answer(first)
    assert [entry[31:] for entry in (await plane.ended(first)).logs] == ["stdout: two", MIXED]
    container.answer(third)
    assert [entry[31:] for entry in (await plane.ended(third)).logs] == [MIXED]
    alone = plane.send()
    await plane.until(lambda: alone in container.runs)
    container.print(b"mine\n")
    container.answer(alone)
    assert [entry[31:] for entry in (await plane.ended(alone)).logs] == ["stdout: mine"]


async def test_those_that_print_nothing_have_no_logs(plane: Plane, driver: Several) -> None:
    for id in await three_in_one(plane, driver):
        driver.holder(id).answer(id)
        assert (await plane.ended(id)).logs == ()


# ── logs and parts of each ──────────────────────────────────────────────────────────────────────────────────────────


async def test_what_a_run_prints_is_in_its_own_record(plane: Plane, driver: Several) -> None:
    first, second, third = await three_in_one(plane, driver)
    (container,) = driver.all
    for id, line in ((first, b">one"), (second, b"#two"), (first, b">three")):
        container.say(b"@%b %b\n" % (id.encode(), line))
    for id in (first, second, third):
        container.answer(id)
    logs = [[entry[31:] for entry in (await plane.ended(id)).logs] for id in (first, second, third)]
    assert logs == [["stdout: one", "stdout: three"], ["stderr: two"], []]


async def test_the_log_limit_holds_for_each(plane: Plane, driver: Several) -> None:
    first, second, third = await three_in_one(plane, driver)
    (container,) = driver.all
    line = b"@%b >%b\n" % (first.encode(), b"x" * 50_000)
    for _ in range(300):
        container.say(line)
        await plane.settle()
    container.say(b"@%b >small\n" % second.encode())
    for id in (first, second, third):
        container.answer(id)
    logs = (await plane.ended(first)).logs
    assert sum(map(len, logs)) < 10.1 * 1024 * 1024
    assert logs[-1].endswith(wording.logs_truncated(10 * 1024 * 1024))
    assert [entry[31:] for entry in (await plane.ended(second)).logs] == ["stdout: small"]


async def test_parts_are_passed_on_and_joined(plane: Plane, driver: Several) -> None:
    heard = list[Message]()
    plane.bus.subscribe(topics.PARTS, heard.append)
    first, second, third = await three_in_one(plane, driver, is_streamed=True)
    (container,) = driver.all
    container.say(b'@%b +"a"\n@%b +"b"\n@%b +"c"\n' % (first.encode(), second.encode(), first.encode()))
    container.answer(first, b"{}")
    container.answer(second, b'{"error":"no"}')
    container.answer(third)
    assert result_of(await plane.ended(first)) == {"body": "ac"}
    assert error_of(await plane.ended(second)) == (Status.APPLICATION_ERROR, {"error": "no"})
    assert result_of(await plane.ended(third)) == {"id": third}
    assert heard == [Part(first, b'"a"'), Part(second, b'"b"'), Part(first, b'"c"')]


async def test_more_than_was_granted_ends_the_container(plane: Plane, driver: Several) -> None:
    ids = await three_in_one(plane, driver, is_streamed=True)
    (container,) = driver.all
    line = b'@%b +"%b"\n' % (ids[0].encode(), b"x" * 60_000)
    for _ in range(40):
        with contextlib.suppress(BlockingIOError):
            container.say(line)
        await plane.settle()
    for id in ids:
        assert (await plane.ended(id)).head.status == Status.DEVELOPER_ERROR
