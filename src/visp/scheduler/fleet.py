"""The invokers as their pings tell of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from visp.bus.messages import Ping
    from visp.clock import Clock

SILENT_S = 10.0
"""An invoker that has not pinged for this long is taken for down."""

VIEW_S = 1.0


class InvokerView(msgspec.Struct, frozen=True):
    """One invoker as placement sees it."""

    id: int
    memory_mb: int
    used_mb: int
    waiting: int
    is_up: bool


class Fleet:
    """Keeps the last ping of each invoker; as many entries as there are invokers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pings: dict[int, tuple[float, Ping]] = {}
        self._view: tuple[InvokerView, ...] = ()
        self._viewed_at_s = float("-inf")

    def heard(self, ping: Ping) -> None:
        self._pings[ping.invoker] = (self._clock.monotonic_s(), ping)
        self._viewed_at_s = float("-inf")

    def view(self) -> tuple[InvokerView, ...]:
        """All invokers, by id.

        Made again when a ping was heard, and at least each second: the warm path asks for each activation.
        """
        now_s = self._clock.monotonic_s()
        if now_s - self._viewed_at_s > VIEW_S:
            self._viewed_at_s = now_s
            self._view = tuple(
                InvokerView(id, ping.memory_mb, ping.used_mb, ping.waiting, now_s - at_s < SILENT_S)
                for id, (at_s, ping) in sorted(self._pings.items())
            )
        return self._view
