"""Requests to addresses that feeds have of their own: checked by the feed, fired before they are answered.

An address is a feed's id, which nobody can guess. What it asks for beside that (signatures, times) its kind says. Of
two requests within a day that tell the same event the second fires nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from visp import wording
from visp.controller.fire import Firing
from visp.controller.idempotency import keyed
from visp.controller.primitive import Answer, Refused
from visp.entity.names import FullyQualifiedName
from visp.entity.trigger import Trigger
from visp.errors import RequestError
from visp.feed.base import FeedRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.clock import Clock
    from visp.controller.crud import Crud
    from visp.controller.feeds import Feeds
    from visp.controller.fire import Fire
    from visp.controller.idempotency import Idempotency
    from visp.controller.identities import Identities
    from visp.entity.feed import FeedEntry
    from visp.entity.subject import Identity
    from visp.feed.base import Event, Received, Request
    from visp.store.base import FeedStore

ID_LENGTH = 32


class Hooked:
    """One for a server process."""

    def __init__(
        self,
        *,
        store: FeedStore,
        feeds: Feeds,
        identities: Identities,
        crud: Crud,
        fire: Fire,
        idempotency: Idempotency,
        new_id: Callable[[], str],
        clock: Clock,
    ) -> None:
        self._store = store
        self._feeds = feeds
        self._identities = identities
        self._crud = crud
        self._fire = fire
        self._idempotency = idempotency
        self._new_id = new_id
        self._clock = clock

    async def find(self, id: str) -> tuple[FeedEntry, Identity]:
        """The feed at an address, and for whom it fires. Raises `FeedRefused`: not told why it is not there."""
        kept = await self._store.feed_of(id) if len(id) == ID_LENGTH else None
        entry = None if kept is None else kept[0]
        if entry is None or not entry.is_active or not self._feeds.is_hook(entry):
            raise FeedRefused(wording.NO_SUCH_HOOK, 404)
        owner = await self._identities.by_uuid(self._feeds.opened(entry).auth.partition(":")[0])
        if owner is None:
            raise FeedRefused(wording.NO_SUCH_HOOK, 404)
        return entry, owner

    async def receive(self, entry: FeedEntry, owner: Identity, request: Request, transid: str) -> Received:
        """What the request is answered, once its events are fired. Raises `FeedRefused` and what firing raises."""
        received = self._feeds.received(entry, request)
        name = FullyQualifiedName(entry.namespace, None, entry.trigger)
        if received.events:
            trigger = await self._crud.get(Trigger, name)
            for event in received.events:
                await self._fire_once(entry, owner, trigger, event, transid)
            await self._store.count_feed(entry, len(received.events), self._clock.now_ms())
        return received

    async def _fire_once(self, entry: FeedEntry, owner: Identity, trigger: Trigger, event: Event, transid: str) -> None:
        await self._fire.obtain(owner)
        self._fire.charge(owner)
        await self._fire.load(owner, trigger)
        await self._fire.obtain(owner, trigger)
        firing = Firing(
            identity=owner,
            trigger=trigger,
            body=event.body,
            headers={},
            transid=transid,
            received_ms=self._clock.now_ms(),
            is_recorded=True,
        )

        async def begin(id: str) -> Answer:
            answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

            def settle(answer: Answer) -> None:
                if not answered.done():
                    answered.set_result(answer)

            if self._fire.start(firing, settle, id) is not None:
                raise _Nothing(wording.NOTHING_TO_FIRE)
            answer = await answered
            if isinstance(answer, Refused):
                raise answer.error
            return answer

        try:
            await self._idempotency.answer(owner, keyed(owner, f"hook {entry.id}", event.key, b""), self._new_id, begin)
        except _Nothing:
            pass  # no rule is active: there is nothing to record, as with any fire


class _Nothing(RequestError):
    """There was nothing to begin, so nothing is promised."""
