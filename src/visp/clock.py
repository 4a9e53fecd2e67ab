"""The only place that asks what time it is."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, monotonic time for waiting."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, as records show them."""
        ...

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, as log lines show them."""
        ...

    def monotonic_s(self) -> float:
        """Seconds of a clock that never goes back; its zero means nothing. Equal to the event loop's time."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Returns when that much of the monotonic time has passed."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    now_ns = staticmethod(time.time_ns)
    monotonic_s = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that moves only when told to; sleepers wake in `advance`."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ns = now_ms * 1_000_000
        self._monotonic_s = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        return self._now_ns // 1_000_000

    def now_ns(self) -> int:
        return self._now_ns

    def monotonic_s(self) -> float:
        return self._monotonic_s

    async def sleep(self, seconds: float) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._monotonic_s + seconds, waiter))
        await waiter

    def advance(self, seconds: float) -> None:
        """Moves both clocks forward and wakes who has slept enough."""
        self._monotonic_s += seconds
        self._now_ns += round(seconds * 1e9)
        due = [entry for entry in self._sleepers if entry[0] <= self._monotonic_s]
        self._sleepers = [entry for entry in self._sleepers if entry[0] > self._monotonic_s]
        for _, waiter in sorted(due, key=lambda entry: entry[0]):
            if not waiter.done():
                waiter.set_result(None)
