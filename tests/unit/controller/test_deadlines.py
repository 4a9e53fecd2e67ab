"""Waiters are called when their time is over, in order, and not when they were dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visp.clock import ManualClock
from visp.controller.deadlines import Deadlines

if TYPE_CHECKING:
    from collections.abc import Callable


class Loop:
    """Timers by the manual clock."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.timers: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []

    def call_later(self, delay_s: float, then: Callable[..., None], *values: Any) -> None:
        self.timers.append((self._clock.monotonic_s() + delay_s, then, values))

    def advance(self, seconds: float) -> None:
        self._clock.advance(seconds)
        due = [timer for timer in self.timers if timer[0] <= self._clock.monotonic_s()]
        self.timers = [timer for timer in self.timers if timer not in due]
        for _, then, values in due:
            then(*values)


def make() -> tuple[Loop, Deadlines, list[str]]:
    clock = ManualClock()
    loop = Loop(clock)
    return loop, Deadlines(loop, clock), []  # type: ignore[arg-type]


def test_each_is_called_at_its_time_and_once() -> None:
    loop, deadlines, called = make()
    deadlines.add("a", 10.0, lambda: called.append("a"))
    loop.advance(4.0)
    deadlines.add("b", 10.0, lambda: called.append("b"))
    deadlines.add("c", 1.0, lambda: called.append("c"))
    loop.advance(1.0)
    assert called == ["c"]
    loop.advance(5.0)
    assert called == ["c", "a"]
    loop.advance(4.0)
    assert called == ["c", "a", "b"]
    loop.advance(100.0)
    assert (called, len(deadlines), loop.timers) == (["c", "a", "b"], 0, [])


def test_who_is_dropped_is_not_called_and_not_kept() -> None:
    loop, deadlines, called = make()
    deadlines.add("a", 10.0, lambda: called.append("a"))
    deadlines.add("b", 10.0, lambda: called.append("b"))
    deadlines.drop("a", 10.0)
    assert len(deadlines) == 1
    loop.advance(10.0)
    deadlines.drop("b", 10.0)
    assert called == ["b"]


def test_many_that_wait_equally_long_share_one_timer() -> None:
    loop, deadlines, _ = make()
    for number in range(1_000):
        deadlines.add(str(number), 60.0, lambda: None)
    assert len(loop.timers) == 1


def test_everyone_s_time_may_be_over_at_once() -> None:
    loop, deadlines, called = make()
    deadlines.add("a", 10.0, lambda: called.append("a"))
    deadlines.add("b", 10.0, lambda: called.append("b"))
    deadlines.add("c", 1.0, lambda: called.append("c"))
    deadlines.expire()
    assert (called, len(deadlines)) == (["a", "b", "c"], 0)
    loop.advance(100.0)
    assert called == ["a", "b", "c"]
    deadlines.add("d", 10.0, lambda: called.append("d"))
    loop.advance(10.0)
    assert called == ["a", "b", "c", "d"]
