"""Bodies and batches of sources: limits, keys, positions behind what was skipped; filters."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from tests.unit.feed.watching import Watching

from visp.entity.limits import PAYLOAD_LIMIT_BYTES
from visp.feed.base import BATCH_BYTES, EVENTS_MOST, Batch, Event, Json, Watch
from visp.feed.batching import Gathering, batches, event, key_of, told
from visp.feed.sifting import sifted


def test_batches_hold_so_many_events_and_bytes_and_no_more() -> None:
    small = list(batches((Event(str(number), b"{}"), number) for number in range(EVENTS_MOST + 1)))
    assert [(len(events), position) for events, position in small] == [(EVENTS_MOST, EVENTS_MOST - 1), (1, EVENTS_MOST)]
    body = b"x" * (BATCH_BYTES // 2)
    assert [len(events) for events, _ in batches((Event(key, body), key) for key in "abc")] == [2, 1]


def test_what_was_skipped_moves_the_position() -> None:
    assert list(batches([(Event("a", b"{}"), 1), (None, 2)])) == [([Event("a", b"{}")], 2)]
    assert list(batches([(None, 1)])) == [([], 1)]
    assert list(batches([])) == []


def test_an_event_that_no_trigger_takes_is_none() -> None:
    assert event("k", {"a": "x" * PAYLOAD_LIMIT_BYTES}, "test") is None
    made = event("k" * 300, {"a": 1}, "test")
    assert made is not None
    assert (len(made.key), made.body) == (64, b'{"a":1}')


def test_bytes_are_told_as_json_as_text_or_as_base64() -> None:
    assert msgspec.json.encode(told(b'{"a": 10000000000000000000000}')) == b'{"a": 10000000000000000000000}'
    assert told(b"hello") == "hello"
    assert told(b"\xff") == "/w=="
    assert told(b"[" * 100_000) == "[" * 100_000


async def test_a_filter_leaves_out_events_and_keeps_positions() -> None:
    class Two:
        async def run(self, watch: Watch, position: Json) -> None:
            await watch.fire(Batch([Event("a", b'{"n":1}'), Event("b", b'{"n":2}')], 7))

    class Kept:
        clock: Any = None

        def __init__(self) -> None:
            self.batches: list[Batch] = []

        async def fire(self, batch: Batch) -> None:
            self.batches.append(batch)

        def live(self, *, lag: int | None = None, next_ms: int | None = None) -> None: ...

    watch = Kept()
    await sifted(Two(), {"filter": {"path": "n", "above": 1}}).run(watch, None)
    assert watch.batches == [Batch([Event("b", b'{"n":2}')], 7)]
    two = Two()
    assert sifted(two, {}) is two


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
