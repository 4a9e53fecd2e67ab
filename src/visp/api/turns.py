"""Whose request begins next, when more are ready at once than one turn of the loop should hold.

A tenant with many connections has a request ready on each of them in the same turn. Served as they come, they keep
another tenant's single request waiting until the last one is done, and its answer again. So where several tenants are
there, a turn begins a few requests of each, and the rest wait in their tenant's own queue for the turns that follow:
between them the loop looks for what is new.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

AT_ONCE = 4
"""Requests of one namespace in one turn: about a third of a millisecond."""
SHARED_S = 1.0
"""So long after the last change from one namespace to another there is more than one; alone, none is kept waiting."""


class Turns:
    """The queues of requests that wait to begin. A connection has one at most, so connections bound them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queues: dict[str, deque[Callable[[], None]]] = {}
        self._begun: dict[str, int] = {}
        self._turn_s = 0.0
        self._met_s = 0.0
        self._is_due = False
        self.latest = ""
        """The namespace whose request came last."""
        self.is_shared = False

    def meet(self, namespace: str) -> None:
        """A request of another namespace than the `latest`."""
        if self.latest and not self.is_shared:
            self.is_shared = True
            self._loop.call_later(SHARED_S, self._look_again)
        self.latest = namespace
        self._met_s = self._loop.time()

    def _look_again(self) -> None:
        left_s = self._met_s + SHARED_S - self._loop.time()
        if left_s > 0:
            self._loop.call_later(left_s, self._look_again)
        else:
            self.is_shared = False

    def may_begin(self, namespace: str) -> bool:
        """Whether one more request of the namespace may begin in this turn; it counts as begun then."""
        now_s = self._loop.time()  # the loop's own, which stands still for a turn
        if now_s != self._turn_s:
            self._turn_s = now_s
            self._begun.clear()
        begun = self._begun.get(namespace, 0)
        if begun >= AT_ONCE or namespace in self._queues:
            return False
        self._begun[namespace] = begun + 1
        return True

    def wait(self, namespace: str, begin: Callable[[], None]) -> None:
        """Calls `begin` in one of the next turns, in the order of the namespace's requests."""
        self._queues.setdefault(namespace, deque()).append(begin)
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        for namespace, queue in list(self._queues.items()):
            for _ in range(min(AT_ONCE, len(queue))):
                queue.popleft()()
            if not queue:
                del self._queues[namespace]
        self._is_due = bool(self._queues)
        if self._is_due:
            self._loop.call_soon(self._take_turn)
