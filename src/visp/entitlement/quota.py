"""How often the gateway lets an API be called: a pace, and counted windows.

Source of the pace: OpenWhisk's gateway, which counts nothing: a call within `interval / rate` of the last one that was
let through is refused. Both tables are bounded: when one is full the entries that have run out go, then the oldest.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from visp.clock import Clock

Key = tuple[str, ...]
K = TypeVar("K")
V = TypeVar("V")

KEYS_LIMIT = 100_000
SWEPT_PART = 10


class Pace:
    """When each key was let through last."""

    def __init__(self, clock: Clock, limit: int = KEYS_LIMIT) -> None:
        self._clock = clock
        self._limit = limit
        self._free_at_ms: dict[Key, int] = {}

    def wait_ms(self, key: Key, gap_ms: int) -> int:
        """0 for a call that is let through; else how long to wait."""
        now_ms = self._clock.now_ms()
        left_ms = self._free_at_ms.get(key, 0) - now_ms
        if 0 < left_ms <= gap_ms:  # more can only be a clock that was set back
            return left_ms
        self._free_at_ms.pop(key, None)
        if len(self._free_at_ms) >= self._limit:
            _make_room(self._free_at_ms, {key: at for key, at in self._free_at_ms.items() if at > now_ms})
        self._free_at_ms[key] = now_ms + gap_ms
        return 0


class Window:
    """How often each key was counted in the window that is open: windows are cut from the wall clock."""

    def __init__(self, clock: Clock, limit: int = KEYS_LIMIT) -> None:
        self._clock = clock
        self._limit = limit
        self._counts: dict[tuple[Key, int], tuple[int, int]] = {}
        """By key and length of the window: which window, and how often."""

    def wait_s(self, key: Key, rate: int, window_s: int) -> int:
        """0 for a call that is let through, and counted; else in how many seconds the next window opens."""
        now_ms = self._clock.now_ms()
        window, place = now_ms // (window_s * 1000), (key, window_s)
        held = self._counts.pop(place, None)
        count = held[1] if held is not None and held[0] == window else 0
        if count >= rate:
            self._counts[place] = (window, count)
            return max(1, -(-((window + 1) * window_s * 1000 - now_ms) // 1000))
        if len(self._counts) >= self._limit:
            open_still = {at: held for at, held in self._counts.items() if held[0] == now_ms // (at[1] * 1000)}
            _make_room(self._counts, open_still)
        self._counts[place] = (window, count + 1)
        return 0


def _make_room(table: dict[K, V], wanted: dict[K, V]) -> None:
    """Leaves what is wanted still; where that is nearly all, a part of it, the oldest, goes too."""
    few = max(1, len(table) // SWEPT_PART)
    too_many = len(wanted) - (len(table) - few)
    table.clear()
    table.update(islice(wanted.items(), max(0, too_many), None))
