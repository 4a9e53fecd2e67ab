"""Sources run while their feeds are to; what they hand over is fired before their position is kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from visp.clock import ManualClock
from visp.entity.feed import FeedEntry, Opened, Progress
from visp.feed.base import Batch, Event, FeedRefused, Reach, SourceEnded, SourceLost, Watch
from visp.feed.kinds import Kinds
from visp.feed.provider import Provider
from visp.feed.running import Outcome, Surroundings
from visp.store.feeds import SqliteFeeds
from visp.store.promises import SqlitePromises


class Hasty(ManualClock):
    """Waiting takes a turn of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)
        await asyncio.sleep(0)


class Counting:
    """Hands over numbers from its position on, as many as `most`; `does` says what happens before each."""

    most: ClassVar[int] = 3
    does: ClassVar[Callable[[int], None]] = staticmethod(lambda _: None)

    async def run(self, watch: Watch, position: Any) -> None:
        at = position or 0
        watch.live(lag=self.most - at)
        while at < self.most:
            type(self).does(at)
            at += 1
            await watch.fire(Batch([Event(str(at), msgspec.json.encode({"n": at}))], at))
        await asyncio.Event().wait()


class Kind:
    name = "tests/counting"
    secrets = frozenset({"password"})
    disables_when_throttled = False

    def parse(self, given: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
        return dict(given)

    def changed(self, kept: Mapping[str, Any], given: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
        return {**kept, **given}

    async def check(self, parameters: Mapping[str, Any], reach: Reach) -> Any:
        return None

    def created(self, id: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {"status": "success"}

    def shown(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return dict(parameters)

    def open(self, parameters: Mapping[str, Any], reach: Reach) -> Counting:
        return Counting()


class Fired:
    """Answers as it is told, one after another, then 202."""

    def __init__(self) -> None:
        self.answers: list[Sequence[Outcome] | Exception] = []
        self.looks: list[int] = []
        self.events: list[tuple[str, str]] = []
        self.deleted: list[bool] = []

    async def delete(self, namespace: str, trigger: str, auth: str, *, with_rules: bool) -> None:
        self.deleted.append(with_rules)

    async def look(self, namespace: str, trigger: str, auth: str) -> int:
        return self.looks.pop(0) if self.looks else 200

    async def fire(
        self, namespace: str, trigger: str, auth: str, batch: str, events: Sequence[Event]
    ) -> Sequence[Outcome]:
        answer = self.answers.pop(0) if self.answers else [Outcome(202)] * len(events)
        if isinstance(answer, Exception):
            raise answer
        self.events += [(batch, event.key) for event, each in zip(events, answer, strict=False) if each.is_fired]
        return answer


class Place:
    def __init__(self, store: SqliteFeeds) -> None:
        self.store = store
        self.fires = Fired()
        self.clock = Hasty()
        self.parted: list[str] = []

    async def let_go(self, entry: FeedEntry) -> None:
        self.parted.append(entry.trigger)

    async def put(self, trigger: str = "t", progress: Progress | None = None, **fields: Any) -> None:
        entry = FeedEntry(
            namespace="guest", trigger=trigger, id="id", feed="tests/counting", sealed=b"", changed_ms=1, **fields
        )
        await self.store.put_feed(entry, progress or Progress(), 10)

    @contextlib.asynccontextmanager
    async def running(self, holder: str = "0") -> AsyncIterator[Provider]:
        around = Surroundings(
            store=self.store,
            fires=self.fires,
            reach=lambda _: None,  # type: ignore[arg-type,return-value]
            let_go=self.let_go,
            clock=self.clock,
            holder=holder,
        )
        kinds = Kinds()
        kinds._feeds["tests/counting"] = Kind()
        provider = Provider(around, kinds, lambda _: Opened({}, "key"))
        task = asyncio.ensure_future(provider.run())
        try:
            yield provider
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def standing(self, trigger: str = "t") -> tuple[FeedEntry, Progress]:
        kept = await self.store.feed("guest", trigger)
        assert kept is not None
        return kept

    async def until(self, is_so: Callable[[FeedEntry, Progress], bool]) -> tuple[FeedEntry, Progress]:
        async with asyncio.timeout(10):
            while not is_so(*(kept := await self.standing())):  # noqa: ASYNC110 - nobody tells of the store
                await asyncio.sleep(0.01)
        return kept


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    opened = await SqlitePromises.open(tmp_path / "promises.db")
    yield Place(opened.feeds)
    await opened.close()


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "most", 3)
    monkeypatch.setattr(Counting, "does", staticmethod(lambda _: None))


def is_done(_: FeedEntry, progress: Progress) -> bool:
    return progress.fired + progress.refused == 3


async def test_events_are_fired_and_the_position_is_kept(place: Place) -> None:
    await place.put()
    async with place.running():
        _, progress = await place.until(is_done)
    assert place.fires.events == [("id/1", "1"), ("id/2", "2"), ("id/3", "3")]
    assert (progress.position, progress.batch, progress.state) == (b"3", 3, "live")
    assert progress.last_event_ms is not None
    place.fires.events.clear()
    Counting.most = 4
    async with place.running("1"):  # whoever comes next goes on there
        await place.until(lambda _, progress: progress.fired == 4)
    assert place.fires.events == [("id/4", "4")]


async def test_what_was_not_kept_is_handed_over_under_the_same_number(place: Place) -> None:
    await place.put()
    place.fires.answers = [SourceLost("the server has gone")] * 2
    async with place.running():
        _, progress = await place.until(is_done)
    assert [batch for batch, _ in place.fires.events] == ["id/1", "id/2", "id/3"]
    assert progress.last_error is not None


async def test_a_source_that_is_lost_is_opened_again_where_it_was(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[Exception] = [SourceLost("not there"), OSError("reset"), ValueError("a secret of the source")]

    def does(at: int) -> None:
        if at == 1 and lost:
            raise lost.pop(0)

    monkeypatch.setattr(Counting, "does", staticmethod(does))
    await place.put()
    async with place.running():
        _, progress = await place.until(is_done)
    assert [key for _, key in place.fires.events] == ["1", "2", "3"]
    assert "secret" not in (progress.last_error or "")
    waits = [wait for wait in place.clock.slept if wait > 0.3]
    assert len(waits) >= 3


async def test_a_source_that_has_ended_says_why(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def does(at: int) -> None:
        if at == 2:
            raise SourceEnded("after reaching max triggers")

    monkeypatch.setattr(Counting, "does", staticmethod(does))
    await place.put()
    async with place.running() as provider:
        entry, progress = await place.until(lambda entry, _: entry.reason is not None)
        provider.nudge("guest", "t")
    assert entry.reason is not None
    assert (entry.reason.kind, entry.reason.message) == ("AUTO", "after reaching max triggers")
    assert progress.fired == 2
    assert progress.position == b"2"


@pytest.mark.parametrize(("delete", "with_rules"), [("trigger", False), ("rules", True)])
async def test_what_ends_may_take_the_trigger_with_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, delete: Any, with_rules: bool
) -> None:
    def does(at: int) -> None:
        if at == 1:
            raise SourceEnded("after firing once", delete=delete)

    monkeypatch.setattr(Counting, "does", staticmethod(does))
    await place.put()
    async with place.running(), asyncio.timeout(10):
        while await place.store.feed("guest", "t") is not None:  # noqa: ASYNC110 - nobody tells of the store
            await asyncio.sleep(0.01)
    assert place.fires.deleted == [with_rules]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_a_trigger_that_may_not_be_fired_disables(place: Place, status: int) -> None:
    await place.put()
    place.fires.answers = [[Outcome(202)], [Outcome(status)]]
    async with place.running():
        entry, progress = await place.until(lambda entry, _: entry.reason is not None)
    assert entry.reason is not None
    assert entry.reason.status == status
    assert f"Received a {status} status code" in entry.reason.message
    assert progress.fired == 1


async def test_a_feed_is_starting_until_it_is_connected_again(place: Place) -> None:
    """Whatever it was when the server before this one was killed."""
    await place.put(progress=Progress(state="live", lag=0))
    place.fires.looks = [503] * 1000
    async with place.running() as provider, asyncio.timeout(10):
        while not (measured := provider.measured()):  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
    assert measured == {"starting": 1}


async def test_a_trigger_that_is_gone_at_the_start_disables(place: Place) -> None:
    await place.put()
    place.fires.looks = [404]
    async with place.running():
        entry, _ = await place.until(lambda entry, _: entry.reason is not None)
    assert entry.reason is not None
    assert entry.reason.message == "Automatically disabled after receiving a 404 status code on trigger initialization"
    assert place.fires.events == []


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
async def test_what_may_pass_is_tried_until_it_has(place: Place, status: int) -> None:
    await place.put()
    place.fires.answers = [[Outcome(status)]] * 12
    async with place.running():
        entry, _ = await place.until(is_done)
    assert entry.reason is None
    assert [key for _, key in place.fires.events] == ["1", "2", "3"]


async def test_too_many_requests_disable_a_kind_that_says_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kind, "disables_when_throttled", True)
    await place.put()
    place.fires.answers = [[Outcome(429)]] * 10
    async with place.running():
        entry, _ = await place.until(lambda entry, _: entry.reason is not None)
    assert entry.reason is not None
    assert "429" in entry.reason.message
    assert place.fires.events == []
    assert [wait for wait in place.clock.slept if wait > 1 and wait == round(wait)][:3] == [4, 9, 16]


async def test_an_event_that_is_too_large_holds_up_no_other(place: Place) -> None:
    await place.put()
    place.fires.answers = [[Outcome(202)], [Outcome(413, "too large")]]
    async with place.running():
        entry, progress = await place.until(is_done)
    assert entry.reason is None
    assert (progress.fired, progress.refused) == (2, 1)


async def test_a_paused_feed_stops_and_goes_on(place: Place) -> None:
    Counting.most = 100_000
    await place.put()
    async with place.running() as provider:
        entry, _ = await place.until(lambda _, progress: progress.fired > 5)
        await place.store.change_feed(msgspec.structs.replace(entry, is_paused=True))
        provider.nudge("guest", "t")
        async with asyncio.timeout(10):
            while provider.measured():  # noqa: ASYNC110 - nobody tells of its end
                await asyncio.sleep(0.01)
        _, paused = await place.standing()
        await place.store.change_feed(entry)
        provider.nudge("guest", "t")
        await place.until(lambda _, progress: progress.fired > paused.fired)
    keys = [int(key) for _, key in place.fires.events]
    assert sorted(set(keys)) == list(range(1, max(keys) + 1))


async def test_what_a_source_has_made_is_taken_away_once_it_has_ended(place: Place) -> None:
    """Whoever deletes the feed does it too, but the source may connect again in that moment."""
    await place.put()
    async with place.running() as provider:
        await place.until(is_done)
        assert await place.store.drop_feed("guest", "t")
        provider.nudge("guest", "t")
        async with asyncio.timeout(10):
            while not place.parted:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.01)
        assert provider.measured() == {}
    assert place.parted == ["t"]


async def test_a_source_that_goes_on_elsewhere_leaves_all_as_it_is(place: Place) -> None:
    await place.put()
    async with place.running() as provider:
        await place.until(is_done)
        now_ms = place.clock.now_ms() + 1_000_000
        assert await place.store.lease("9", now_ms, now_ms + 10**9, 1)
        provider.nudge("guest", "t")
        async with asyncio.timeout(10):
            while provider.measured():  # noqa: ASYNC110 - nobody tells of its end
                await asyncio.sleep(0.01)
    assert place.parted == []


async def test_who_has_lost_the_lease_keeps_nothing_more(place: Place) -> None:
    Counting.most = 100_000
    await place.put()
    async with place.running() as provider:
        await place.until(lambda _, progress: progress.fired > 2)
        now_ms = place.clock.now_ms() + 1_000_000
        assert await place.store.lease("9", now_ms, now_ms + 10**9, 1)
        async with asyncio.timeout(10):
            while provider.measured().keys() - {"disabled"}:
                provider.nudge("guest", "t")
                await asyncio.sleep(0.01)
        assert (await place.standing())[0].reason is None


async def test_a_feed_of_a_kind_that_is_not_here_holds_up_no_other(place: Place) -> None:
    await place.put()
    strange = FeedEntry(namespace="guest", trigger="s", id="x", feed="none/such", sealed=b"", changed_ms=1)
    await place.store.put_feed(strange, Progress(), 10)
    async with place.running():
        await place.until(is_done)


def test_kinds() -> None:
    kinds = Kinds({"tests/one": "tests.unit.feed.test_provider:Kind", "tests/gone": "no.such.module:Kind"})
    assert kinds.find("tests/one") is kinds.find("tests/one")
    for name, sentence in (
        ("none/such", "There is no feed"),
        ("tests/gone", "needs 'no', which is not on the server."),
    ):
        with pytest.raises(FeedRefused, match=sentence):
            kinds.find(name)
