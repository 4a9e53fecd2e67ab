"""The invokers as their pings tell of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.bus.messages import Ping
    from visp.clock import Clock

SILENT_S = 10.0
"""An invoker that has not pinged for this long is taken for down."""

VIEW_S = 1.0
OWN_VIEW_S = 0.01
"""How old the view of an invoker may be that can be asked: the one in this process."""


class InvokerView(msgspec.Struct):
    """One invoker as placement sees it; changed by the fleet alone. `warm`: ids of actions with an idle container."""

    id: int
    memory_mb: int
    used_mb: int
    waiting: int
    is_up: bool
    warm: set[str] = msgspec.field(default_factory=set)


class Fleet:
    """Keeps the last ping of each invoker; as many entries as there are invokers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heard: dict[int, tuple[float, InvokerView]] = {}
        self._view: tuple[InvokerView, ...] = ()
        self._viewed_at_s = float("-inf")
        self._view_s = VIEW_S
        self._ask_own: Callable[[], Ping] | None = None
        self._own: int | None = None

    def heard(self, ping: Ping) -> None:
        view = InvokerView(ping.invoker, ping.memory_mb, ping.used_mb, ping.waiting, True, set(ping.warm))
        self._heard[ping.invoker] = (self._clock.monotonic_s(), view)
        self._viewed_at_s = float("-inf")

    def gone(self, invoker: int) -> None:
        """The invoker is known to be down."""
        if self._heard.pop(invoker, None) is not None:
            self._viewed_at_s = float("-inf")

    def ask(self, own: Callable[[], Ping]) -> None:
        """From now on the invoker of this process is asked, not waited for: it is where there is one of several."""
        self._ask_own = own
        self._view_s = OWN_VIEW_S

    def placed(self, invoker: int, action: str, memory_mb: int) -> None:
        """An activation goes to an invoker.

        Until its next ping tells more, memory for another container is counted as taken; an idle one too, but for the
        own invoker, which is asked so often that it is better believed to have more of them.
        """
        _, view = self._heard[invoker]
        if action in view.warm:
            if invoker != self._own:
                view.warm.discard(action)
        elif view.memory_mb - view.used_mb >= memory_mb:
            view.used_mb += memory_mb
        else:
            view.waiting += 1

    def view(self) -> tuple[InvokerView, ...]:
        """All invokers, by id.

        Made again when a ping was heard, and at least each second: the warm path asks for each activation.
        """
        now_s = self._clock.monotonic_s()
        if now_s - self._viewed_at_s > self._view_s:
            if self._ask_own is not None:
                ping = self._ask_own()
                self._own = ping.invoker
                self.heard(ping)
            self._viewed_at_s = now_s
            for at_s, view in self._heard.values():
                view.is_up = now_s - at_s < SILENT_S
            self._view = tuple(view for _, (_, view) in sorted(self._heard.items()))
        return self._view
