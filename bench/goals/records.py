"""The store with a million records, beside one with a thousand: a get, a list, and what a write costs."""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from bench import profile, stock
from bench.goals import Goal
from bench.measure import Finding, ratio, spread
from visp.entity.subject import GUEST
from visp.store.base import ActivationQuery
from visp.store.index import SqliteActivations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from bench.rig import Rig

GOAL = Goal("records", "a store of 1,000,000 records: get, list, write")
GET_MS, LIST_MS, WRITE_US = 0.1, 0.5, 15.0
FEW = 1_000
GETS, LISTS = 500, 100
"""Of a round."""
LIST = ActivationQuery(namespace=GUEST, limit=30)


def measure(rig: Rig) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory(prefix="visp-bench-") as folder, profile.attached(os.getpid()):
        began_s = time.monotonic()
        gets, lists, write_us, few_write_us = uvloop.run(_measure(Path(folder), rig))
        took_s = time.monotonic() - began_s
        size_mb = sum(path.stat().st_size for path in Path(folder).glob("many.db*")) / (1 << 20)
    for what, (ours, floor), limit_ms in (
        ("get by id", gets, GET_MS),
        (f"list of {LIST.limit}", lists, LIST_MS),
    ):
        own = spread(ours)
        yield Finding(
            goal=GOAL.name,
            what=f"{what}, p50, of {rig.records:,}; floor: of {FEW:,}",
            unit="ms",
            ours=own,
            floor=spread(floor),
            ratio=ratio(ours, floor),
            promise=f"≤ {limit_ms} ms",
            is_met=own.median <= limit_ms,
        )
    yield Finding(
        goal=GOAL.name,
        what=f"CPU of a write, up to {rig.records:,}; floor: up to {FEW:,}",
        unit="µs",
        ours=spread([write_us]),
        floor=spread([few_write_us]),
        promise=f"≤ {WRITE_US:.0f} µs",
        is_met=write_us <= WRITE_US,
        note=f"built in {took_s:.0f} s, {size_mb:,.0f} MB",
    )


Sides = tuple[list[float], list[float]]


async def _measure(folder: Path, rig: Rig) -> tuple[Sides, Sides, float, float]:
    """The medians of rounds in milliseconds, of many records and of few; and the CPU of a write in microseconds."""
    many = await SqliteActivations.open(folder / "many.db")
    few = await SqliteActivations.open(folder / "few.db")
    try:
        few_write_us = await stock.put_records(few, FEW) / FEW * 1e6
        write_us = await stock.put_records(many, rig.records) / rig.records * 1e6
        many_ids, few_ids = [await _ids(store) for store in (many, few)]
        gets: Sides = ([], [])
        lists: Sides = ([], [])
        for _ in range(rig.rounds):
            for side, store, ids in ((0, many, many_ids), (1, few, few_ids)):
                gets[side].append(await _median_ms([partial(store.get, GUEST, id) for id in _some(ids, GETS)]))
                lists[side].append(await _median_ms([partial(store.list, LIST)] * LISTS))
    finally:
        await many.close()
        await few.close()
    return gets, lists, write_us, few_write_us


async def _ids(store: SqliteActivations) -> list[str]:
    """Ids from all over the store."""
    count = await store.count(LIST)
    pages = [ActivationQuery(namespace=GUEST, limit=200, skip=skip) for skip in range(0, count, max(200, count // 10))]
    return [record.head.id for page in pages for record in await store.list(page)]


def _some(ids: Sequence[str], count: int) -> list[str]:
    return random.Random(count).choices(ids, k=count)


async def _median_ms(calls: Sequence[Callable[[], Awaitable[object]]]) -> float:
    took_s: list[float] = []
    for call in calls:
        began_s = time.perf_counter()
        await call()
        took_s.append(time.perf_counter() - began_s)
    return statistics.median(took_s) * 1000
