"""Placement over thousands of invokers: `scheduler.placement`, and what it asks for without a look at them all."""

from __future__ import annotations

import heapq
from array import array
from typing import TYPE_CHECKING

from visp.scheduler.placement import Seen, choose, home_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from visp.sim.fleet import Invoker
    from visp.sim.workload import Actions

HEAP_PARTS = 4
"""Entries of a heap for each invoker, some out of date, before it is made anew."""


class Placing:
    """Remembers homes, which never change here, and who is emptiest. It is told when someone may have become so."""

    def __init__(self, invokers: Sequence[Invoker], actions: Actions) -> None:
        self._invokers = invokers
        self._actions = actions
        self._ids = range(len(invokers))
        self._homes = array("i", [-1]) * len(actions)
        self._roomiest = [(invoker.used_mb - invoker.memory_mb, invoker.id) for invoker in invokers]
        """A heap by free memory, which may say too much of one, never too little."""
        self._calmest = [(len(invoker.waiting), invoker.id) for invoker in invokers]
        """A heap by how many wait, which may say too few of one, never too many."""

    def place(self, action: int, memory_mb: int) -> Invoker:
        """The invoker that runs an invocation of the action now."""
        home = self._homes[action]
        if home < 0:
            namespace = self._actions.namespace_of(action)
            home = self._homes[action] = home_of(self._ids, namespace, self._actions.name_of(action))
        invoker = self._invokers[home]
        seen = Seen(home, action in invoker.ready, invoker.memory_mb - invoker.used_mb)
        return self._invokers[choose(memory_mb, None, seen, self._most_room, lambda: self._fewest_wait(invoker))]

    def has_more_room(self, invoker: Invoker) -> None:
        heapq.heappush(self._roomiest, (invoker.used_mb - invoker.memory_mb, invoker.id))
        if len(self._roomiest) > HEAP_PARTS * (len(self._invokers) + 1):
            self._roomiest = [(one.used_mb - one.memory_mb, one.id) for one in self._invokers]
            heapq.heapify(self._roomiest)

    def fewer_wait(self, invoker: Invoker) -> None:
        heapq.heappush(self._calmest, (len(invoker.waiting), invoker.id))
        if len(self._calmest) > HEAP_PARTS * (len(self._invokers) + 1):
            self._calmest = [(len(one.waiting), one.id) for one in self._invokers]
            heapq.heapify(self._calmest)

    def _most_room(self) -> Seen:
        heap = self._roomiest
        while True:
            stated, id = heap[0]
            free_mb = self._invokers[id].memory_mb - self._invokers[id].used_mb
            if free_mb == -stated:
                return Seen(id, False, free_mb)
            heapq.heapreplace(heap, (-free_mb, id))

    def _fewest_wait(self, home: Invoker) -> int:
        waiting = len(home.waiting)
        heap = self._calmest
        while waiting:
            stated, id = heap[0]
            count = len(self._invokers[id].waiting)
            if count == stated:
                return id if count < waiting else home.id
            heapq.heapreplace(heap, (count, id))
        return home.id
