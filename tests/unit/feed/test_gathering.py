from __future__ import annotations

import json

from tests.unit.feed.watching import Watching

from visp.feed.base import Event
from visp.feed.gathering import Gathering, key_of


async def test_batches_of_a_thousand_each_with_the_position_behind_it() -> None:
    watch = Watching()
    gathering = Gathering(watch, 0)
    for number in range(1, 2502):
        await gathering.add(Event(str(number), b"{}"), number)
    await gathering.flush(2600)
    assert [(len(batch.events), batch.position) for batch in watch.batches] == [(1000, 1000), (1000, 2000), (501, 2600)]


async def test_batches_of_eight_megabytes() -> None:
    watch = Watching()
    gathering = Gathering(watch, 0)
    body = json.dumps({"a": "x" * 3_000_000}).encode()
    for number in range(1, 6):
        await gathering.add(Event(str(number), body), number)
    await gathering.flush(5)
    assert [len(batch.events) for batch in watch.batches] == [2, 2, 1]


async def test_a_position_alone_is_kept_if_it_is_another() -> None:
    watch = Watching()
    await Gathering(watch, 3).flush(3)
    assert watch.batches == []
    await Gathering(watch, 3).flush(4)
    assert [(batch.events, batch.position) for batch in watch.batches] == [((), 4)]


def test_keys() -> None:
    assert key_of("plain-1") == "plain-1"
    long = key_of("x" * 201)
    assert len(long) == 64
    assert (
        len({long, key_of("x" * 202), key_of("a", "b"), key_of("ab"), key_of("ä"), key_of(""), key_of("a b", "")}) == 7
    )
