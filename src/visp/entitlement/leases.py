"""The throttle of a server of several shards: counts live in the namespace's home shard, which lends them.

Attempts are lent for the minute, places in flight until they are given back. A block is at most one percent of what is
left and at least what is asked for, so that a small limit is exact: of the last hundred each one is asked for. The home
shard counts its own requests directly.

A request is charged from what was reserved for it: at once, if enough is at hand, else after `obtain`. What was
reserved in one minute may be charged in the next, for the minute ends between the two now and then; what is never
charged is forgotten with that. When a home shard is restarted, the minute begins again with
nothing counted, and what is in flight is told to it by the others.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from typing import TYPE_CHECKING, Protocol

import msgspec

from visp import wording
from visp.entitlement.throttle import Throttle, block, until_next_minute_s
from visp.errors import Throttled

if TYPE_CHECKING:
    from visp.clock import Clock
    from visp.entity.subject import Identity

INVOCATIONS, FIRES, PLACES = range(3)
KEPT_S = 1.0
"""How long a place is kept for a request that was charged: if nothing has begun by then, it was refused later on."""
HOMES_LIMIT = 10_000
"""Namespaces whose home is remembered; it is quickly found again."""


class Wanted(msgspec.Struct, frozen=True, array_like=True):
    """So many attempts of a kind, or places in flight, of a namespace with this limit."""

    kind: int
    namespace_uuid: str
    limit: int
    count: int


class Lent(msgspec.Struct, frozen=True, array_like=True):
    """How many were lent, for which minute, and how many are counted by now."""

    count: int
    minute: int
    counted: int


class Lender(Protocol):
    """The way to the home shards."""

    async def lend(self, home: int, wanted: Wanted) -> Lent:
        """Raises `ServiceError` when the home shard does not answer."""
        ...

    def settle(self, home: int, namespace_uuid: str, places: int) -> None:
        """Gives places in flight back; with a negative number, says that they were taken."""
        ...


def home_of(namespace_uuid: str, count: int) -> int:
    """The shard where a namespace's counts live."""
    return zlib.crc32(namespace_uuid.encode()) % count


class _Attempts:
    """Of one namespace and kind, in one minute: what is at hand, what is kept for requests, what was refused.

    `earlier`: of what is kept, what the minute before has given.
    """

    __slots__ = ("counted", "earlier", "held", "is_over", "minute", "reserved")

    def __init__(self, minute: int, earlier: int = 0) -> None:
        self.minute = minute
        self.held = 0
        self.earlier = earlier
        self.reserved = 0
        self.is_over = False
        self.counted = 0


class LeasedThrottle(Throttle):
    """`Throttle` of one shard of several."""

    is_shared = True

    def __init__(self, clock: Clock, own: int, count: int, lender: Lender) -> None:
        super().__init__(clock)
        self._clock = clock
        self._own = own
        self._count = count
        self._lender = lender
        self._homes: dict[str, int] = {}
        self._attempts: tuple[dict[str, _Attempts], dict[str, _Attempts]] = ({}, {})
        self._minute = 0
        self._places: dict[str, int] = {}
        """Places in flight that were lent to this shard."""
        self._idle: dict[str, int] = {}
        """How many of them may stay unused: a block."""
        self._refused_places: dict[str, int] = {}
        """How many were in flight when a home last had no place to lend; until the minute ends, or it has one."""
        self._asking: dict[tuple[int, str], asyncio.Future[None]] = {}
        self._wanted: dict[tuple[int, str], int] = {}
        """How much is wanted by all who wait for a kind and namespace: they ask once, for all of it."""
        self._kept: dict[str, deque[float]] = {}
        """Of a namespace's places, those kept for requests that have not begun what they ask for, and until when."""
        self._lent: dict[str, dict[int, int]] = {}
        """Places that this shard has lent, by namespace and shard."""

    def _home(self, namespace_uuid: str) -> int:
        home = self._homes.get(namespace_uuid)
        if home is None:
            if len(self._homes) >= HOMES_LIMIT:
                self._homes.clear()
            home = self._homes[namespace_uuid] = home_of(namespace_uuid, self._count)
        return home

    # ── charging ────────────────────────────────────────────────────────────────────────────────────────────────

    def charge_invocation(self, identity: Identity) -> None:
        uuid, limits = identity.namespace_uuid, identity.limits
        if self._home(uuid) == self._own:
            self._invocations.charge(uuid, limits.invocations_per_minute)
            in_flight = self.in_flight(uuid) + self._lent_places(uuid)
            if in_flight >= limits.concurrent_invocations:
                raise Throttled(wording.too_many_in_flight(in_flight, limits.concurrent_invocations))
            return
        self._spend(INVOCATIONS, uuid, limits.invocations_per_minute)
        if uuid in self._refused_places:  # and nothing could be kept for this request
            count = self._refused_places[uuid]
            raise Throttled(wording.too_many_in_flight(count, limits.concurrent_invocations))

    def charge_fire(self, identity: Identity) -> None:
        uuid, limit = identity.namespace_uuid, identity.limits.fires_per_minute
        if self._home(uuid) == self._own:
            self._fires.charge(uuid, limit)
        else:
            self._spend(FIRES, uuid, limit)

    def _spend(self, kind: int, uuid: str, limit: int) -> None:
        attempts = self._attempts_of(kind, uuid)
        if attempts.earlier:
            attempts.earlier -= 1
        elif attempts.reserved:
            attempts.reserved -= 1
        elif attempts.held:
            attempts.held -= 1
        else:
            attempts.counted += 1
            raise Throttled(
                wording.too_many_per_minute(max(attempts.counted, limit + 1), limit),
                until_next_minute_s(self._clock.now_ms()),
            )

    def _attempts_of(self, kind: int, uuid: str) -> _Attempts:
        minute = self._clock.now_ms() // 60_000
        if minute != self._minute:
            for table in self._attempts:
                kept = {uuid: each.reserved for uuid, each in table.items() if minute == self._minute + 1}
                table.clear()
                table.update((uuid, _Attempts(minute, count)) for uuid, count in kept.items() if count)
            self._minute = minute
            self._refused_places.clear()
            self._give_back_unused()
        table = self._attempts[kind]
        attempts = table.get(uuid)
        if attempts is None:
            attempts = table[uuid] = _Attempts(minute)
        return attempts

    # ── reserving ───────────────────────────────────────────────────────────────────────────────────────────────

    def reserve(self, identity: Identity, invocations: int, fires: int = 0) -> bool:
        uuid = identity.namespace_uuid
        if self._home(uuid) == self._own:
            return True
        if not self._has_attempts(FIRES, uuid, fires) or not self._has_attempts(INVOCATIONS, uuid, invocations):
            return False
        if invocations and self._spare(uuid) < invocations:
            return False
        self._keep(FIRES, uuid, fires)
        self._keep(INVOCATIONS, uuid, invocations)
        self._keep_places(uuid, invocations)
        return True

    def _has_attempts(self, kind: int, uuid: str, count: int) -> bool:
        """Whether so many are at hand, or it is known that there are no more."""
        if not count:
            return True
        attempts = self._attempts_of(kind, uuid)
        return attempts.held >= count or attempts.is_over

    def _keep(self, kind: int, uuid: str, count: int) -> None:
        if count:
            attempts = self._attempts_of(kind, uuid)
            kept = min(count, attempts.held)
            attempts.held -= kept
            attempts.reserved += kept

    async def obtain(self, identity: Identity, invocations: int, fires: int = 0) -> None:
        uuid, limits = identity.namespace_uuid, identity.limits
        home = self._home(uuid)
        if home == self._own:
            return
        for kind, count, limit in (
            (FIRES, fires, limits.fires_per_minute),
            (INVOCATIONS, invocations, limits.invocations_per_minute),
        ):
            if not self._has_attempts(kind, uuid, count):
                await self._fetch(home, kind, uuid, limit, count)
            self._keep(kind, uuid, count)
        if invocations:
            self._refused_places.pop(uuid, None)
            if not self._has_place(uuid):
                await self._fetch(home, PLACES, uuid, limits.concurrent_invocations, 1)
            if self._spare(uuid) > 0:
                self._keep_places(uuid, 1)

    def _has_place(self, uuid: str) -> bool:
        """Whether an activation may begin, or it is known that none may."""
        return self._spare(uuid) > 0 or uuid in self._refused_places

    def _spare(self, uuid: str) -> int:
        """Places that are neither in use nor kept for a request."""
        places = self._places.get(uuid, 0) - self.in_flight(uuid)
        kept = self._kept.get(uuid)
        if kept is None:
            return places
        now_s = self._clock.monotonic_s()
        while kept and kept[0] <= now_s:
            kept.popleft()
        if not kept:
            del self._kept[uuid]
        return places - len(kept)

    def _keep_places(self, uuid: str, count: int) -> None:
        self._refused_places.pop(uuid, None)
        if count:
            kept = self._kept.setdefault(uuid, deque())
            kept.extend([self._clock.monotonic_s() + KEPT_S] * count)

    async def _fetch(self, home: int, kind: int, uuid: str, limit: int, count: int) -> None:
        """Asks until there is enough, or nothing is left. Who waits for the same asks together with the others."""
        key = (kind, uuid)
        self._wanted[key] = self._wanted.get(key, 0) + count
        try:
            while not (self._has_place(uuid) if kind == PLACES else self._has_attempts(kind, uuid, count)):
                asking = self._asking.get(key)
                if asking is not None:
                    await asyncio.wait([asking])
                else:
                    await self._ask(home, Wanted(kind, uuid, limit, self._wanted[key]))
        finally:
            self._wanted[key] -= count
            if not self._wanted[key]:
                del self._wanted[key]

    async def _ask(self, home: int, wanted: Wanted) -> None:
        key = (wanted.kind, wanted.namespace_uuid)
        asking = self._asking[key] = asyncio.get_running_loop().create_future()
        try:
            self._take(wanted, await self._lender.lend(home, wanted))
        finally:
            del self._asking[key]
            asking.set_result(None)

    def _take(self, wanted: Wanted, lent: Lent) -> None:
        uuid = wanted.namespace_uuid
        if wanted.kind == PLACES:
            if lent.count:
                self._places[uuid] = self._places.get(uuid, 0) + lent.count
                self._idle[uuid] = max(0, lent.count - wanted.count)
                asyncio.get_running_loop().call_later(2 * KEPT_S, self._give_back, uuid)
            else:
                self._refused_places[uuid] = lent.counted
            return
        attempts = self._attempts_of(wanted.kind, uuid)
        if attempts.minute != lent.minute:
            return  # the minute is over: it is asked for again
        attempts.held += lent.count
        if not lent.count:
            attempts.is_over = True
            attempts.counted = lent.counted - wanted.count  # each refused charge counts itself

    # ── in flight ───────────────────────────────────────────────────────────────────────────────────────────────

    def enter(self, namespace_uuid: str) -> None:
        super().enter(namespace_uuid)
        kept = self._kept.get(namespace_uuid)
        if kept:
            kept.popleft()
        home = self._home(namespace_uuid)
        if home != self._own and self._in_flight[namespace_uuid] > self._places.get(namespace_uuid, 0):
            self._places[namespace_uuid] = self._places.get(namespace_uuid, 0) + 1  # a part, or work found at start
            self._lender.settle(home, namespace_uuid, -1)

    def leave(self, namespace_uuid: str) -> None:
        super().leave(namespace_uuid)
        if namespace_uuid in self._places:
            self._give_back(namespace_uuid)

    def _give_back(self, uuid: str) -> None:
        """Returns places that are not needed, but for those that may stay unused."""
        unused = self._spare(uuid) - self._idle.get(uuid, 0)
        if unused > 0:
            self._lender.settle(self._home(uuid), uuid, unused)
            self._places[uuid] -= unused
            if not self._places[uuid]:
                del self._places[uuid]
                self._idle.pop(uuid, None)

    def _give_back_unused(self) -> None:
        """Places of namespaces that have nothing in flight: once a minute, so that the table is that of the busy."""
        for uuid in [uuid for uuid in self._places if not self.in_flight(uuid)]:
            self._lender.settle(self._home(uuid), uuid, self._places.pop(uuid))
            self._idle.pop(uuid, None)

    # ── what the home shard does ────────────────────────────────────────────────────────────────────────────────

    def lend(self, peer: int, wanted: Wanted) -> Lent:
        """Answers another shard."""
        if wanted.kind != PLACES:
            rate = self._invocations if wanted.kind == INVOCATIONS else self._fires
            return Lent(*rate.lend(wanted.namespace_uuid, wanted.limit, wanted.count))
        uuid = wanted.namespace_uuid
        taken = self.in_flight(uuid) + self._lent_places(uuid)
        count = block(wanted.limit - taken, wanted.count)
        if count:
            self.settled(peer, uuid, -count)
        return Lent(count, 0, taken)

    def settled(self, peer: int, namespace_uuid: str, places: int) -> None:
        """A shard gave places back, or says that it took some."""
        lent = self._lent.setdefault(namespace_uuid, {})
        left = lent.get(peer, 0) - places
        if left > 0:
            lent[peer] = left
            return
        lent.pop(peer, None)
        if not lent:
            del self._lent[namespace_uuid]

    def _lent_places(self, namespace_uuid: str) -> int:
        lent = self._lent.get(namespace_uuid)
        return sum(lent.values()) if lent else 0

    # ── shards come and go ──────────────────────────────────────────────────────────────────────────────────────

    def lost(self, peer: int) -> None:
        """A shard is down: what it held is free."""
        for uuid in [uuid for uuid, lent in self._lent.items() if peer in lent]:
            self.settled(peer, uuid, self._lent[uuid][peer])

    def found(self, peer: int) -> None:
        """A shard is up: it is told what is in flight of the namespaces whose home it is."""
        for uuid, places in self._places.items():
            if self._home(uuid) == peer:
                self._lender.settle(peer, uuid, -places)
