"""How long idle containers stay, which of them gives way first, and when one should be there again. Pure.

Idle containers are a cache of cold starts: what a container is worth while it waits is how often its action is used
times what a start would cost, for each megabyte that it holds. That is Greedy-Dual-Size-Frequency, which FaasCache
(ASPLOS 2021) brought to functions. How long an action usually pauses is kept as a histogram, after "Serverless in the
Wild" (ATC 2020): from it follows, for actions that come at regular times, when to have a started container at hand
instead of keeping one.

The server uses `POLICIES["greedy-dual"]`; the others are what it is compared with in the simulator.
"""

from __future__ import annotations

import math
from array import array
from typing import Final, Protocol

from visp.invoker.job import Cold

FIXED_S = 600.0
"""OpenWhisk's time-out for idle containers (`idle-container`, ten minutes)."""
LINGER_S = 10.0
"""How long it stays where the next use is foretold: an answer is often followed by another call."""
EARLY_S = 60.0
"""An action that pauses longer than this, and regularly, gives its memory back and is expected instead."""
SEEN_PAUSES = 8
"""Pauses that must have been seen before the histogram has a say."""
HEAD, TAIL = 0.05, 0.99
"""The quantiles between which the next use is expected (Serverless in the Wild, section 4.2)."""
MARGIN = 1.1
"""How much longer than the tail, or earlier than the head, is waited or prepared: both are edges of bins."""
REGULAR = 2.0
"""A tail of at most this many times the head is a narrow histogram: the next use can be foretold."""
COLD_S = 0.1
"""What a start is taken to cost while none was measured."""
RATE_S = 1.0
HALF_LIFE_S = 300.0
"""After this long, a use counts half in an action's frequency."""


class Pauses:
    """A histogram of the pauses between an action's uses: eight bins an octave, from 1 s to 4.5 h.

    Shorter ones do not count: no container is removed within a second. At `LIMIT` entries all counts are halved, so
    that what an action did long ago is forgotten.
    """

    __slots__ = ("_counts", "total")

    SHORTEST_S: Final = 1.0
    BINS_AN_OCTAVE: Final = 8
    BINS: Final = 14 * BINS_AN_OCTAVE + 1
    LIMIT: Final = 256

    def __init__(self) -> None:
        self._counts = array("H")
        """Made at the first pause: most actions are used once or never."""
        self.total = 0

    def add(self, pause_s: float) -> None:
        if pause_s < self.SHORTEST_S:
            return
        counts = self._counts
        if not counts:
            counts.frombytes(bytes(self.BINS * counts.itemsize))
        counts[min(self.BINS - 1, int(math.log2(pause_s) * self.BINS_AN_OCTAVE))] += 1
        self.total += 1
        if self.total >= self.LIMIT:
            for bin, count in enumerate(counts):
                counts[bin] = count >> 1
            self.total = sum(counts)

    def bounds_s(self, low: float, high: float) -> tuple[float, float]:
        """Between what two pauses the uses from quantile `low` to `high` lie: edges of bins. At least one was seen."""
        first = last = -1
        seen = 0
        for bin, count in enumerate(self._counts):
            seen += count
            if first < 0 and seen > low * self.total:
                first = bin
            if count and seen >= high * self.total:
                last = bin
                break
        return 2.0 ** (first / self.BINS_AN_OCTAVE), 2.0 ** ((last + 1) / self.BINS_AN_OCTAVE)


class Usage:
    """What is known of how one namespace uses one action. Owned and changed by the pool.

    `uses` counts its runs; `service_s` is how long a run takes and `cold_s` a start (smoothed; None: not seen yet);
    `last_s` is when a container of it was last idle when it went, `gone` why it went, and `revision` the one that it
    was made for.
    """

    __slots__ = (
        "_counted",
        "_marked",
        "_marked_s",
        "_rate",
        "_recent",
        "_recent_s",
        "cold_s",
        "gone",
        "last_s",
        "pauses",
        "revision",
        "service_s",
        "uses",
    )

    SMOOTHING: Final = 0.2
    FALLING: Final = 0.5
    """An action's first runs are its slowest; who judges them too short is set right by those that wait too long."""

    def __init__(self, now_s: float) -> None:
        self.uses = 0
        self.service_s: float | None = None
        self.cold_s: float | None = None
        self.last_s = now_s
        self.gone = Cold.FIRST_USE
        self.revision: int | None = None
        self.pauses = Pauses()
        self._recent = 0.0
        self._recent_s = now_s
        self._counted = 0
        self._rate = 0.0
        self._marked = 0
        self._marked_s = now_s

    def served(self, service_s: float) -> None:
        old = self.service_s
        if old is None:
            self.service_s = service_s
        else:
            self.service_s = old + (self.FALLING if service_s < old else self.SMOOTHING) * (service_s - old)

    def started(self, cold_s: float) -> None:
        old = self.cold_s
        self.cold_s = cold_s if old is None else old + self.SMOOTHING * (cold_s - old)

    def frequency(self, now_s: float) -> float:
        """Its uses, the older the less; at least 1, for what is looked at was used."""
        if self._recent <= 1.0 and self.uses == self._counted:
            return 1.0
        if now_s > self._recent_s:
            self._recent *= 0.5 ** ((now_s - self._recent_s) / HALF_LIFE_S)
            self._recent_s = now_s
        self._recent += self.uses - self._counted
        self._counted = self.uses
        return max(1.0, self._recent)

    def arrivals(self, waiting: int, now_s: float) -> float:
        """How many runs are asked for in a second, measured over one second at least; `waiting` have not begun."""
        asked, passed_s = self.uses + waiting - self._marked, now_s - self._marked_s
        if passed_s < RATE_S:
            return self._rate
        self._rate = asked / passed_s
        self._marked, self._marked_s = self.uses + waiting, now_s
        return self._rate

    def why_cold(self, revision: int, *, is_busy: bool) -> Cold:
        """Why there is no warm container for a run; `is_busy`: others of its kind run."""
        if self.revision is None:
            return Cold.FIRST_USE
        if self.revision != revision:
            return Cold.NEW_REVISION
        return Cold.ALL_BUSY if is_busy else self.gone


class Policy(Protocol):
    """How idle containers are kept."""

    @property
    def name(self) -> str: ...

    def priority(self, usage: Usage, memory_mb: int, age: float, idle_since_s: float, now_s: float) -> float:
        """The worth of an idle container: the lowest gives way first.

        `age` is the priority that the last evicted container had when this one was last used (0 at first): what is
        used after that is worth more than what was not.
        """
        ...

    def keep_s(self, usage: Usage, longest_s: float) -> float:
        """How long a container stays idle at most, `longest_s` included."""
        ...

    def expected_s(self, usage: Usage) -> tuple[float, float] | None:
        """From when until when after its last use the next one is expected; None: it cannot be foretold.

        Meanwhile a started container should be at hand.
        """
        ...


class GreedyDual:
    name = "greedy-dual"

    def priority(self, usage: Usage, memory_mb: int, age: float, idle_since_s: float, now_s: float) -> float:
        cold_s = COLD_S if usage.cold_s is None else usage.cold_s
        return age + usage.frequency(now_s) * cold_s / memory_mb

    def keep_s(self, usage: Usage, longest_s: float) -> float:
        """Shorter only for what is foretold.

        A tail of ordinary pauses is no reason to give memory back: the containers that a burst needed beside the first
        wait much longer for the next one, and what they hold is anyone's who asks for it.
        """
        return longest_s if self.expected_s(usage) is None else min(LINGER_S, longest_s)

    def expected_s(self, usage: Usage) -> tuple[float, float] | None:
        if usage.pauses.total < SEEN_PAUSES:
            return None
        head_s, tail_s = usage.pauses.bounds_s(HEAD, TAIL)
        return (head_s / MARGIN, tail_s * MARGIN) if _is_foretold(head_s, tail_s) else None


class Timeout:
    """OpenWhisk's: ten minutes at most, and the longest idle gives way first."""

    name = "timeout"

    def priority(self, usage: Usage, memory_mb: int, age: float, idle_since_s: float, now_s: float) -> float:
        return idle_since_s

    def keep_s(self, usage: Usage, longest_s: float) -> float:
        return min(FIXED_S, longest_s)

    def expected_s(self, usage: Usage) -> tuple[float, float] | None:
        return None


class LeastRecent(Timeout):
    """A cache without a clock: only memory that is needed elsewhere ends a container."""

    name = "lru"

    def keep_s(self, usage: Usage, longest_s: float) -> float:
        return math.inf


def _is_foretold(head_s: float, tail_s: float) -> bool:
    return head_s >= EARLY_S and tail_s <= head_s * REGULAR


POLICIES: dict[str, Policy] = {policy.name: policy for policy in (GreedyDual(), Timeout(), LeastRecent())}
