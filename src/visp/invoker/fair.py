"""Whose turn it is: what namespaces owe one another for the memory they hold, and how long. Pure.

Two rules. *Order*: while activations wait, each run is charged to its namespace as memory × time, and who was charged
least is served first (start-time fair queueing: a namespace that comes back begins where the others are, its idleness
earns nothing). *Holdings*: a container is taken from another namespace only if the taker then holds no more than the
giver keeps, so that whoever calls now and then does not lose a warm container to a flood.
"""

from __future__ import annotations

LIMIT = 10_000
"""Namespaces whose account is kept; beyond it, those whose turn is past are forgotten."""


class Accounts:
    """Memory × time charged to each namespace, in MB s."""

    __slots__ = ("_now", "_turns")

    def __init__(self) -> None:
        self._turns: dict[str, float] = {}
        self._now = 0.0
        """The turn of who was served last: where a namespace begins that comes (back)."""

    def arrive(self, namespace: str) -> None:
        """Its first activation begins to wait: its turn is no earlier than now, and stays until it is served."""
        if namespace not in self._turns and len(self._turns) >= LIMIT:
            self._turns = {name: turn for name, turn in self._turns.items() if turn > self._now}
            if len(self._turns) >= LIMIT:
                self._turns.clear()
        self._turns[namespace] = self.turn(namespace)

    def charge(self, namespace: str, memory_mb: int, seconds: float) -> None:
        """A run begins that is expected to hold so much memory for so long, while others wait."""
        if namespace not in self._turns:
            self.arrive(namespace)
        began = self._turns[namespace]
        self._now = max(self._now, began)
        self._turns[namespace] = began + memory_mb * seconds

    def turn(self, namespace: str) -> float:
        """The lower, the sooner it is served. Of one that does not wait: where it would begin."""
        return max(self._now, self._turns.get(namespace, 0.0))

    def waiting_turn(self, namespace: str) -> float:
        """The turn of a namespace that waits: others may have passed it meanwhile."""
        return self._turns.get(namespace, self._now)


def may_evict(memory_mb: int, taker_mb: int, giver_mb: int) -> bool:
    """Whether a namespace that holds `taker_mb` may have an idle, lately used container of one that holds `giver_mb`.

    It then holds no more than the giver did: so a newcomer always gets its first.
    """
    return taker_mb + memory_mb <= giver_mb


def gives_way(memory_mb: int, taker_mb: int, given_mb: int, giver_mb: int) -> bool:
    """Whether a container with work of its own waiting is removed, because another namespace holds so much less."""
    return taker_mb + memory_mb <= giver_mb - given_mb
