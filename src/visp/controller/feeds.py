"""What users do with feeds: CREATE, READ, UPDATE and DELETE of the feed protocol, and pausing.

Whoever calls is the trigger's owner; the trigger must be there, but for DELETE. Parameters and the owner's key are kept
encrypted. Source of the sentences and of the order: OpenWhisk's providers.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec

from visp import wording
from visp.bus import base as topics
from visp.bus.messages import FeedChanged
from visp.entity.feed import ADMIN, FeedEntry, Opened, Progress, shown
from visp.entity.trigger import Trigger
from visp.errors import ServiceError
from visp.feed.base import FeedRefused, Made, trace_of
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from visp.bus.base import Bus
    from visp.clock import Clock
    from visp.controller.crud import Crud
    from visp.entity.names import FullyQualifiedName
    from visp.feed.base import Feed, Hook, Reach, Received, Request
    from visp.store.base import FeedStore, Kept

FEEDS_LIMIT = 10_000
"""Of a namespace."""
NAMED = "messaging/"
"""Feeds whose READ tells the trigger, as OpenWhisk's do."""
REVIVED = ("alarms/alarm", "alarms/interval", "alarms/once")
"""Feeds whose UPDATE revives a disabled one, as in OpenWhisk; of others it is refused."""


class Kinds(Protocol):
    """Which feeds there are."""

    def find(self, name: str) -> Feed:
        """Raises `FeedRefused`."""
        ...


class Feeds:
    """One for a server process. `seal` and `unseal` are the server's own, for text."""

    def __init__(
        self,
        *,
        store: FeedStore,
        kinds: Kinds,
        reach: Callable[[str], Reach],
        crud: Crud,
        bus: Bus,
        clock: Clock,
        seal: Callable[[str], bytes],
        unseal: Callable[[bytes], str],
        url_of: Callable[[str], str],
        take_away: Callable[[Feed, Opened, Reach, str], Awaitable[None]],
    ) -> None:
        """`url_of` is where a feed of an id is told, if it is told by requests; `take_away` takes away what the feed of
        a trigger has made at its source, and raises nothing."""
        self._store = store
        self._kinds = kinds
        self._reach = reach
        self._crud = crud
        self._bus = bus
        self._clock = clock
        self._seal = seal
        self._unseal = unseal
        self._url_of = url_of
        self._take_away = take_away

    # ── the feed protocol ───────────────────────────────────────────────────────────────────────────────────────

    async def create(self, name: FullyQualifiedName, feed: str, given: Mapping[str, Any], auth: str) -> dict[str, Any]:
        """In the place of the feed that the trigger has, if it has one. Raises `FeedRefused` and `RequestError`."""
        await self._crud.get(Trigger, name)
        kind, now_ms = self._kinds.find(feed), self._clock.now_ms()
        parameters = kind.parse(given, now_ms)
        before = await self._store.feed(name.namespace, name.name)
        found = await kind.check(parameters, self._reach(name.namespace))
        position = found.position if isinstance(found, Made) else found
        opened = self._made(Opened(parameters, auth, isinstance(found, Made)), feed, before)
        entry = FeedEntry(
            namespace=name.namespace,
            trigger=name.name,
            id=secrets.token_hex(16),
            feed=feed,
            sealed=self._sealed(opened),
            changed_ms=now_ms,
        )
        progress = Progress(position=msgspec.json.encode(position))
        if not await self._store.put_feed(entry, progress, FEEDS_LIMIT):
            raise FeedRefused(wording.too_many_feeds(FEEDS_LIMIT), 429)
        self._tell(entry)
        if before is not None:
            await self.let_go(before[0])
        told = kind.created(entry.id, parameters)
        return told | {"url": self._url_of(entry.id)} if self.is_hook(entry) else told

    async def read(self, name: FullyQualifiedName) -> dict[str, Any]:
        """Raises `FeedRefused`."""
        return self._shown(*await self._of(name))

    async def update(self, name: FullyQualifiedName, given: Mapping[str, Any], auth: str) -> dict[str, Any]:
        """Raises `FeedRefused`."""
        await self._crud.get(Trigger, name)
        before = await self._of(name)
        entry = before[0]
        reason = entry.reason
        if reason is not None and reason.kind == ADMIN:
            raise FeedRefused(wording.feed_disabled_by_admin(name.name))
        if reason is not None and entry.feed not in REVIVED:
            raise FeedRefused(wording.feed_is_disabled(name.name))
        kind, now_ms = self._kinds.find(entry.feed), self._clock.now_ms()
        parameters = kind.changed(self.opened(entry).parameters, given, now_ms)
        found = await kind.check(parameters, self._reach(name.namespace))
        sealed = self._sealed(self._made(Opened(parameters, auth, isinstance(found, Made)), entry.feed, before))
        await self._replace(msgspec.structs.replace(entry, sealed=sealed, reason=None, changed_ms=now_ms))
        await self.let_go(entry)
        return {"status": "success"}

    async def delete(self, name: FullyQualifiedName) -> dict[str, Any]:
        """Raises `FeedRefused`."""
        entry, _ = await self._of(name)
        if await self._store.drop_feed(name.namespace, name.name):
            self._tell(entry)
            await self.let_go(entry)
        return {"status": "success"}

    # ── beside it ───────────────────────────────────────────────────────────────────────────────────────────────

    async def list(self, namespace: str) -> list[dict[str, Any]]:
        """As READ tells each."""
        return [self._shown(*kept) for kept in await self._store.feeds(namespace)]

    async def pause(self, name: FullyQualifiedName) -> dict[str, Any]:
        """Nothing is fired until it is resumed: it goes on where it stopped. Raises `FeedRefused`."""
        return await self._paused(name, is_paused=True)

    async def resume(self, name: FullyQualifiedName) -> dict[str, Any]:
        """A paused one goes on, and one that was disabled by itself is tried again. Raises `FeedRefused`."""
        return await self._paused(name, is_paused=False)

    async def _paused(self, name: FullyQualifiedName, *, is_paused: bool) -> dict[str, Any]:
        entry, _ = await self._of(name)
        reason = entry.reason
        if reason is not None and reason.kind == ADMIN:
            raise FeedRefused(wording.feed_disabled_by_admin(name.name))
        kept = reason if is_paused else None
        if (entry.is_paused, reason) != (is_paused, kept):
            now_ms = self._clock.now_ms()
            await self._replace(msgspec.structs.replace(entry, is_paused=is_paused, reason=kept, changed_ms=now_ms))
        return await self.read(name)

    # ── feeds with an address of their own ──────────────────────────────────────────────────────────────────────

    def is_hook(self, entry: FeedEntry) -> bool:
        """Whether its kind is told by requests."""
        try:
            return hasattr(self._kinds.find(entry.feed), "receive")
        except FeedRefused:
            return False

    def received(self, entry: FeedEntry, request: Request) -> Received:
        """What a request to the feed's address tells; raises `FeedRefused`."""
        kind = cast("Hook", self._kinds.find(entry.feed))
        return kind.receive(self.opened(entry).parameters, request, self._clock.now_ms())

    # ── what feeds leave at their sources ───────────────────────────────────────────────────────────────────────

    def _made(self, opened: Opened, feed: str, before: Kept | None) -> Opened:
        """With the word that what is left there was made by the feed before, where that was this one's too."""
        if opened.made or before is None or before[0].feed != feed:
            return opened
        kind, was = self._kinds.find(feed), self.opened(before[0])
        if was.made and trace_of(kind, was.parameters) == trace_of(kind, opened.parameters):
            return msgspec.structs.replace(opened, made=True)
        return opened

    async def let_go(self, entry: FeedEntry) -> None:
        """What a feed that was deleted or changed has made is taken away, if no other of its namespace shares it."""
        try:
            kind, opened = self._kinds.find(entry.feed), self.opened(entry)
            trace = trace_of(kind, opened.parameters) if opened.made else None
            if trace is None:
                return
            for other, _ in await self._store.feeds(entry.namespace):
                if other.feed == entry.feed and trace_of(kind, self.opened(other).parameters) == trace:
                    return
        except (FeedRefused, ServiceError) as error:
            log.warning("feed.trace_left", feed=entry.feed, trigger=entry.trigger, reason=str(error))
            return
        await self._take_away(kind, opened, self._reach(entry.namespace), f"{entry.namespace}/{entry.trigger}")

    # ── what is kept ────────────────────────────────────────────────────────────────────────────────────────────

    async def _of(self, name: FullyQualifiedName) -> Kept:
        kept = await self._store.feed(name.namespace, name.name)
        if kept is None:
            raise FeedRefused(wording.no_feed_of(f"/{name.id}"), 404)
        return kept

    async def _replace(self, entry: FeedEntry) -> None:
        if not await self._store.change_feed(entry):
            raise FeedRefused(wording.no_feed_of(f"/{entry.namespace}/{entry.trigger}"), 404)
        self._tell(entry)

    def _tell(self, entry: FeedEntry) -> None:
        self._bus.publish(topics.FEEDS, FeedChanged(entry.namespace, entry.trigger))

    def _shown(self, entry: FeedEntry, progress: Progress) -> dict[str, Any]:
        try:
            kind = self._kinds.find(entry.feed)
            config, hidden = kind.shown(self.opened(entry).parameters), kind.secrets
        except FeedRefused:  # its library is not installed here any more
            config, hidden = {}, frozenset[str]()
        if entry.feed.startswith(NAMED):
            config = {"triggerName": f"/{entry.namespace}/{entry.trigger}"} | config
        if self.is_hook(entry):
            config = config | {"url": self._url_of(entry.id)}
        return shown(entry, progress, config, hidden)

    def _sealed(self, opened: Opened) -> bytes:
        return self._seal(msgspec.json.encode(opened).decode())

    def opened(self, entry: FeedEntry) -> Opened:
        """Raises `ServiceError` for what another secret has sealed."""
        return msgspec.json.decode(self._unseal(entry.sealed), type=Opened)
