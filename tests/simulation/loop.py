"""An event loop without time and without threads.

Time is a number: when nothing is ready it jumps to the next timer. What code gives to a thread runs inline, at a moment
of its own between others, in the order of its thread. Pipes are the kernel's own (they belong to one process, and so do
not wait for anybody); which of them is ready first is asked in the order in which they were registered.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import sys
import warnings
from asyncio import events
from collections.abc import Callable, Iterator
from typing import Any

MOST_AWAITS = 20


class Stuck(Exception):
    """Nothing is ready, nothing is scheduled, and somebody still waits."""


class Selector:
    """What the loop asks for events: the pipes as they are now, or else the clock moves on."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self._poll = select.poll()
        self.readers: dict[int, events.Handle] = {}
        self.writers: dict[int, events.Handle] = {}

    def select(self, timeout: float | None) -> list[events.Handle]:
        self._loop.on_step()
        if self.readers or self.writers:
            found = dict(self._poll.poll(0))
            if found:
                ready = [handle for fd, handle in self.readers.items() if found.get(fd, 0) & ~select.POLLOUT]
                ready += [handle for fd, handle in self.writers.items() if found.get(fd, 0) & ~select.POLLIN]
                if ready:
                    return ready
        if timeout is None:
            raise Stuck("everything waits for something that nobody will do")
        if timeout > 0:
            self._loop.now_s += timeout
        return []

    def update(self, fd: int) -> None:
        mask = (select.POLLIN if fd in self.readers else 0) | (select.POLLOUT if fd in self.writers else 0)
        if mask:
            self._poll.register(fd, mask)
        else:
            self._poll.unregister(fd)

    def close(self) -> None:
        self.readers.clear()
        self.writers.clear()


class SimLoop(asyncio.BaseEventLoop):
    """`on_step` is called before each turn; `delay` draws how long a thread takes, in seconds; `on_error` hears what
    nobody caught.
    """

    def __init__(
        self,
        now_s: float,
        on_step: Callable[[], None],
        delay: Callable[[], float],
        on_error: Callable[[dict[str, Any]], None],
    ) -> None:
        super().__init__()
        self.now_s = now_s
        self.on_step = on_step
        self._delay = delay
        self._selector = Selector(self)
        self._free_at_s: dict[object, float] = {}
        self.set_exception_handler(lambda _, context: on_error(context))

    def time(self) -> float:
        return self.now_s

    def _process_events(self, handles: list[events.Handle]) -> None:
        for handle in handles:
            if not handle.cancelled():
                self._ready.append(handle)

    def _write_to_self(self) -> None:
        """There is nobody who would have to be woken."""

    def add_reader(self, fd: int, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        self._watch(self._selector.readers, fd, callback, args)

    def add_writer(self, fd: int, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        self._watch(self._selector.writers, fd, callback, args)

    def remove_reader(self, fd: int) -> bool:  # type: ignore[override]
        return self._unwatch(self._selector.readers, fd)

    def remove_writer(self, fd: int) -> bool:  # type: ignore[override]
        return self._unwatch(self._selector.writers, fd)

    def _watch(self, table: dict[int, events.Handle], fd: int, callback: Callable[..., Any], args: Any) -> None:
        if (old := table.pop(fd, None)) is not None:
            old.cancel()
        table[fd] = events.Handle(callback, args, self, None)
        self._selector.update(fd)

    def _unwatch(self, table: dict[int, events.Handle], fd: int) -> bool:
        handle = table.pop(fd, None)
        if handle is None:
            return False
        handle.cancel()
        self._selector.update(fd)
        return True

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """The call happens somewhere in its time; that it did is known at the end of it."""
        future: asyncio.Future[Any] = self.create_future()
        begin_s = max(self.now_s, self._free_at_s.get(executor, 0.0)) + self._delay()
        end_s = begin_s + self._delay()
        if executor is not None:
            self._free_at_s[executor] = end_s
        self.call_at(begin_s, self._perform, future, end_s, func, args)
        return future

    def _perform(self, future: asyncio.Future[Any], end_s: float, func: Callable[..., Any], args: Any) -> None:
        result, error = None, None
        try:
            result = func(*args)
        except Exception as raised:
            error = raised
        self.call_at(end_s, _deliver, future, result, error)

    def close(self) -> None:
        self._selector.close()
        super().close()


def _deliver(future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


class Killed(SystemExit):
    """The process ends here: nothing of it goes on, not even what is to be tidied up. `is_power_cut`: the disk keeps
    what was synced, and of the rest what it likes.
    """

    def __init__(self, why: str, *, is_power_cut: bool) -> None:
        super().__init__(why)
        self.why = why
        self.is_power_cut = is_power_cut


class SimClock:
    """Monotonic time is the loop's; the wall clock is that, and what it was set to. The only state is `jumped_s`."""

    def __init__(self, epoch_s: float) -> None:
        self._epoch_s = epoch_s
        self.jumped_s = 0.0
        self.loop: SimLoop

    def now_ms(self) -> int:
        return self.now_ns() // 1_000_000

    def now_ns(self) -> int:
        return round((self._epoch_s + self.jumped_s + self.loop.now_s) * 1e9)

    def monotonic_s(self) -> float:
        return self.loop.now_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What the collector finds of a killed process complains to nobody."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.unraisablehook = hook


def bury(loop: SimLoop) -> None:
    """Ends what is left of a killed process: its coroutines are closed, so that none is awoken by the collector later.

    What they do in their `finally` meets a loop, a disk and pipes that are their own and dead.
    """
    loop.set_exception_handler(lambda *_: None)
    with quiet():
        for task in sorted(asyncio.all_tasks(loop), key=lambda task: int(task.get_name().rpartition("-")[2])):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine: Any = task.get_coro()
            for _ in range(MOST_AWAITS):  # what awaits in its `finally` ignores the first ones
                try:
                    coroutine.close()
                    break
                except BaseException:
                    continue
        loop._ready.clear()
        loop._scheduled.clear()
        loop.close()
