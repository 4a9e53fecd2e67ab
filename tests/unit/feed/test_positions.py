"""Positions of Redis' groups and of NATS' durable consumers: what was fired and is not acknowledged."""

from __future__ import annotations

import asyncio

import pytest

from visp.feed.base import FeedRefused, SourceLost
from visp.feed.connecting import cause, library, reached
from visp.feed.nats import numbers, ranges
from visp.feed.redis import entries_of, fired, order


def test_ids_of_entries_have_an_order() -> None:
    assert order("12-3") == (12, 3)
    assert order("0") == (0, 0)
    assert [order(bad) for bad in ("", "$", "1-", "x-1", "1-2-3", "1" * 21)] == [None] * 6


def test_what_was_in_the_last_batch_was_fired() -> None:
    position = {"from": "5-0", "upto": "9-1"}
    assert [fired(id, position) for id in ("4-9", "5-0", "9-1", "9-2", "10-0")] == [False, True, True, False, False]
    assert not fired("5-0", {})


def test_answers_about_streams_are_read() -> None:
    assert entries_of([[b"s", [(b"1-0", {b"a": b"b"}), (b"2-0", None)]]]) == [(b"1-0", {b"a": b"b"}), (b"2-0", None)]
    assert entries_of(None) == entries_of([]) == []


def test_numbers_are_kept_as_runs() -> None:
    assert ranges({3, 1, 2, 7}) == [[1, 3], [7, 7]]
    assert numbers(ranges({3, 1, 2, 7})) == {1, 2, 3, 7}
    assert ranges(()) == []


async def test_whatever_breaks_is_a_sentence_without_secrets() -> None:
    with pytest.raises(SourceLost, match=r"X at h:1 cannot be reached, or broke off: bad \*\*\*"):
        async with reached("X", "h:1", [None, "s3cret"]):
            raise ValueError("bad\n s3cret")
    with pytest.raises(FeedRefused, match="does not answer in time"):
        async with reached("X", "h:1", (), FeedRefused):
            raise TimeoutError
    assert len(cause(ValueError("x" * 5000))) == 200
    assert cause(ValueError()) == "ValueError"


async def test_a_cancellation_is_one_only_if_somebody_cancelled() -> None:
    with pytest.raises(SourceLost, match="the connection was closed"):
        async with reached("X", "h:1"):
            raise asyncio.CancelledError

    async def waits() -> None:
        async with reached("X", "h:1"):
            await asyncio.Event().wait()

    running = asyncio.ensure_future(waits())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_library_that_is_not_there_names_the_extra() -> None:
    with pytest.raises(FeedRefused, match=r"pip install 'visp\[kafka\]'"):
        await library("visp_has_no_such_library", "kafka")
