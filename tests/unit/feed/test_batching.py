"""Bodies and batches of sources: limits, keys, positions behind what was skipped; filters."""

from __future__ import annotations

from typing import Any

import msgspec

from visp.entity.limits import PAYLOAD_LIMIT_BYTES
from visp.feed.base import BATCH_BYTES, EVENTS_MOST, Batch, Event, Json, Watch
from visp.feed.batching import batches, event, told
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
