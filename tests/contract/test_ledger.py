"""What every ledger promises, as the log of accepted work and as the store of activations."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from visp import settings
from visp.clock import ManualClock
from visp.entity.activation import ActivationHead, ActivationRecord, Phases
from visp.settings import Settings
from visp.store.base import ActivationQuery, ActivationStore, Ledger, OpenWork, Work
from visp.store.index import SqliteActivations
from visp.store.ledger import EmbeddedLedger
from visp.store.memory import MemoryLedger

SMALL = Settings(ledger=settings.Ledger(segment_bytes=256 * 1024))


class Store(Ledger, ActivationStore, Protocol):
    """Both in one, as every implementation is."""


class Memory:
    """A ledger without a disk, and what the next process would find."""

    async def open(self) -> Store:
        self._ledger = MemoryLedger()
        return self._ledger

    async def after_a_kill(self) -> Store:
        self._ledger = self._ledger.reopened()
        return self._ledger


class Embedded:
    """A ledger in files; a kill leaves the files as they are at that moment."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self._folder, self._stack, self._kills = folder / "0", stack, 0

    async def open(self) -> Store:
        self._folder.mkdir(exist_ok=True)
        index = await SqliteActivations.open(self._folder / "activations.db")
        ledger = EmbeddedLedger(self._folder / "ledger", index, SMALL, ManualClock())
        await ledger.open()
        self._stack.push_async_callback(ledger.close)
        return ledger

    async def after_a_kill(self) -> Store:
        self._kills += 1
        image = self._folder.with_name(str(self._kills))
        shutil.copytree(self._folder, image)
        self._folder = image
        return await self.open()


@pytest.fixture(params=["memory", "embedded"])
async def home(request, tmp_path) -> AsyncIterator[Memory | Embedded]:
    async with AsyncExitStack() as stack:
        yield Memory() if request.param == "memory" else Embedded(tmp_path, stack)


@pytest.fixture
async def ledger(home: Memory | Embedded) -> Store:
    return await home.open()


def id_of(number: int, ms: int = 1_700_000_000_000) -> str:
    return f"{ms:012x}{0:02x}{number:018x}"


def record(number: int, *, start_ms: int = 1_700_000_000_000, logs: tuple[str, ...] = (), **parts) -> ActivationRecord:
    fields = {"namespace": "ns", "name": "hello", "path": "ns/hello"} | parts
    head = ActivationHead(
        id=id_of(number), subject="guest", version="0.0.1", start_ms=start_ms, end_ms=start_ms + 3, **fields
    )
    return ActivationRecord(head=head, result=b'{"number":%d}' % number, logs=logs)


class Heard:
    """A `then` that can be awaited; it must be called once."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def __call__(self, error: Exception | None) -> None:
        self._answer.set_result(error)

    @property
    def is_called(self) -> bool:
        return self._answer.done()

    async def error(self) -> Exception | None:
        async with asyncio.timeout(10):
            return await self._answer


async def accept(ledger: Ledger, *ids: str, trigger: ActivationRecord | None = None) -> None:
    heard = Heard()
    ledger.accept([Work(id, b"message of " + id.encode()) for id in ids], trigger, heard)
    assert await heard.error() is None


async def start(ledger: Ledger, *ids: str) -> None:
    heard = Heard()
    ledger.start(ids, heard)
    assert await heard.error() is None


async def finish(ledger: Ledger, *records: ActivationRecord) -> None:
    heard = [Heard() for _ in records]
    for entry, then in zip(records, heard, strict=True):
        ledger.finish(entry, then)
    for then in heard:
        assert await then.error() is None


async def ids(ledger: ActivationStore, **query) -> list[str]:
    return [entry.head.id for entry in await ledger.list(ActivationQuery(**{"namespace": "ns"} | query))]


# ── what is not kept ────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_record_that_is_not_kept_is_told_of_and_cannot_be_read(home: Memory | Embedded) -> None:
    ledger, told, heard = await home.open(), [], Heard()
    ledger.when_recorded(told.append)
    await accept(ledger, id_of(1))
    await start(ledger, id_of(1))
    ledger.finish(record(1), heard, is_kept=False)
    assert await heard.error() is None
    assert [entry.head.id for entry in told] == [id_of(1)]
    assert not ledger.has_open(id_of(1))
    assert await ledger.get("ns", id_of(1)) is None
    assert await ids(ledger) == []
    after = await home.after_a_kill()
    assert after.open_work() == []
    assert await after.get("ns", id_of(1)) is None


async def test_what_ends_unkept_in_the_turn_in_which_its_caller_is_given_up_is_over(home: Memory | Embedded) -> None:
    ledger, heard = await home.open(), [Heard(), Heard()]
    ledger.finish(record(1), heard[0], is_kept=False)
    ledger.keep([Work(id_of(1), b"message")], heard[1])
    assert [await then.error() for then in heard] == [None, None]
    if isinstance(home, Embedded):
        assert not ledger.has_open(id_of(1))
        assert (await home.after_a_kill()).open_work() == []


@pytest.mark.parametrize("children", [(), (2, 3)])
async def test_a_fire_whose_record_is_not_kept_runs_its_children(
    home: Memory | Embedded, children: tuple[int, ...]
) -> None:
    ledger, told, heard = await home.open(), [], Heard()
    ledger.when_recorded(told.append)
    works = [Work(id_of(number), b"message") for number in children]
    ledger.accept(works, record(1), heard, is_kept=False)
    assert not heard.is_called
    assert await heard.error() is None
    assert [entry.head.id for entry in told] == [id_of(1)]
    assert await ledger.get("ns", id_of(1)) is None
    assert [work.id for work in (await home.after_a_kill()).open_work()] == [id_of(number) for number in children]


# ── then ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_then_is_never_called_from_inside_the_call_that_took_it(ledger: Store) -> None:
    heard = [Heard() for _ in range(4)]
    ledger.accept([Work(id_of(1), b"")], None, heard[0])
    ledger.start([id_of(1)], heard[1])
    ledger.finish(record(1), heard[2])
    ledger.finish(record(2), heard[3], is_synced=True)
    assert not any(then.is_called for then in heard)
    for then in heard:
        assert await then.error() is None


async def test_thens_are_called_in_the_order_of_the_calls(ledger: Store) -> None:
    order: list[int] = []
    last = Heard()
    for number in range(50):
        ledger.accept([Work(id_of(number), b"")], None, lambda _, number=number: order.append(number))
    ledger.start([id_of(0)], last)
    await last.error()
    assert order == list(range(50))


async def test_work_made_in_a_then_is_taken(ledger: Store) -> None:
    heard = Heard()
    ledger.accept([Work(id_of(1), b"")], None, lambda _: ledger.finish(record(1), heard))
    assert await heard.error() is None
    assert await ledger.get("ns", id_of(1)) == record(1)


def test_there_is_room_at_first() -> None:
    MemoryLedger().check_room()


# ── records ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_record_is_readable_when_its_then_is_called(ledger: Store) -> None:
    entry = record(1, logs=("2023 stdout: one",))
    await finish(ledger, entry)
    assert await ledger.get("ns", entry.head.id) == entry
    assert await ids(ledger) == [entry.head.id]
    assert await ledger.get("ns", entry.head.id) == entry


async def test_an_unknown_id_and_another_namespace_s_are_none(ledger: Store) -> None:
    await finish(ledger, record(1))
    assert await ledger.get("other", id_of(1)) is None
    assert await ledger.get("ns", id_of(2)) is None
    await ledger.list(ActivationQuery(namespace="ns"))
    assert await ledger.get("other", id_of(1)) is None
    assert await ids(ledger, namespace="other") == []


async def test_accepted_work_is_not_readable_before_its_outcome(ledger: Store) -> None:
    await accept(ledger, id_of(1))
    await start(ledger, id_of(1))
    assert await ledger.get("ns", id_of(1)) is None
    assert await ids(ledger) == []


async def test_a_record_is_listed_once_its_late_logs_are_there(ledger: Store) -> None:
    entry = msgspec.structs.replace(record(1), has_all_logs=False)
    await finish(ledger, entry, record(2))
    assert await ids(ledger) == [id_of(2)]
    ledger.add_logs(entry.head.id, ("late",))
    found = await ledger.get("ns", entry.head.id)
    assert found == record(1, logs=("late",))
    assert await ids(ledger) == [id_of(2), id_of(1)]


async def test_late_logs_say_when_they_were_complete(ledger: Store) -> None:
    phases = Phases(0, 5, None, None, 20, 420, None, 440)
    entry = record(1)
    head = msgspec.structs.replace(entry.head, phases=phases)
    await finish(ledger, msgspec.structs.replace(entry, head=head, has_all_logs=False))
    ledger.add_logs(entry.head.id, ("late",), 9000)
    found = await ledger.get("ns", entry.head.id)
    assert found is not None
    assert found.head.phases == msgspec.structs.replace(phases, logs=9000)
    assert await ids(ledger) == [entry.head.id]


async def test_many_logs_are_kept_whole(ledger: Store) -> None:
    logs = tuple(f"2023 stdout: {number} {'x' * 1000}" for number in range(200))
    await finish(ledger, record(1, logs=logs))
    found = await ledger.get("ns", id_of(1))
    assert found is not None
    assert found.logs == logs


async def test_logs_of_an_unknown_record_are_dropped(ledger: Store) -> None:
    ledger.add_logs(id_of(9), ("nobody's",))
    await finish(ledger, record(1))
    assert await ledger.get("ns", id_of(9)) is None


async def test_a_list_holds_everything_that_was_finished_before_newest_first(ledger: Store) -> None:
    await finish(ledger, *(record(number, start_ms=1000 + number // 2) for number in range(7)))
    assert await ids(ledger) == [id_of(number) for number in (6, 5, 4, 3, 2, 1, 0)]
    await finish(ledger, record(7, start_ms=5))
    assert (await ids(ledger))[-1] == id_of(7)


async def test_lists_page_and_counts_do_not(ledger: Store) -> None:
    await finish(ledger, *(record(number, start_ms=1000 + number) for number in range(5)))
    assert await ids(ledger, skip=1, limit=2) == [id_of(3), id_of(2)]
    assert await ids(ledger, skip=4) == [id_of(0)]
    assert await ids(ledger, limit=0) == []
    assert await ledger.count(ActivationQuery(namespace="ns", skip=3, limit=1)) == 5


async def test_lists_keep_to_name_and_time(ledger: Store) -> None:
    await finish(
        ledger,
        record(1, start_ms=10),
        record(2, start_ms=20, path="ns/pkg/hello"),
        record(3, start_ms=30, name="other", path="ns/other"),
        record(4, start_ms=40, name="fired", path=None),
        record(5, start_ms=20, namespace="elsewhere", path="provider/pkg/hello"),
    )

    async def found(**query) -> list[str]:
        listed = await ids(ledger, **query)
        assert await ledger.count(ActivationQuery(**{"namespace": "ns"} | query)) == len(listed)
        return listed

    assert await found(name="hello") == [id_of(1)]
    assert await found(name="pkg/hello") == [id_of(2)]
    assert await found(name="fired") == [id_of(4)]
    assert await found(name="none") == []
    assert await found(since_ms=20) == [id_of(4), id_of(3), id_of(2)]
    assert await found(upto_ms=20) == [id_of(2), id_of(1)]
    assert await found(since_ms=20, upto_ms=30) == [id_of(3), id_of(2)]
    assert await found(namespace="elsewhere", name="pkg/hello") == [id_of(5)]


# ── what the next process finds ─────────────────────────────────────────────────────────────────────────────────


async def test_this_process_s_own_work_is_not_found_open(ledger: Store) -> None:
    await accept(ledger, id_of(1))
    assert ledger.open_work() == []


async def test_open_work_is_found_oldest_first_and_once(home: Memory | Embedded) -> None:
    ledger = await home.open()
    await accept(ledger, id_of(2))
    await accept(ledger, id_of(1))
    await accept(ledger, id_of(3), id_of(4))
    await start(ledger, id_of(1), id_of(4))
    await finish(ledger, record(3))
    after = await home.after_a_kill()
    assert after.open_work() == [
        OpenWork(id_of(2), b"message of " + id_of(2).encode(), False),
        OpenWork(id_of(1), b"message of " + id_of(1).encode(), True),
        OpenWork(id_of(4), b"message of " + id_of(4).encode(), True),
    ]
    assert after.open_work() == []
    assert await after.get("ns", id_of(3)) == record(3)


async def test_work_stays_open_over_kills_until_it_is_finished(home: Memory | Embedded) -> None:
    await accept(await home.open(), id_of(1))
    for is_started in (False, True):
        after = await home.after_a_kill()
        assert [(work.id, work.is_started) for work in after.open_work()] == [(id_of(1), is_started)]
        await start(after, id_of(1))
    await finish(after, record(1))
    after = await home.after_a_kill()
    assert after.open_work() == []
    assert await ids(after) == [id_of(1)]


async def test_a_fire_is_its_record_and_all_its_children(home: Memory | Embedded) -> None:
    ledger = await home.open()
    fired = record(1, path=None, name="fired", logs=('{"statusCode":0}', '{"statusCode":1}'))
    await accept(ledger, id_of(2), id_of(3), trigger=fired)
    assert await ledger.get("ns", id_of(1)) == fired
    after = await home.after_a_kill()
    assert [work.id for work in after.open_work()] == [id_of(2), id_of(3)]
    assert await after.get("ns", id_of(1)) == fired
    assert await ids(after) == [id_of(1)]


async def test_a_fire_of_nothing_is_its_record(home: Memory | Embedded) -> None:
    await accept(await home.open(), trigger=record(1, path=None))
    after = await home.after_a_kill()
    assert after.open_work() == []
    assert await after.get("ns", id_of(1)) == record(1, path=None)


async def test_records_and_their_logs_are_there_after_a_kill(home: Memory | Embedded) -> None:
    ledger = await home.open()
    late = msgspec.structs.replace(record(2), has_all_logs=False)
    await finish(ledger, record(1, logs=("one",)), late)
    ledger.add_logs(id_of(2), ("two",))
    assert await ledger.get("ns", id_of(2)) == record(2, logs=("two",))
    after = await home.after_a_kill()
    assert await ids(after) == [id_of(2), id_of(1)]
    assert await after.get("ns", id_of(1)) == record(1, logs=("one",))
    assert await after.get("ns", id_of(2)) == record(2, logs=("two",))


async def test_work_that_is_due_later_says_when(home: Memory | Embedded) -> None:
    ledger = await home.open()
    heard = Heard()
    ledger.accept([Work(id_of(1), b"m", 5), Work(id_of(2), b"n")], None, heard)
    assert await heard.error() is None
    for _ in range(2):
        ledger = await home.after_a_kill()
        assert ledger.open_work() == [OpenWork(id_of(1), b"m", False, 5), OpenWork(id_of(2), b"n", False)]


async def test_what_follows_from_an_outcome_is_accepted_with_it(home: Memory | Embedded) -> None:
    ledger = await home.open()
    await accept(ledger, id_of(1))
    followed, heard = Heard(), Heard()
    ledger.accept([Work(id_of(2), b"again", 7)], None, followed, is_owed=True)
    ledger.finish(record(1), heard)
    assert await heard.error() is None
    assert await followed.error() is None
    ledger = await home.after_a_kill()
    assert ledger.open_work() == [OpenWork(id_of(2), b"again", False, 7)]
    assert await ledger.get("ns", id_of(1)) == record(1)


async def test_work_that_is_no_activation_ends_without_a_record(home: Memory | Embedded) -> None:
    ledger = await home.open()
    await accept(ledger, id_of(1), id_of(2))
    ledger.end(id_of(1))
    await accept(ledger, id_of(3))
    ledger = await home.after_a_kill()
    assert [work.id for work in ledger.open_work()] == [id_of(2), id_of(3)]
    assert await ledger.get("ns", id_of(1)) is None


# ── those who wait for records ──────────────────────────────────────────────────────────────────────────────────


async def test_it_tells_of_each_record_once_it_can_be_read(ledger: Store) -> None:
    told: list[str] = []
    ledger.when_recorded(lambda entry: told.append(entry.head.id))
    assert not ledger.has_open(id_of(2))
    await accept(ledger, id_of(2), trigger=record(1))
    assert told == [id_of(1)]
    assert [ledger.has_open(id_of(number)) for number in (1, 2)] == [False, True]
    await finish(ledger, record(3), record(2))
    assert told == [id_of(1), id_of(3), id_of(2)]
    assert not ledger.has_open(id_of(2))


async def test_work_that_a_killed_process_left_is_open_in_the_next(home: Memory | Embedded) -> None:
    await accept(await home.open(), id_of(1))
    after = await home.after_a_kill()
    assert after.has_open(id_of(1))
    assert not after.has_open(id_of(2))
