"""Feeds are kept whole, and have one holder at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from visp.entity.feed import AUTO, FeedEntry, Progress, Reason
from visp.errors import Corrupt
from visp.store.feeds import SqliteFeeds
from visp.store.promises import SqlitePromises


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteFeeds]:
    opened = await SqlitePromises.open(tmp_path / "promises.db")
    yield opened.feeds
    await opened.close()


def entry(trigger: str = "t", id: str = "one", **fields: object) -> FeedEntry:
    made = FeedEntry(namespace="guest", trigger=trigger, id=id, feed="alarms/alarm", sealed=b"s", changed_ms=1)
    return msgspec.structs.replace(made, **fields)


async def test_what_is_put_is_there(store: SqliteFeeds) -> None:
    progress = Progress(position=b'{"at":1}', batch=3)
    assert await store.put_feed(entry(), progress, 10)
    assert await store.feed("guest", "t") == (entry(), progress)
    assert await store.feed("guest", "u") is None
    assert await store.feeds("guest") == [(entry(), progress)]
    assert await store.feeds("other") == []
    assert await store.drop_feed("guest", "t")
    assert not await store.drop_feed("guest", "t")


async def test_a_namespace_has_so_many(store: SqliteFeeds) -> None:
    assert await store.put_feed(entry("a"), Progress(), 1)
    assert not await store.put_feed(entry("b"), Progress(), 1)
    assert await store.put_feed(entry("a", "two"), Progress(), 1)


async def test_one_holder_at_a_time(store: SqliteFeeds) -> None:
    await store.put_feed(entry(), Progress(), 10)
    assert await store.lease("0", 0, 100, 1) == [("guest", "t")]
    assert await store.lease("1", 50, 150, 1) == []
    assert await store.lease("0", 90, 190, 1) == []
    assert await store.held("0") == [(entry(), Progress())]
    assert await store.held("0", [("guest", "t"), ("guest", "u")]) == [(entry(), Progress())]
    assert await store.held("1") == []
    assert await store.held("1", [("guest", "t")]) == []
    assert await store.lease("1", 190, 290, 1) == [("guest", "t")]
    assert await store.lease("0", 200, 300, 1) == []
    assert await store.held("0") == []
    await store.release("1")
    assert await store.lease("0", 201, 300, 1) == [("guest", "t")]
    await store.free_all()
    assert await store.lease("1", 202, 300, 1) == [("guest", "t")]


async def test_nothing_is_written_while_there_is_no_feed(store: SqliteFeeds, tmp_path: Path) -> None:
    log = tmp_path / "promises.db-wal"
    before = log.read_bytes()
    assert await store.lease("0", 0, 100, 1) == []
    assert log.read_bytes() == before
    await store.put_feed(entry(), Progress(), 10)
    assert await store.lease("0", 0, 100, 1) == [("guest", "t")]


async def test_several_share(store: SqliteFeeds) -> None:
    for number in range(5):
        await store.put_feed(entry(str(number)), Progress(), 10)
    assert len(await store.lease("0", 0, 100, 2)) == 3
    assert len(await store.lease("1", 0, 100, 2)) == 1
    assert len(await store.lease("1", 0, 100, 2)) == 1
    assert len(await store.held("0")) == 3


async def test_only_the_holder_advances(store: SqliteFeeds) -> None:
    await store.put_feed(entry(), Progress(), 10)
    await store.lease("0", 0, 100, 1)
    further = Progress(position=b"2", batch=1)
    assert not await store.advance(entry(), further, "1")
    assert await store.advance(entry(), further, "0")
    assert await store.feed("guest", "t") == (entry(), further)
    await store.put_feed(entry(id="two"), Progress(), 10)  # made anew meanwhile
    assert not await store.advance(entry(), further, "0")
    assert await store.feed("guest", "t") == (entry(id="two"), Progress())


async def test_what_changes_keeps_its_holder_and_what_is_not_active_has_none(store: SqliteFeeds) -> None:
    await store.put_feed(entry(), Progress(batch=7), 10)
    await store.lease("0", 0, 100, 1)
    assert await store.change_feed(entry(sealed=b"other"))
    assert await store.held("0") == [(entry(sealed=b"other"), Progress(batch=7))]
    assert await store.change_feed(entry(is_paused=True))
    assert await store.held("0") == []
    assert await store.change_feed(entry())
    assert len(await store.held("0")) == 1
    assert await store.advance(entry(), Progress(), "0", disabled=entry(reason=Reason(AUTO, "gone", 404)))
    assert await store.held("0") == []
    assert await store.lease("0", 0, 100, 1) == []
    assert not await store.change_feed(entry(id="two"))


async def test_an_address_leads_to_its_feed_and_is_counted(store: SqliteFeeds) -> None:
    await store.put_feed(entry(), Progress(), 10)
    await store.lease("0", 0, 100, 1)
    assert await store.feed_of("one") == (entry(), Progress())
    assert await store.feed_of("two") is None
    await store.count_feed(entry(), 2, 77)
    await store.count_feed(entry(id="two"), 2, 78)
    assert await store.advance(entry(), Progress(state="live"), "0")
    assert await store.feed_of("one") == (entry(), Progress(state="live", fired=2, last_event_ms=77))


async def test_a_damaged_row_is_said_to_be_so(store: SqliteFeeds) -> None:
    await store.put_feed(entry("a"), Progress(), 10)
    await store.put_feed(entry("b"), Progress(), 10)
    await store._database.write(lambda db: db.execute("UPDATE feeds SET progress = x'00' WHERE trigger = 'a'"))
    with pytest.raises(Corrupt):
        await store.feed("guest", "a")
    assert [kept.trigger for kept, _ in await store.feeds("guest")] == ["b"]
