"""What is taken away at a source when feeds are deleted or changed; the rest is tested over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.unit.feed.test_provider import Kind

from visp.clock import ManualClock
from visp.controller.feeds import Feeds
from visp.entity.names import FullyQualifiedName
from visp.feed import leaving
from visp.feed.base import FeedRefused, Made, Reach, SourceLost
from visp.feed.kinds import Kinds
from visp.store.promises import SqlitePromises

AUTH = "who:key"


class Slotted(Kind):
    """Has slots at a source: those that CREATE finds there were not made by it."""

    def __init__(self) -> None:
        self.slots: set[str] = set()
        self.asked: list[str] = []
        self.fails: Exception | None = None
        self.hangs = False

    async def check(self, parameters: Mapping[str, Any], reach: Reach) -> Any:
        slot = parameters.get("slot")
        if slot is None or slot in self.slots:
            return 7
        self.slots.add(slot)
        return Made(7)

    def trace(self, parameters: Mapping[str, Any]) -> str | None:
        return parameters.get("slot")

    async def deleted(self, parameters: Mapping[str, Any], reach: Reach) -> None:
        self.asked.append(parameters["slot"])
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails is not None:
            raise self.fails
        self.slots.remove(parameters["slot"])


class Place:
    def __init__(self, feeds: Feeds, kind: Slotted) -> None:
        self.feeds = feeds
        self.kind = kind

    async def create(self, trigger: str, **parameters: Any) -> None:
        await self.feeds.create(named(trigger), "tests/counting", parameters, AUTH)

    async def delete(self, trigger: str) -> None:
        assert await self.feeds.delete(named(trigger)) == {"status": "success"}
        with pytest.raises(FeedRefused):
            await self.feeds.read(named(trigger))


def named(trigger: str) -> FullyQualifiedName:
    return FullyQualifiedName("guest", None, trigger)


class Anything:
    async def get(self, *_: Any) -> None:
        """A trigger is there."""

    def publish(self, *_: Any) -> None:
        """Nobody listens."""


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    promises = await SqlitePromises.open(tmp_path / "promises.db")
    kinds, kind = Kinds(), Slotted()
    kinds._feeds["tests/counting"] = kind
    anything: Any = Anything()
    reach: Any = lambda _: None  # noqa: E731
    yield Place(
        Feeds(
            store=promises.feeds,
            kinds=kinds,
            reach=reach,
            crud=anything,
            bus=anything,
            clock=ManualClock(),
            seal=str.encode,
            unseal=bytes.decode,
            url_of=str,
            take_away=leaving.take_away,
        ),
        kind,
    )
    await promises.close()


async def test_what_a_feed_has_made_goes_with_it(place: Place) -> None:
    await place.create("t", slot="s")
    await place.delete("t")
    assert (place.kind.slots, place.kind.asked) == (set(), ["s"])
    await place.create("t")
    await place.delete("t")
    assert place.kind.asked == ["s"]


async def test_what_was_there_before_stays(place: Place) -> None:
    place.kind.slots.add("theirs")
    await place.create("t", slot="theirs")
    await place.delete("t")
    assert place.kind.asked == []


async def test_what_another_feed_shares_stays(place: Place) -> None:
    await place.create("t", slot="s")
    await place.create("u", slot="s")
    await place.delete("t")
    assert place.kind.asked == []


async def test_a_feed_in_the_place_of_another(place: Place) -> None:
    await place.create("t", slot="s")
    await place.create("t", slot="s")
    assert place.kind.asked == []
    await place.create("t", slot="other")
    assert (place.kind.slots, place.kind.asked) == ({"other"}, ["s"])
    await place.feeds.update(named("t"), {"password": "p"}, AUTH)
    assert place.kind.asked == ["s"]
    await place.feeds.update(named("t"), {"slot": "third"}, AUTH)
    assert place.kind.slots == {"third"}
    await place.delete("t")
    assert place.kind.slots == set()


@pytest.mark.parametrize("error", [SourceLost("gone"), RuntimeError("password")])
async def test_what_cannot_be_taken_away_keeps_no_feed(
    place: Place, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    await place.create("t", slot="s")
    place.kind.fails = error
    await place.delete("t")
    said = capsys.readouterr().err
    assert place.kind.asked == ["s"]
    assert "feed.trace_left" in said
    assert "password" not in said


async def test_who_does_not_answer_is_not_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "TAKE_AWAY_S", 0.01)
    await place.create("t", slot="s")
    place.kind.hangs = True
    await place.delete("t")
    assert place.kind.asked == ["s"]
