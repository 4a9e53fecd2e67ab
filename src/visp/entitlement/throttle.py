"""How much a namespace may ask: per minute, and at once.

Source: OpenWhisk's rate throttlers: a window of one wall-clock minute, each attempt counted even when it is refused,
the first counted as 1; and the activations in flight, counted until their logs are collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp import wording
from visp.errors import Throttled

if TYPE_CHECKING:
    from visp.clock import Clock
    from visp.entity.subject import Identity


MINUTE_MS = 60_000


def until_next_minute_s(now_ms: int) -> int:
    """Until counting begins anew, in whole seconds, one at least."""
    return (MINUTE_MS - now_ms % MINUTE_MS + 999) // 1000


class RateThrottle:
    """Attempts of each namespace in the current minute.

    The table is emptied when the minute changes, which bounds it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._minute = 0
        self._counts: dict[str, int] = {}

    def charge(self, namespace_uuid: str, limit: int) -> None:
        """Counts one attempt; raises `Throttled` beyond the limit."""
        now_ms = self._clock.now_ms()
        minute = now_ms // MINUTE_MS
        if minute != self._minute:
            self._minute = minute
            self._counts.clear()
        count = self._counts.get(namespace_uuid, 0) + 1
        self._counts[namespace_uuid] = count
        if count > limit:
            raise Throttled(wording.too_many_per_minute(count, limit), until_next_minute_s(now_ms))

    def lend(self, namespace_uuid: str, limit: int, wanted: int) -> tuple[int, int, int]:
        """Attempts for others to make: how many, in which minute, and how many are counted by then.

        A block is one percent of what is left, and at least what is wanted; none when nothing is left: then the
        attempts are refused, and counted.
        """
        minute = self._clock.now_ms() // MINUTE_MS
        if minute != self._minute:
            self._minute = minute
            self._counts.clear()
        count = self._counts.get(namespace_uuid, 0)
        lent = block(limit - count, wanted)
        self._counts[namespace_uuid] = count + (lent or wanted)
        return lent, minute, count + (lent or wanted)


def block(left: int, wanted: int) -> int:
    """How much of what is left is lent at once: what is wanted, or one percent where that is more."""
    return max(0, min(left, max(wanted, left // 100)))


class Throttle:
    """The three checks of a request that activates something."""

    def __init__(self, clock: Clock) -> None:
        self._invocations = RateThrottle(clock)
        self._fires = RateThrottle(clock)
        self._in_flight: dict[str, int] = {}

    def charge_invocation(self, identity: Identity) -> None:
        """Rate first, then concurrency; raises `Throttled`. `enter` counts what is then begun."""
        self._invocations.charge(identity.namespace_uuid, identity.limits.invocations_per_minute)
        in_flight = self._in_flight.get(identity.namespace_uuid, 0)
        if in_flight >= identity.limits.concurrent_invocations:
            raise Throttled(wording.too_many_in_flight(in_flight, identity.limits.concurrent_invocations))

    def charge_fire(self, identity: Identity) -> None:
        """Raises `Throttled`."""
        self._fires.charge(identity.namespace_uuid, identity.limits.fires_per_minute)

    def enter(self, namespace_uuid: str) -> None:
        """One more activation of the namespace is in flight."""
        self._in_flight[namespace_uuid] = self._in_flight.get(namespace_uuid, 0) + 1

    def leave(self, namespace_uuid: str) -> None:
        left = self._in_flight[namespace_uuid] - 1
        if left:
            self._in_flight[namespace_uuid] = left
        else:
            del self._in_flight[namespace_uuid]

    def in_flight(self, namespace_uuid: str) -> int:
        return self._in_flight.get(namespace_uuid, 0)

    # ── where counts may lie elsewhere (`leases.py`) ────────────────────────────────────────────────────────────

    is_shared = False
    """Whether the counts of a namespace may lie in another process."""

    def reserve(self, identity: Identity, invocations: int, fires: int = 0) -> bool:
        """Keeps for one request what it will charge; false when that must be obtained first."""
        return True

    async def obtain(self, identity: Identity, invocations: int, fires: int = 0) -> None:
        """Brings here, and reserves, what a request will charge.

        What there is none of is left to the charge to refuse.
        """
