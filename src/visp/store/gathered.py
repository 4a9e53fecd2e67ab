"""Activations of a server of several shards: each lies in the ledger of the shard that its id names.

Every shard reads every index; what is not indexed yet only its shard knows. Ledgers of shards that there are no more
(`--workers` was lowered) belong to shard 0.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from visp.entity.activation import ActivationRecord, keeper_of, shard_of
from visp.errors import Overloaded, StoreFull, StoreUnavailable, VispError
from visp.store.base import Work
from visp.store.index import SqliteActivations
from visp.store.tallies import nearer
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from visp.store.base import ActivationQuery, Ledger, OpenWork, Then
    from visp.store.ledger import EmbeddedLedger
    from visp.store.shared import Peers

ACCEPT, KEEP = "ledger.accept", "ledger.keep"
GET = "activations.get"
FLUSH = "activations.flush"
OPEN = "activations.open"
YES = b"1"
TIME_DIGITS = 12
"""Of an id: when it was made."""
NONE = b""
"""The answer when there is no such record."""

ERRORS = {"StoreFull": StoreFull, "Overloaded": Overloaded}
"""Errors of a ledger that cross a link by their name; all others are `StoreUnavailable`."""

_encode = msgspec.msgpack.Encoder().encode
_decode_works = msgspec.msgpack.Decoder(list[Work]).decode
_decode_place = msgspec.msgpack.Decoder(tuple[str, str]).decode
_decode_record = msgspec.msgpack.Decoder(ActivationRecord).decode


class RoutedLedger:
    """`Ledger` over those of this shard (its own, and what it adopted) and of the others, which may accept work for it.

    Only accepting goes to others: what runs there is finished there, by their invokers.
    """

    def __init__(self, own: int, ledgers: Mapping[int, EmbeddedLedger], count: int, peers: Peers | None) -> None:
        self._own = ledgers[own]
        self._ledgers = ledgers
        self._count = count
        self._peers = peers
        self._is_running: Callable[[str], bool] = lambda _: True
        if peers is not None:
            peers.answer(ACCEPT, self._accept_for)
            peers.answer(KEEP, self._keep_for)

    def ask(self, is_running: Callable[[str], bool]) -> None:
        """From now on it is asked whether an activation waits or runs here."""
        self._is_running = is_running

    def _of(self, id: str) -> Ledger:
        return self._ledgers.get(shard_of(id), self._own)

    def check_room(self) -> None:
        self._own.check_room()

    def accept(
        self,
        works: Sequence[Work],
        record: ActivationRecord | None,
        then: Then,
        *,
        is_owed: bool = False,
        is_kept: bool = True,
    ) -> None:
        id = works[0].id if record is None else record.head.id
        if record is not None or self._is_here(id):
            self._of(id).accept(works, record, then, is_owed=is_owed, is_kept=is_kept)
        else:
            self._ask(ACCEPT, works, then)

    def keep(self, works: Sequence[Work], then: Then) -> None:
        if self._is_here(works[0].id):
            self._of(works[0].id).keep(works, then)
        else:
            self._ask(KEEP, works, then)

    def _is_here(self, id: str) -> bool:
        shard = shard_of(id)
        return self._peers is None or shard in self._ledgers or shard >= self._count

    def _ask(self, question: str, works: Sequence[Work], then: Then) -> None:
        assert self._peers is not None

        def answered(answer: bytes | None) -> None:
            if answer is None:
                then(StoreUnavailable())
            else:
                then(ERRORS.get(answer.decode(), StoreUnavailable)() if answer else None)

        try:
            self._peers.ask_then(shard_of(works[0].id), question, _encode(works), answered)
        except Overloaded as error:
            asyncio.get_running_loop().call_soon(then, error)

    def _accept_for(self, peer: int, body: bytes, reply: Callable[[bytes | None], None]) -> None:
        """At once: the message that runs the work comes right behind it."""
        try:
            self._own.check_room()
        except VispError as error:
            reply(type(error).__name__.encode())
        else:
            self._own.accept(
                _decode_works(body), None, lambda error: reply(b"" if error is None else type(error).__name__.encode())
            )

    def _keep_for(self, peer: int, body: bytes, reply: Callable[[bytes | None], None]) -> None:
        """What is not there any more has ended: its ack is on its way, before this answer."""
        if all(self._is_running(work.id) for work in _decode_works(body)):
            self._accept_for(peer, body, reply)
        else:
            reply(b"")

    def start(self, ids: Sequence[str], then: Then) -> None:
        self._of(ids[0]).start(ids, then)

    def finish(self, record: ActivationRecord, then: Then, *, is_synced: bool = False, is_kept: bool = True) -> None:
        self._of(record.head.id).finish(record, then, is_synced=is_synced, is_kept=is_kept)

    def end(self, id: str) -> None:
        self._of(id).end(id)

    def add_logs(self, id: str, logs: tuple[str, ...], collected_us: int | None = None) -> None:
        self._of(id).add_logs(id, logs, collected_us)

    def has_open(self, id: str) -> bool:
        return self._of(id).has_open(id)

    def has_waiting(self, id: str) -> bool:
        return self._of(id).has_waiting(id)

    def open_work(self) -> list[OpenWork]:
        found = [work for ledger in self._ledgers.values() for work in ledger.open_work()]
        return sorted(found, key=lambda work: work.id[:TIME_DIGITS])


class GatheredActivations:
    """`ActivationStore` over all shards: `count` that there are, and `left` of earlier starts.

    `ledgers` are those that this process writes.
    """

    def __init__(
        self,
        data_dir: Path,
        ledgers: Mapping[int, EmbeddedLedger],
        count: int,
        left: Sequence[int],
        peers: Peers | None,
    ) -> None:
        self._data_dir = data_dir
        self._ledgers = ledgers
        self._count = count
        self._peers = peers
        self._shards = (*range(count), *left)
        self._borrowed: dict[int, SqliteActivations] = {}
        self._borrowing = asyncio.Lock()
        if peers is not None:
            peers.answer_later(GET, self._get_for)
            peers.answer_later(FLUSH, self._flush_for)
            peers.answer_later(OPEN, self._open_for)

    async def close(self) -> None:
        """Gives back the indexes of others."""
        for index in self._borrowed.values():
            await index.close()

    # ── one record ──────────────────────────────────────────────────────────────────────────────────────────────

    async def get(self, namespace: str, id: str) -> ActivationRecord | None:
        shard = shard_of(id)
        ledger = self._ledgers.get(shard)
        if ledger is not None:
            return await ledger.get(namespace, id)
        if shard not in self._shards or self._peers is None:
            return None
        index = await self._index(shard)
        record = None if index is None else await index.get(namespace, id)
        if record is not None:
            return record
        keeper = keeper_of(id, self._count)
        answer = await self._peers.ask(keeper, GET, _encode((namespace, id)))
        return None if answer == NONE else _decode_record(answer)

    async def _get_for(self, peer: int, body: bytes) -> bytes:
        namespace, id = _decode_place(body)
        ledger = self._ledgers.get(shard_of(id))
        record = None if ledger is None else await ledger.get(namespace, id)
        return NONE if record is None else _encode(record)

    def when_recorded(self, then: Callable[[ActivationRecord], None]) -> None:
        for ledger in self._ledgers.values():
            ledger.when_recorded(then)

    def has_open(self, id: str) -> bool:
        ledger = self._ledgers.get(shard_of(id))
        return ledger is not None and ledger.has_open(id)

    async def is_open(self, id: str) -> bool:
        shard = shard_of(id)
        if shard in self._ledgers or self._peers is None or shard >= self._count:
            return self.has_open(id)
        return await self._peers.ask(shard, OPEN, id.encode()) == YES

    async def _open_for(self, peer: int, body: bytes) -> bytes:
        return YES if self.has_open(body.decode()) else NONE

    # ── lists ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def list(self, query: ActivationQuery) -> list[ActivationRecord]:
        indexes = await self._flushed()
        if len(indexes) == 1:
            return await indexes[0].list(query)
        query = await nearer(query, indexes)
        found = await asyncio.gather(*(index.places(query) for index in indexes))
        places = sorted(
            ((start_ms, id, index) for index, some in zip(indexes, found, strict=True) for start_ms, id in some),
            key=lambda place: place[:2],
            reverse=True,
        )[query.skip : query.skip + query.limit]
        pages = await asyncio.gather(
            *(index.some(query.namespace, [id for _, id, at in places if at is index]) for index in indexes)
        )
        records = {record.head.id: record for page in pages for record in page}
        return [records[id] for _, id, _ in places if id in records]

    async def count(self, query: ActivationQuery) -> int:
        return sum(await asyncio.gather(*(index.count(query) for index in await self._flushed())))

    async def _flushed(self) -> Sequence[SqliteActivations]:
        """Every index, after its shard has brought into it what was complete."""
        own = asyncio.gather(*(ledger.flush() for ledger in self._ledgers.values()))
        others = [shard for shard in range(self._count) if shard not in self._ledgers]
        if others and self._peers is not None:
            asked = (self._peers.ask(shard, FLUSH, b"") for shard in others)
            for shard, answer in zip(others, await asyncio.gather(*asked, return_exceptions=True), strict=True):
                if isinstance(answer, BaseException):  # what it has indexed is read all the same
                    log.warning("activations.list_incomplete", shard=shard, reason=str(answer))
        await own
        indexes = [await self._index(shard) for shard in self._shards]
        return [index for index in indexes if index is not None]

    async def _flush_for(self, peer: int, body: bytes) -> bytes:
        await asyncio.gather(*(ledger.flush() for ledger in self._ledgers.values()))
        return b""

    async def _index(self, shard: int) -> SqliteActivations | None:
        """A shard's index; None for one that has none yet."""
        ledger = self._ledgers.get(shard)
        if ledger is not None:
            return ledger.index
        async with self._borrowing:
            index = self._borrowed.get(shard)
            path = self._data_dir / f"activations-{shard}.db"
            if index is None and path.exists():
                index = self._borrowed[shard] = await SqliteActivations.borrow(path)
            return index
