"""Deadlines of many waiters with few timers: all that wait equally long share one.

An event loop's timer costs more than the rest of a waiter, and nearly all of them are cancelled. Those that wait
equally long are due in the order in which they began, so one timer for the first of them is enough.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from visp.clock import Clock


class Deadlines:
    """Calls each waiter's function once its time is over, unless it was dropped before."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._lines: dict[float, OrderedDict[str, tuple[float, Callable[[], None]]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def add(self, id: str, wait_s: float, then: Callable[[], None]) -> None:
        """`then` is called after `wait_s`; `id` is not waiting with the same length yet."""
        line = self._lines.get(wait_s)
        if line is None:
            line = self._lines[wait_s] = OrderedDict()
            self._loop.call_later(wait_s, self._due, wait_s)
        line[id] = (self._clock.monotonic_s() + wait_s, then)

    def drop(self, id: str, wait_s: float) -> None:
        """Forgets a waiter, if it still waits."""
        line = self._lines.get(wait_s)
        if line is not None:
            line.pop(id, None)

    def expire(self) -> None:
        """The time of everyone who waits is over now."""
        for line in list(self._lines.values()):
            while line:
                _, (_, then) = line.popitem(last=False)
                then()

    def _due(self, wait_s: float) -> None:
        line = self._lines[wait_s]
        now_s = self._clock.monotonic_s()
        while line:
            id, (due_s, then) = next(iter(line.items()))
            if due_s > now_s:
                self._loop.call_later(due_s - now_s, self._due, wait_s)
                return
            del line[id]
            then()
        del self._lines[wait_s]
