"""Waits over the shards of one server: each tells the others of the records that they watch or follow.

A shard is asked to watch an id only once somebody waits for it, and told when nobody does any more; what it tells is
told once a turn of the loop. A link that ends takes its watches with it, and whoever waited over it looks again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import msgspec

from visp.controller.waits import Note, note_of
from visp.entity.activation import keeper_of
from visp.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.controller.waits import Waits
    from visp.entity.activation import ActivationRecord
    from visp.store.base import ActivationStore

HEARD_S = 5.0
"""How long a follower waits for a shard to hear of it."""

WATCH = "records.watch"
UNWATCH = "records.unwatch"
FOLLOW = "records.follow"
TOLD = "records.told"

_YES, _NO = b"\1", b"\0"

_encode = msgspec.msgpack.Encoder().encode
_decode_watch = msgspec.msgpack.Decoder(tuple[str, str]).decode
_decode_namespaces = msgspec.msgpack.Decoder(list[str]).decode
_decode_notes = msgspec.msgpack.Decoder(list[Note]).decode


class Links(Protocol):
    """The other shards, as they are asked and heard of."""

    own: int
    count: int

    def up(self) -> tuple[int, ...]:
        """Those that are there."""
        ...

    def drop(self, peer: int) -> None:
        """Takes a shard for down until it has come again."""
        ...

    def when_up(self, then: Callable[[int], None]) -> None:
        """`then` hears of each that is there from now on."""
        ...

    def when_down(self, then: Callable[[int], None]) -> None:
        """`then` hears of each that is gone."""
        ...

    def ask_then(
        self, peer: int, what: str, body: bytes, then: Callable[[bytes | None], None], within_s: float = ...
    ) -> None:
        """`then` hears the answer, None when there is none; raises `Overloaded`."""
        ...

    async def tell_all(self, what: str, body: bytes) -> None:
        """Returns when every other shard has heard, or is down until it has come again."""
        ...

    async def ask(self, peer: int, what: str, body: bytes) -> bytes:
        """The answer; raises `StoreUnavailable`."""
        ...

    def answer(self, what: str, answerer: Callable[[int, bytes, Callable[[bytes | None], None]], None]) -> None:
        """`answerer` answers the questions of this name."""
        ...


class Abroad:
    """`Elsewhere` over the links, and the same for the other shards. Made before the links open."""

    def __init__(self, waits: Waits, links: Links, activations: ActivationStore) -> None:
        self._waits = waits
        self._links = links
        self._watched: dict[str, set[int]] = {}
        self._followed: dict[str, set[int]] = {}
        self._untold: dict[int, list[Note]] = {}
        links.answer(WATCH, self._watch_for)
        links.answer(UNWATCH, self._unwatch_for)
        links.answer(FOLLOW, self._follow_for)
        links.answer(TOLD, self._told)
        links.when_up(lambda peer: self._tell_followed(peer, waits.followed, _ignore))
        links.when_down(self._down)
        activations.when_recorded(self._recorded)

    # ── what is asked of others ─────────────────────────────────────────────────────────────────────────────────

    def is_here(self, id: str) -> bool:
        return keeper_of(id, self._links.count) == self._links.own

    async def watch(self, namespace_uuid: str, id: str) -> bool:
        return await self._links.ask(keeper_of(id, self._links.count), WATCH, _encode((namespace_uuid, id))) == _YES

    def unwatch(self, id: str) -> None:
        keeper = keeper_of(id, self._links.count)
        if keeper in self._links.up():
            self._ask(keeper, UNWATCH, id.encode(), _ignore)

    async def follow(self, namespaces: frozenset[str]) -> None:
        loop = asyncio.get_running_loop()
        heard: list[asyncio.Future[bytes | None]] = []
        for peer in self._links.up():
            future: asyncio.Future[bytes | None] = loop.create_future()
            heard.append(future)
            self._tell_followed(peer, namespaces, future.set_result)
        await asyncio.shield(asyncio.gather(*heard))

    def unfollow(self, namespaces: frozenset[str]) -> None:
        for peer in self._links.up():
            self._tell_followed(peer, namespaces, _ignore)

    def _tell_followed(self, peer: int, namespaces: frozenset[str], then: Callable[[bytes | None], None]) -> None:
        self._ask(peer, FOLLOW, _encode(list(namespaces)), then)

    def _ask(self, peer: int, what: str, body: bytes, then: Callable[[bytes | None], None]) -> None:
        """What cannot be said ends the link: when it is up again, things are told as they stand."""
        try:
            self._links.ask_then(peer, what, body, then, HEARD_S)
        except Overloaded:
            self._links.drop(peer)
            then(None)

    def _told(self, peer: int, body: bytes, reply: Callable[[bytes | None], None]) -> None:
        for note in _decode_notes(body):
            self._waits.heard(note)
        reply(b"")

    # ── what others ask ─────────────────────────────────────────────────────────────────────────────────────────

    def _watch_for(self, peer: int, body: bytes, reply: Callable[[bytes | None], None]) -> None:
        namespace_uuid, id = _decode_watch(body)
        may_come = self._waits.may_come(namespace_uuid, id)
        if may_come:
            self._watched.setdefault(id, set()).add(peer)
        reply(_YES if may_come else _NO)

    def _unwatch_for(self, peer: int, body: bytes, reply: Callable[[bytes | None], None]) -> None:
        _leave(self._watched, body.decode(), peer)
        reply(b"")

    def _follow_for(self, peer: int, body: bytes, reply: Callable[[bytes | None], None]) -> None:
        for namespace in list(self._followed):
            _leave(self._followed, namespace, peer)
        for namespace in _decode_namespaces(body):
            self._followed.setdefault(namespace, set()).add(peer)
        reply(b"")

    def _recorded(self, record: ActivationRecord) -> None:
        head = record.head
        peers = self._watched.pop(head.id, _NOBODY) | self._followed.get(head.namespace, _NOBODY)
        if not peers:
            return
        note = note_of(head)
        if not self._untold:
            asyncio.get_running_loop().call_soon(self._tell)
        for peer in peers:
            self._untold.setdefault(peer, []).append(note)

    def _tell(self) -> None:
        untold, self._untold = self._untold, {}
        for peer, notes in untold.items():
            if peer in self._links.up():
                self._ask(peer, TOLD, _encode(notes), _ignore)

    def _down(self, peer: int) -> None:
        for table in (self._watched, self._followed):
            for key in [key for key, peers in table.items() if peer in peers]:
                _leave(table, key, peer)
        self._waits.wake(lambda id: keeper_of(id, self._links.count) == peer)


_NOBODY: set[int] = set()


def _leave(table: dict[str, set[int]], key: str, peer: int) -> None:
    peers = table.get(key)
    if peers is not None:
        peers.discard(peer)
        if not peers:
            del table[key]


def _ignore(_: bytes | None) -> None:
    """Nobody waits for the answer."""
