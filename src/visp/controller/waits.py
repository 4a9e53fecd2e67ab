"""Who waits for which record, and who follows the records of a namespace.

The store tells of each record as soon as it can be read; nobody looks for it again and again. A waiter is registered
before it looks, so a record that comes meanwhile is not missed. An id of another namespace is one that never comes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol

import msgspec

from visp import wording
from visp.bus.follow import ATTEMPT
from visp.entity.activation import Status, filter_name
from visp.entity.follow import following_id
from visp.errors import NotFound, NotYet, Overloaded, StoreUnavailable
from visp.telemetry.metrics import Family

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from visp.entity.activation import ActivationHead, ActivationRecord
    from visp.entity.subject import Identity
    from visp.settings import Waits as Limits
    from visp.store.base import ActivationStore

    OwnerOf = Callable[[str], str | None]
    """The uuid of the namespace whose work under way has this id, or None."""

WAITING = "visp_waits"


class Note(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A record can be read. `name` is what a list's filter compares, `start_ms` its start."""

    id: str
    namespace: str
    name: str
    start_ms: int


class Elsewhere(Protocol):
    """Where records lie that this process does not write; it calls `Waits.heard` for what it is asked to watch."""

    def is_here(self, id: str) -> bool:
        """Whether this process writes the record of this id."""
        ...

    async def watch(self, namespace_uuid: str, id: str) -> bool:
        """Whether the record may still come; then it is told of. Raises `StoreUnavailable`."""
        ...

    def unwatch(self, id: str) -> None:
        """Nobody waits for it any more."""
        ...

    async def follow(self, namespaces: frozenset[str]) -> None:
        """From now on the records of these namespaces are told of, and of no others."""
        ...

    def unfollow(self, namespaces: frozenset[str]) -> None:
        """The same without being waited for: there are fewer of them."""
        ...


class Feed:
    """Ids of the records of a namespace, as they are finished, for one reader; bounded.

    `name` and `since_ms` choose among them. What finds no room is counted, and the count stands where they would.
    """

    def __init__(self, name: str | None, since_ms: int | None, limit: int) -> None:
        self._name = name
        self._since_ms = since_ms
        self._limit = limit
        self._entries: deque[str | int] = deque()
        self._ready = asyncio.Event()
        self._is_closed = False

    def offer(self, note: Note) -> None:
        if self._name is not None and note.name != self._name:
            return
        if self._since_ms is not None and note.start_ms < self._since_ms:
            return
        entries = self._entries
        if len(entries) < self._limit:
            entries.append(note.id)
        elif isinstance(last := entries[-1], int):
            entries[-1] = last + 1
        else:
            entries.append(1)
        self._ready.set()

    def close(self) -> None:
        """No more will come."""
        self._is_closed = True
        self._ready.set()

    async def next(self) -> str | int | None:
        """The next id, or how many were lost here; None at the end."""
        while not self._entries:
            if self._is_closed:
                return None
            self._ready.clear()
            await self._ready.wait()
        return self._entries.popleft()


def next_attempt(head: ActivationHead) -> str | None:
    """The id of the attempt that takes the place of this one, if there is one.

    Whoever waits for an activation is given the last attempt's record: this is where that is decided.
    """
    return following_id(head.id, ATTEMPT) if head.status != Status.SUCCESS else None


class Waits:
    """All that wait on this process, in one bound."""

    def __init__(self, activations: ActivationStore, limits: Limits) -> None:
        self._activations = activations
        self._limits = limits
        self._owners: list[OwnerOf] = []
        self._elsewhere: Elsewhere | None = None
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._feeds: dict[str, set[Feed]] = {}
        self._taken = 0
        self._is_closed = False
        activations.when_recorded(self._recorded)

    def ask(self, owner_of: OwnerOf) -> None:
        """`owner_of` is asked too whose an id under way is."""
        self._owners.append(owner_of)

    def join(self, elsewhere: Elsewhere) -> None:
        """There are other processes, which write records of their own."""
        self._elsewhere = elsewhere

    def close(self) -> None:
        """The server ends: whoever waits is told that there is nothing yet, and to come again."""
        self._is_closed = True
        self.wake(lambda _: True)
        for feeds in self._feeds.values():
            for feed in feeds:
                feed.close()

    def open(self) -> None:
        """It goes on after all."""
        self._is_closed = False

    def measured(self) -> list[Family]:
        """Who waits, for a scrape."""
        return [Family(WAITING, "Requests that wait for records.", "gauge", {(): self._taken})]

    # ── one record ──────────────────────────────────────────────────────────────────────────────────────────────

    async def record(self, identity: Identity, id: str, within_s: float) -> ActivationRecord:
        """The record, as soon as it is there.

        Raises `NotFound` for what can never come, `NotYet` when the time is over or the server ends, `Overloaded` when
        too many wait, `StoreUnavailable` when the process that would know is away.
        """
        until_s = asyncio.get_running_loop().time() + within_s
        record = await self._one(identity, id, until_s)
        while (later := next_attempt(record.head)) is not None:
            try:
                record = await self._one(identity, later, until_s)
            except NotFound:
                break  # it was accepted with the outcome of the one before, or never
        return record

    async def _one(self, identity: Identity, id: str, until_s: float) -> ActivationRecord:
        elsewhere = self._elsewhere
        if elsewhere is not None and elsewhere.is_here(id):
            elsewhere = None
        get = partial(self._activations.get, identity.namespace, id)
        record = None if elsewhere is None else await get()
        if record is not None:
            return record
        with self._listening(id, elsewhere) as told:
            while True:
                told.clear()
                may_come = elsewhere is not None and await elsewhere.watch(identity.namespace_uuid, id)
                record = await get()
                if record is not None:
                    return record
                if told.is_set() and not self._is_closed:
                    continue  # it came while the index was read
                if not (may_come or (elsewhere is None and self.may_come(identity.namespace_uuid, id))):
                    raise NotFound()
                if self._is_closed:
                    raise NotYet()
                with self._place():
                    try:
                        async with asyncio.timeout_at(until_s):
                            await told.wait()
                    except TimeoutError:
                        raise NotYet() from None
                record = await get()
                if record is not None:
                    return record

    def may_come(self, namespace_uuid: str, id: str) -> bool:
        """Whether it is work under way of this namespace, whose record this process will write.

        What the ledger holds and nobody here knows is taken for it: it waits for its time, or to be begun after a
        restart.
        """
        for owner_of in self._owners:
            owner = owner_of(id)
            if owner is not None:
                return owner == namespace_uuid
        return self._activations.has_open(id)

    @contextlib.contextmanager
    def _listening(self, id: str, elsewhere: Elsewhere | None) -> Iterator[asyncio.Event]:
        told = asyncio.Event()
        waiters = self._waiters.setdefault(id, set())
        waiters.add(told)
        try:
            yield told
        finally:
            waiters.discard(told)
            if not waiters:
                del self._waiters[id]
                if elsewhere is not None:
                    elsewhere.unwatch(id)

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        if self._taken >= self._limits.at_once:
            raise Overloaded(wording.too_many_waits(self._limits.at_once))
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    # ── all records of a namespace ──────────────────────────────────────────────────────────────────────────────

    @contextlib.asynccontextmanager
    async def feed(self, namespace: str, name: str | None, since_ms: int | None) -> AsyncIterator[Feed]:
        """What is finished in the namespace from now on. Raises `Overloaded`, and `StoreUnavailable` at the end."""
        if self._is_closed:
            raise StoreUnavailable()
        with self._place():
            feed = Feed(name, since_ms, self._limits.stream_records)
            feeds = self._feeds.setdefault(namespace, set())
            feeds.add(feed)
            try:
                if self._elsewhere is not None:
                    await self._elsewhere.follow(self.followed)
                yield feed
            finally:
                feeds.discard(feed)
                if not feeds:
                    del self._feeds[namespace]
                    if self._elsewhere is not None:
                        self._elsewhere.unfollow(self.followed)

    @property
    def followed(self) -> frozenset[str]:
        """The namespaces whose records somebody follows here."""
        return frozenset(self._feeds)

    # ── what is told ────────────────────────────────────────────────────────────────────────────────────────────

    def _recorded(self, record: ActivationRecord) -> None:
        head = record.head
        if head.id in self._waiters or head.namespace in self._feeds:
            self.heard(note_of(head))

    def heard(self, note: Note) -> None:
        """A record is there, here or elsewhere."""
        for told in self._waiters.get(note.id, ()):
            told.set()
        for feed in self._feeds.get(note.namespace, ()):
            feed.offer(note)

    def wake(self, is_meant: Callable[[str], bool]) -> None:
        """Who waits for such an id looks again."""
        for id, waiters in self._waiters.items():
            if is_meant(id):
                for told in waiters:
                    told.set()


def note_of(head: ActivationHead) -> Note:
    return Note(head.id, head.namespace, filter_name(head), head.start_ms)
