"""What sources are run against: watches that collect, and a reach that lets loopback in."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from visp.clock import Clock, ManualClock, SystemClock
from visp.feed.base import BATCH_BYTES, EVENTS_MOST, Batch, FeedRefused, Made, Source

PATIENCE_S = 20.0


class Watching:
    """A watch that keeps what it is given, by a clock that moves when told to, or the machine's.

    `crash_at`: the fire of that number, from 1, is done but its position is not kept, and the source hears of a crash.
    """

    def __init__(self, clock: Clock | None = None, position: Any = None, crash_at: int | None = None) -> None:
        self.clock: Clock = clock or ManualClock()
        self.batches: list[Batch] = []
        self.position = position.position if isinstance(position, Made) else position
        self.lived: list[tuple[int | None, int | None]] = []
        self._crash_at = crash_at
        self._told = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def fire(self, batch: Batch) -> None:
        assert len(batch.events) <= EVENTS_MOST
        assert len(batch.events) <= 1 or sum(len(event.body) for event in batch.events) <= BATCH_BYTES
        assert all(len(event.key) <= 200 for event in batch.events)
        assert all(isinstance(json.loads(event.body), dict) for event in batch.events)
        json.dumps(batch.position)
        self.batches.append(batch)
        self._told.set()
        if len(self.batches) == self._crash_at:
            raise Crashed
        self.position = batch.position

    def live(self, *, lag: int | None = None, next_ms: int | None = None) -> None:
        self.lived.append((lag, next_ms))
        self._told.set()

    @property
    def keys(self) -> list[str]:
        return [event.key for batch in self.batches for event in batch.events]

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(event.body) for batch in self.batches for event in batch.events]

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Returns when the source has brought it about."""
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():
                if self.task is not None and self.task.done():
                    self.task.result()
                self._told.clear()
                await self._told.wait()

    async def events(self, number: int) -> list[Any]:
        """The bodies, when there are so many."""
        await self.until(lambda: len(self.keys) >= number)
        return self.bodies


class Crashed(Exception):
    """Between a fire and its position."""


class Loopback:
    """A reach that has nothing but this machine, and one folder."""

    def __init__(self, root: Path | None = None) -> None:
        self.asked: list[tuple[str, int]] = []
        self._root = root

    async def check(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        if host not in ("127.0.0.1", "localhost"):
            raise FeedRefused(f"{host} may not be reached", 403)
        return ["127.0.0.1"]

    def check_path(self, path: str) -> str:
        real = Path(path).resolve()
        if self._root is None or not real.is_relative_to(self._root.resolve()):
            raise FeedRefused(f"{path} may not be watched", 403)
        return str(real)


@contextlib.asynccontextmanager
async def running(source: Source, watch: Watching, position: Any = None) -> AsyncIterator[asyncio.Task[None]]:
    """The source runs in the block, from the watch's position or the one that is given."""
    if position is not None:
        watch.position = position.position if isinstance(position, Made) else position
    task = asyncio.create_task(source.run(watch, watch.position))
    watch.task = task
    task.add_done_callback(lambda _: watch._told.set())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


async def turns(number: int = 5) -> None:
    """Lets whoever is ready run."""
    for _ in range(number):
        await asyncio.sleep(0)


def system_watch(position: Any = None, crash_at: int | None = None) -> Watching:
    return Watching(SystemClock(), position, crash_at)
