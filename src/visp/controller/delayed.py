"""What waits for its time, as its namespace sees it: whichever shard has it."""

from __future__ import annotations

import asyncio
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from visp.entity.activation import keeper_of
from visp.errors import StoreUnavailable
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.controller.abroad import Links
    from visp.controller.later import Later

LIST, CANCEL = "later.list", "later.cancel"

Shown = dict[str, Any]

_encode = msgspec.msgpack.Encoder().encode
_decode_place = msgspec.msgpack.Decoder(tuple[str, str]).decode
_decode_shown = msgspec.msgpack.Decoder(Shown | None).decode
_decode_list = msgspec.msgpack.Decoder(list[Shown]).decode


class Delayed:
    """Asks `Later` here and on the other shards, if there are any. Made before the links open."""

    def __init__(self, later: Later, links: Links | None) -> None:
        self._later = later
        self._links = links
        if links is not None:
            links.answer(LIST, self._list_for)
            links.answer(CANCEL, self._cancel_for)

    async def of(self, namespace: str) -> list[Shown]:
        """The next one first. What a shard has that does not answer is left out."""
        found = self._own(namespace)
        if self._links is not None:
            answers = await asyncio.gather(*(self._ask_list(peer, namespace) for peer in self._links.up()))
            found += [shown for answer in answers for shown in answer]
        return sorted(found, key=itemgetter("due", "activationId"))

    async def cancel(self, namespace: str, id: str) -> Shown | None:
        """What was cancelled; None when there is no such thing, or it has begun. Raises `StoreUnavailable`."""
        links = self._links
        if links is None or (keeper := keeper_of(id, links.count)) == links.own:
            return self._cancel(namespace, id)
        cancelled: Shown | None = _decode_shown(await links.ask(keeper, CANCEL, _encode((namespace, id))))
        return cancelled

    def _own(self, namespace: str) -> list[Shown]:
        return [waiting.render() for waiting in self._later.of(namespace)]

    def _cancel(self, namespace: str, id: str) -> Shown | None:
        waiting = self._later.cancel(namespace, id)
        return None if waiting is None else waiting.render()

    async def _ask_list(self, peer: int, namespace: str) -> list[Shown]:
        assert self._links is not None
        try:
            return _decode_list(await self._links.ask(peer, LIST, namespace.encode()))
        except StoreUnavailable:
            log.warning("later.list_incomplete", shard=peer)
            return []

    def _list_for(self, _: int, body: bytes, reply: Callable[[bytes | None], None]) -> None:
        reply(_encode(self._own(bytes(body).decode())))

    def _cancel_for(self, _: int, body: bytes, reply: Callable[[bytes | None], None]) -> None:
        reply(_encode(self._cancel(*_decode_place(body))))
