"""Who waits for which record, and who follows the records of a namespace."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from visp.controller.waits import Feed, Note, Waits
from visp.entity.activation import ActivationHead, ActivationRecord
from visp.entity.subject import Identity, UserLimits
from visp.errors import NotFound, NotYet, Overloaded, StoreUnavailable
from visp.settings import Waits as Limits
from visp.store.base import Work
from visp.store.memory import MemoryLedger

LIMITS = UserLimits(invocations_per_minute=60, fires_per_minute=60, concurrent_invocations=30)
ALICE = Identity(subject="alice", namespace="alice", namespace_uuid="uuid-a", limits=LIMITS)
BOB = Identity(subject="bob", namespace="bob", namespace_uuid="uuid-b", limits=LIMITS)
LONG_S = 60.0


def id_of(number: int) -> str:
    return f"{number:012x}00{number:018x}"


def record_of(id: str, namespace: str = "alice", name: str = "a", start_ms: int = 5) -> ActivationRecord:
    head = ActivationHead(id=id, namespace=namespace, subject="s", name=name, version="0.0.1", start_ms=start_ms)
    return ActivationRecord(head=head, result=b"{}")


class Ledger(MemoryLedger):
    """Counts how often somebody looks; `before` is done between the question and the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.before: Callable[[], None] | None = None

    async def get(self, namespace: str, id: str) -> ActivationRecord | None:
        self.looks += 1
        found = await super().get(namespace, id)
        if self.before is not None:
            before, self.before = self.before, None
            before()
        await asyncio.sleep(0)
        return found


class Desk:
    """Waits over a ledger in memory, with work under way."""

    def __init__(self, **limits: Any) -> None:
        self.ledger = Ledger()
        self.waits = Waits(self.ledger, Limits(**limits))
        self.under_way: dict[str, str] = {}
        self.waits.ask(self.under_way.get)

    def begin(self, number: int, who: Identity = ALICE) -> str:
        self.under_way[id_of(number)] = who.namespace_uuid
        return id_of(number)

    def finish(self, id: str, **fields: Any) -> ActivationRecord:
        record = record_of(id, **fields)
        self.ledger.finish(record, lambda _: None)
        self.under_way.pop(id, None)
        return record

    @property
    def taken(self) -> int:
        (family,) = self.waits.measured()
        return int(family.samples[()])

    async def until_taken(self, count: int) -> None:
        async with asyncio.timeout(5):
            while self.taken != count:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0)


async def test_a_record_that_is_there_is_given_at_once() -> None:
    desk = Desk(at_once=1)
    record = desk.finish(id_of(1))
    assert await desk.waits.record(ALICE, id_of(1), 0) == record


async def test_a_waiter_is_told_and_looks_no_more_often_than_it_must() -> None:
    desk = Desk()
    id = desk.begin(1)
    waiting = asyncio.ensure_future(desk.waits.record(ALICE, id, LONG_S))
    await desk.until_taken(1)
    await asyncio.sleep(0.01)
    record = desk.finish(id)
    assert await waiting == record
    assert desk.ledger.looks == 2
    assert desk.taken == 0


async def test_a_record_that_comes_while_the_store_is_asked_is_not_missed() -> None:
    desk = Desk()
    id = desk.begin(1)

    def finish() -> None:
        desk.finish(id)

    desk.ledger.before = finish
    async with asyncio.timeout(5):
        assert (await desk.waits.record(ALICE, id, LONG_S)).head.id == id


async def test_what_can_never_come_is_said_at_once_and_so_is_what_is_anothers() -> None:
    desk = Desk()
    running, stored = desk.begin(1), id_of(2)
    desk.finish(stored)
    async with asyncio.timeout(5):
        for id, who in ((id_of(9), ALICE), (running, BOB), (stored, BOB)):
            with pytest.raises(NotFound) as raised:
                await desk.waits.record(who, id, LONG_S)
            assert raised.value.headers == ()


async def test_work_that_the_ledger_holds_may_come() -> None:
    desk = Desk()
    desk.ledger.accept([Work(id_of(1), b"")], None, lambda _: None)
    waiting = asyncio.ensure_future(desk.waits.record(ALICE, id_of(1), LONG_S))
    await desk.until_taken(1)
    desk.finish(id_of(1))
    assert (await waiting).head.id == id_of(1)


async def test_when_the_time_is_over_it_is_said_when_to_ask_again() -> None:
    desk = Desk()
    with pytest.raises(NotYet) as raised:
        await desk.waits.record(ALICE, desk.begin(1), 0.01)
    assert raised.value.headers == (("Retry-After", "1"),)
    assert raised.value.sentence == NotFound().sentence
    assert desk.taken == 0


async def test_no_more_wait_than_may() -> None:
    desk = Desk(at_once=2)
    first, second = (asyncio.ensure_future(desk.waits.record(ALICE, desk.begin(n), LONG_S)) for n in (1, 2))
    await desk.until_taken(2)
    with pytest.raises(Overloaded, match="at_once"):
        await desk.waits.record(ALICE, desk.begin(3), LONG_S)
    with pytest.raises(Overloaded):
        async with desk.waits.feed("alice", None, None):
            pass
    first.cancel()
    await desk.until_taken(1)
    desk.finish(id_of(2))
    await second


async def test_who_goes_away_leaves_nothing_behind() -> None:
    desk = Desk()
    id = desk.begin(1)
    waiting = asyncio.ensure_future(desk.waits.record(ALICE, id, LONG_S))
    await desk.until_taken(1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (desk.taken, desk.waits._waiters) == (0, {})  # the table itself: nothing else would show an id that stays


async def test_a_thousand_waits_are_told_each_of_its_own() -> None:
    desk = Desk()
    ids = [desk.begin(n) for n in range(1000)]
    waiting = [asyncio.ensure_future(desk.waits.record(ALICE, id, LONG_S)) for id in ids for _ in range(2)]
    await desk.until_taken(2000)
    for id in reversed(ids):
        desk.finish(id)
    assert [record.head.id for record in await asyncio.gather(*waiting)] == [id for id in ids for _ in range(2)]
    assert desk.taken == 0


async def test_when_the_server_ends_everybody_is_told_to_ask_again() -> None:
    desk = Desk()
    waiting = asyncio.ensure_future(desk.waits.record(ALICE, desk.begin(1), LONG_S))
    async with desk.waits.feed("alice", None, None) as feed:
        await desk.until_taken(2)
        desk.waits.close()
        assert await feed.next() is None
    with pytest.raises(NotYet):
        await waiting
    with pytest.raises(NotYet):
        await desk.waits.record(ALICE, id_of(1), LONG_S)
    with pytest.raises(StoreUnavailable):
        async with desk.waits.feed("alice", None, None):
            pass
    desk.waits.open()
    desk.finish(id_of(1))
    assert await desk.waits.record(ALICE, id_of(1), LONG_S)


async def test_a_feed_has_the_records_of_its_namespace_that_it_asks_for() -> None:
    desk = Desk()
    async with desk.waits.feed("alice", "wanted", 10) as feed:
        desk.finish(id_of(1), name="other", start_ms=20)
        desk.finish(id_of(2), name="wanted", start_ms=9)
        desk.finish(id_of(3), name="wanted", start_ms=20, namespace="bob")
        desk.finish(id_of(4), name="wanted", start_ms=10)
        assert desk.waits.followed == frozenset({"alice"})
        assert await feed.next() == id_of(4)
    assert desk.waits.followed == frozenset()
    assert desk.taken == 0


async def entries(feed: Feed, count: int) -> list[str | int | None]:
    return [await feed.next() for _ in range(count)]


async def test_a_slow_reader_hears_how_many_it_lost_where_it_lost_them() -> None:
    feed = Feed(None, None, 2)
    for number in range(5):
        feed.offer(Note(str(number), "alice", "a", 0))
    assert await entries(feed, 2) == ["0", "1"]
    feed.offer(Note("5", "alice", "a", 0))
    feed.close()
    assert await entries(feed, 3) == [3, "5", None]


class Other:
    """The other shards, by script."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_come = True

    def is_here(self, id: str) -> bool:
        return id[12:14] == "00"

    async def watch(self, namespace_uuid: str, id: str) -> bool:
        self.asked.append(f"watch {namespace_uuid}")
        return self.may_come

    def unwatch(self, id: str) -> None:
        self.asked.append("unwatch")

    async def follow(self, namespaces: frozenset[str]) -> None:
        self.asked.append(f"follow {','.join(namespaces)}")

    def unfollow(self, namespaces: frozenset[str]) -> None:
        self.asked.append(f"unfollow {','.join(namespaces)}")


THERE = f"{7:012x}01{7:018x}"


async def test_a_record_of_another_shard_is_watched_there_for_as_long_as_somebody_waits() -> None:
    desk, other = Desk(), Other()
    desk.waits.join(other)
    waiting = [asyncio.ensure_future(desk.waits.record(ALICE, THERE, LONG_S)) for _ in range(2)]
    await desk.until_taken(2)
    desk.ledger._records[THERE] = record_of(THERE)  # as another process would have written it
    desk.waits.heard(Note(THERE, "alice", "a", 0))
    assert [(await one).head.id for one in waiting] == [THERE, THERE]
    assert other.asked == ["watch uuid-a", "watch uuid-a", "unwatch"]


async def test_what_another_shard_does_not_expect_never_comes() -> None:
    desk, other = Desk(), Other()
    other.may_come = False
    desk.waits.join(other)
    async with asyncio.timeout(5):
        with pytest.raises(NotFound):
            await desk.waits.record(ALICE, THERE, LONG_S)
    assert other.asked == ["watch uuid-a", "unwatch"]


async def test_other_shards_are_told_what_is_followed() -> None:
    desk, other = Desk(), Other()
    desk.waits.join(other)
    async with desk.waits.feed("alice", None, None):
        assert other.asked == ["follow alice"]
    assert other.asked == ["follow alice", "unfollow "]


async def test_who_waits_over_a_link_that_ends_looks_again() -> None:
    desk, other = Desk(), Other()
    desk.waits.join(other)
    waiting: Awaitable[ActivationRecord] = asyncio.ensure_future(desk.waits.record(ALICE, THERE, LONG_S))
    await desk.until_taken(1)
    desk.waits.wake(lambda id: id[12:14] == "01")
    async with asyncio.timeout(5):
        while len(other.asked) < 2:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
    assert other.asked == ["watch uuid-a", "watch uuid-a"]
    desk.ledger._records[THERE] = record_of(THERE)
    desk.waits.heard(Note(THERE, "alice", "a", 0))
    assert (await waiting).head.id == THERE
