"""How fast what is in flight comes to its end: when it is worth asking again. One counter on the warm path."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from visp.clock import Clock


class Drain:
    """Counts ends; `ended` is raised by its owner."""

    __slots__ = ("_clock", "_marked", "_marked_s", "_rate", "ended")

    SHORTEST_S: Final = 1
    LONGEST_S: Final = 60
    PART: Final = 0.05
    """Who was refused may come back when so much of the queue is worked off: not all of them for one free place."""
    WINDOW_S: Final = 1.0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._marked = self.ended = 0
        self._marked_s = clock.monotonic_s()
        self._rate = 0.0

    def retry_after_s(self, in_flight: int) -> int:
        """In whole seconds, by the rate since this was last asked, or of the second before."""
        now_s = self._clock.monotonic_s()
        passed_s = now_s - self._marked_s
        if passed_s >= self.WINDOW_S:
            self._rate = (self.ended - self._marked) / passed_s
            self._marked, self._marked_s = self.ended, now_s
        if self._rate == 0:
            return self.LONGEST_S if passed_s >= self.WINDOW_S else self.SHORTEST_S
        wait_s = math.ceil(in_flight * self.PART / self._rate)
        return min(self.LONGEST_S, max(self.SHORTEST_S, wait_s))
