"""Cells kept ready: how many is decided purely, by what was taken of late; they are made off the path of a start."""

from __future__ import annotations

import asyncio
import collections
from typing import TYPE_CHECKING

from visp.errors import StartFailed
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from visp.container.template import Blank

PERIOD_S = 1.0
AT_ONCE = 16
"""As many are made at once: joining groups waits for the kernel, and those who wait together wait once."""
START_S = 0.05
FALL = 4
"""What is kept too much falls by this part in each period."""


def after_period(kept: int, taken: int, least: int, most: int) -> int:
    """How many to keep, after a period in which `taken` were taken while `kept` were kept."""
    demand = min(most, max(least, taken))
    return max(demand, kept - max(1, (kept - demand) // FALL))


def after_lack(kept: int, most: int) -> int:
    """How many to keep, once one was asked for and there was none."""
    return min(most, max(1, 2 * kept))


class Blanks:
    """The blank cells of one template."""

    def __init__(
        self,
        make: Callable[[], Awaitable[Blank]],
        drop: Callable[[Blank], Awaitable[None]],
        *,
        least: int,
        most: int,
    ) -> None:
        self._make = make
        self._drop = drop
        self._least, self._most = least, max(least, most)
        self._kept = least
        self._taken = 0
        self._ready: collections.deque[Blank] = collections.deque()
        self._waiting: collections.deque[asyncio.Future[Blank]] = collections.deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._making = 0
        self._timer: asyncio.TimerHandle | None = None
        self._refill: asyncio.TimerHandle | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Blanks kept={self._kept} ready={len(self._ready)} making={self._making} wait={len(self._waiting)}>"

    def _fill_soon(self) -> None:
        """Once the start that was just served is likely to be over, for it needs the cores; at once if few are left."""
        if 2 * len(self._ready) < self._kept:
            self.fill()
        elif self._refill is None:
            self._refill = asyncio.get_running_loop().call_later(START_S, self._fill_later)

    def _fill_later(self) -> None:
        self._refill = None
        if not self._is_closed:
            self.fill()

    def fill(self) -> None:
        """Begins to make what lacks."""
        while (
            not self._is_closed
            and self._making < AT_ONCE
            and len(self._ready) + self._making < self._kept + len(self._waiting)
        ):
            self._making += 1
            self._run(self._add())

    @property
    def has_ready(self) -> bool:
        """Whether one could be taken at once."""
        return bool(self._ready)

    async def take(self) -> Blank:
        """A blank cell; where none is ready it waits for one of its own. Raises `StartFailed`."""
        if self._is_closed:
            raise StartFailed("the driver is closing")
        self._taken += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PERIOD_S, self._end_period)
        while self._ready:
            blank = self._ready.popleft()
            if not blank.process.exited.done():
                self._fill_soon()
                return blank
            self._run(self._drop(blank))
        self._kept = after_lack(self._kept, self._most) if self._least else 0
        waiting: asyncio.Future[Blank] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self.fill()
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            elif waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                self._run(self._drop(waiting.result()))
            raise

    async def _add(self) -> None:
        try:
            blank = await self._make()
        except StartFailed as error:
            self._making -= 1
            self._refuse(error)
            return
        except BaseException:
            self._making -= 1
            raise
        self._making -= 1
        if self._is_closed:
            await self._drop(blank)
            return
        waiting = self._next_waiting()
        if waiting is not None:
            waiting.set_result(blank)
        else:
            self._ready.append(blank)
        self.fill()

    def _refuse(self, error: StartFailed) -> None:
        """One that waits is told, for the others it is tried again; what nobody waits for is, at the next take."""
        waiting = self._next_waiting()
        if waiting is None:
            log.warning("template.no_cell", reason=str(error))
            return
        waiting.set_exception(error)
        if self._waiting:
            self.fill()

    def _next_waiting(self) -> asyncio.Future[Blank] | None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                return waiting
        return None

    def _end_period(self) -> None:
        self._kept = after_period(self._kept, self._taken, self._least, self._most) if self._least else 0
        is_calm = self._taken == 0 and self._kept == self._least
        self._taken = 0
        while len(self._ready) > self._kept:
            self._run(self._drop(self._ready.popleft()))
        self.fill()
        self._timer = None if is_calm else asyncio.get_running_loop().call_later(PERIOD_S, self._end_period)

    def _run(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Ends those that are ready, and waits for what is under way."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._refill is not None:
            self._refill.cancel()
        while (waiting := self._next_waiting()) is not None:
            waiting.set_exception(StartFailed("the driver is closing"))
        while self._ready:
            self._run(self._drop(self._ready.popleft()))
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
