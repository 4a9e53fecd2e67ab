"""Entities of a server of several shards: one file, which shard 0 writes and every shard reads.

A write is acknowledged when every shard that is up has heard of the new revision: whoever reads after it, wherever,
reads what was written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from visp import wording
from visp.errors import Conflict, Corrupt, StoreFull, StoreUnavailable, VispError
from visp.store.base import Delete, Document, Put, Revision
from visp.store.database import Borrowed, Database
from visp.store.sqlite import ENTITY_MIGRATIONS, SqliteEntities

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

WRITER = 0
"""The shard that writes."""

WRITE = "entities.write"
CHANGED = "entities.changed"


class Peers(Protocol):
    """The other shards, as the stores ask them."""

    def ask_then(
        self, peer: int, what: str, body: bytes, then: Callable[[bytes | None], None], within_s: float = ...
    ) -> None:
        """`then` hears the answer, or None when there is none; questions of one shard arrive in their order.

        Raises `Overloaded` when too many are open.
        """
        ...

    async def tell_all(self, what: str, body: bytes) -> None:
        """Returns when every other shard has heard, or is down until it has come again."""
        ...

    async def ask(self, peer: int, what: str, body: bytes) -> bytes:
        """The answer of a shard, which is waited for a moment if it is down; raises `StoreUnavailable`."""
        ...

    def answer(self, what: str, answerer: Callable[[int, bytes, Callable[[bytes | None], None]], None]) -> None:
        """`answerer` answers the questions of this name."""
        ...

    def answer_later(self, what: str, answerer: Callable[[int, bytes], Awaitable[bytes]]) -> None:
        """The same by a coroutine."""
        ...


class _Change(msgspec.Struct, frozen=True, array_like=True):
    """A `Put`, or without a document a `Delete`."""

    id: str
    expected: Revision | None
    document: Document | None


class _Written(msgspec.Struct, frozen=True, array_like=True):
    """What came of a write: the revisions, or the name of the error."""

    revisions: list[Revision]
    error: str | None = None


class Changed(msgspec.Struct, frozen=True, array_like=True):
    """Documents as a write left them: id and revision, 0 for what was deleted."""

    documents: list[tuple[str, Revision]]


ERRORS: dict[str, Callable[[], VispError]] = {
    "Conflict": lambda: Conflict(wording.CONCURRENT_CHANGE),
    "StoreFull": StoreFull,
    "Corrupt": Corrupt,
}
"""Errors of a store that cross a link by their name; all others are `StoreUnavailable`."""

_encode = msgspec.msgpack.Encoder().encode
_decode_changes = msgspec.msgpack.Decoder(list[_Change]).decode
_decode_written = msgspec.msgpack.Decoder(_Written).decode
_decode_changed = msgspec.msgpack.Decoder(Changed).decode


class WrittenEntities(SqliteEntities):
    """The stores of shard 0: its writes and those that others ask of it."""

    def __init__(self, database: Database, peers: Peers) -> None:
        super().__init__(database)
        self._peers = peers
        self._changed: Callable[[str, Revision], None] | None = None
        peers.answer_later(WRITE, self._write_for)

    @classmethod
    async def open_shared(cls, path: Path, peers: Peers) -> WrittenEntities:
        return cls(await Database.open(path, ENTITY_MIGRATIONS, synchronous="FULL"), peers)

    def when_changed(self, then: Callable[[str, Revision], None]) -> None:
        """`then` hears of every write as soon as it is committed."""
        self._changed = then

    async def write(self, changes: Sequence[Put | Delete]) -> list[Revision]:
        revisions = await super().write(changes)
        ids = [change.document.id if isinstance(change, Put) else change.id for change in changes]
        documents = list(zip(ids, revisions, strict=True))
        if self._changed is not None:
            for id, revision in documents:
                self._changed(id, revision)
        await self._peers.tell_all(CHANGED, _encode(Changed(documents)))
        return revisions

    async def _write_for(self, peer: int, body: bytes) -> bytes:
        changes = [
            Delete(change.id, change.expected or 0)
            if change.document is None
            else Put(change.document, change.expected)
            for change in _decode_changes(body)
        ]
        try:
            return _encode(_Written(await self.write(changes)))
        except VispError as error:
            return _encode(_Written([], type(error).__name__))


class BorrowedEntities(SqliteEntities):
    """The stores of every other shard: they read the file, and ask shard 0 to write documents.

    Keys and limits are shard 0's alone to write: else `StoreUnavailable`.
    """

    def __init__(self, database: Database, peers: Peers) -> None:
        super().__init__(database)
        self._peers = peers
        self._changed: Callable[[str, Revision], None] | None = None
        peers.answer(CHANGED, self._hear)

    @classmethod
    async def borrow(cls, path: Path, peers: Peers) -> BorrowedEntities:
        return cls(await Borrowed.borrow(path), peers)

    def when_changed(self, then: Callable[[str, Revision], None]) -> None:
        """`then` hears of every write, this shard's too, before whoever asked for it does."""
        self._changed = then

    async def write(self, changes: Sequence[Put | Delete]) -> list[Revision]:
        """Raises `StoreUnavailable` also when the outcome is unknown: shard 0 went down meanwhile."""
        asked = [
            _Change(change.document.id, change.expected, change.document)
            if isinstance(change, Put)
            else _Change(change.id, change.expected, None)
            for change in changes
        ]
        written = _decode_written(await self._peers.ask(WRITER, WRITE, _encode(asked)))
        if written.error is not None:
            raise ERRORS.get(written.error, StoreUnavailable)()
        return written.revisions

    def _hear(self, peer: int, body: bytes, reply: Callable[[bytes | None], None]) -> None:
        for id, revision in _decode_changed(body).documents:
            if self._changed is not None:
                self._changed(id, revision)
        reply(b"")
