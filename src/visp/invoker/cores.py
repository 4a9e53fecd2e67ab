"""Whether this machine has a core to spare."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visp.clock import Clock

WINDOW_S = 0.1
"""The kernel counts in hundredths of a second: a shorter window says nothing."""
SPARE = 0.10
"""A machine whose cores idle less than this part of the time has none to spare."""
STAT = "/proc/stat"


class Cores:
    """Reads the kernel's counters, no more than once a window. `count` are the cores that this process may use."""

    def __init__(self, clock: Clock, path: str = STAT) -> None:
        self.count = len(os.sched_getaffinity(0))
        self._clock = clock
        self._path = path
        self._looked_s = clock.monotonic_s()
        self._idle, self._all = self._read()
        self._is_busy = False

    def are_busy(self) -> bool:
        """In the latest window that is over; not, where that cannot be known."""
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_s >= WINDOW_S:
            idle, total = self._read()
            passed = total - self._all
            self._is_busy = passed > 0 and idle - self._idle < SPARE * passed
            self._looked_s, self._idle, self._all = now_s, idle, total
        return self._is_busy

    def _read(self) -> tuple[int, int]:
        """Hundredths of a second that all cores were idle, and all of them."""
        try:
            with open(self._path, "rb") as file:
                fields = [int(field) for field in file.readline().split()[1:9]]
        except (OSError, ValueError):
            return 0, 0
        return fields[3] + fields[4], sum(fields)
