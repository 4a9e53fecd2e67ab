"""Calls of APIs are counted in one place, whichever shard they come to."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from tests.contract.linked import linked

from visp.clock import ManualClock
from visp.controller.counts import Counts, Rule


async def wait_s(counts: Counts, rule: Rule) -> int:
    told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    counts.count(rule, told.set_result)
    return await told


async def test_alone() -> None:
    counts, heard = Counts(ManualClock()), list[int]()
    for _ in range(2):
        counts.count(Rule(("a",), gap_ms=1500), heard.append)
        counts.count(Rule(("a",), rate=1, window_s=86_400), heard.append)
    assert heard[:3] == [0, 0, 2]
    assert heard[3] > 0


async def test_among_shards(tmp_path: Path) -> None:
    clock = ManualClock()
    async with AsyncExitStack() as stack:
        every = [Counts(clock, links) for links in await linked(stack, tmp_path)]
        for number in range(8):  # some of them at home here, some there
            key = ("guest", f"/{number}")
            waits = [await wait_s(counts, Rule(key, rate=3, window_s=86_400)) for counts in every * 2]
            assert [wait > 0 for wait in waits] == [False, False, False, True]
            assert [await wait_s(counts, Rule(key, gap_ms=60_000)) for counts in every] == [0, 60]


async def test_a_home_that_is_gone_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        here, there = await linked(stack, tmp_path)
        counts = Counts(ManualClock(), here)
        await there.close()
        here.drop(1)
        for number in range(8):
            assert await wait_s(counts, Rule((str(number),), rate=1, window_s=86_400)) == 0
