"""Who runs a source in tests: keeps what it fires and its position, and crashes when it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from visp.clock import SystemClock
from visp.feed.base import BATCH_BYTES, EVENTS_MOST, Batch, FeedRefused, Made, Source

TIMEOUT_S = 60.0


class Crash(BaseException):
    """The process is gone: no handler of a source sees it as an error."""


class Watched:
    """`events` are fires by key, each once; `told` counts what was handed over again too."""

    def __init__(self, position: Any = None) -> None:
        self.clock = SystemClock()
        self.position = position.position if isinstance(position, Made) else position
        self.events: dict[str, Any] = {}
        self.told = 0
        self.lag: int | None = None
        self.crashes_between = False
        self._changed = asyncio.Event()
        self._fired = asyncio.Event()

    @property
    def bodies(self) -> list[Any]:
        return list(self.events.values())

    async def fire(self, batch: Batch) -> None:
        assert len(batch.events) <= EVENTS_MOST
        assert sum(len(event.body) for event in batch.events) <= BATCH_BYTES
        assert len({event.key for event in batch.events}) == len(batch.events)
        for event in batch.events:
            assert 0 < len(event.key) <= 200
            self.events.setdefault(event.key, json.loads(event.body))
            self.told += 1
        if self.crashes_between and batch.events:
            self.crashes_between = False
            raise Crash
        self.position = json.loads(json.dumps(batch.position))
        self._changed.set()
        self._fired.set()

    def live(self, *, lag: int | None = None, next_ms: int | None = None) -> None:
        self.lag = lag
        self._changed.set()

    async def run(self, source: Source, until: Callable[[Watched], bool]) -> None:
        """Runs a source until that is so, and ends it; what the source raises is raised."""
        running = asyncio.ensure_future(source.run(self, self.position))
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while not until(self):
                    self._changed.clear()
                    waiting = asyncio.ensure_future(self._changed.wait())
                    await asyncio.wait({waiting, running}, return_when=asyncio.FIRST_COMPLETED)
                    waiting.cancel()
                    if running.done():
                        running.result()
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError, Exception, Crash):
                await running

    async def has(self, events: int) -> None:
        """Beside a `run`: returns when so many were fired."""
        async with asyncio.timeout(TIMEOUT_S):
            while len(self.events) < events:
                await self._fired.wait()
                self._fired.clear()

    async def is_live(self, source: Source, then: Callable[[], Any]) -> None:
        """Runs a source until it is connected, then does that, and until something was fired."""
        running = asyncio.ensure_future(self.run(source, lambda watch: bool(watch.events)))
        async with asyncio.timeout(TIMEOUT_S):
            await self._changed.wait()
            await then()
            await running


class Near:
    """Loopback alone is reached."""

    async def check(self, host: str, port: int) -> Sequence[str]:
        if host in ("localhost", "127.0.0.1"):
            return ["127.0.0.1"]
        raise FeedRefused(f"{host} may not be reached.")

    def check_path(self, path: str) -> str:
        raise FeedRefused(path)
