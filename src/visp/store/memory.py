"""Stores that forget: the twins of the embedded ones, for tests and simulations. They pass the same contract tests."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.entity.activation import filter_name, with_logs
from visp.errors import Conflict, Corrupt
from visp.store.base import Delete, Document, KeyRecord, OpenWork, Put

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from visp.entity.activation import ActivationRecord
    from visp.store.base import ActivationQuery, EntityQuery, Revision, Then, Work


class MemoryEntities:
    """`EntityStore` and `SubjectStore` as dictionaries."""

    def __init__(self) -> None:
        self._documents: dict[str, Document] = {}
        self._keys: dict[str, KeyRecord] = {}
        self._limits: dict[str, bytes] = {}
        self._last_revision = 0

    async def get(self, id: str) -> Document | None:
        return self._documents.get(id)

    async def write(self, changes: Sequence[Put | Delete]) -> list[Revision]:
        before = self._documents.copy(), self._last_revision
        try:
            return [self._apply(change) for change in changes]
        except Conflict:
            self._documents, self._last_revision = before
            raise

    def _apply(self, change: Put | Delete) -> Revision:
        held = self._documents.get(change.document.id if isinstance(change, Put) else change.id)
        if (None if held is None else held.revision) != change.expected:
            raise Conflict(wording.CONCURRENT_CHANGE)
        if isinstance(change, Delete):
            del self._documents[change.id]
            return 0
        self._last_revision += 1
        document = msgspec.structs.replace(change.document, revision=self._last_revision)
        self._documents[document.id] = document
        return document.revision

    async def key(self, uuid: str) -> KeyRecord | None:
        return self._keys.get(uuid)

    async def keys_of(self, namespace: str) -> list[KeyRecord]:
        return sorted((key for key in self._keys.values() if key.namespace == namespace), key=lambda key: key.uuid)

    async def keys_of_subject(self, subject: str) -> list[KeyRecord]:
        return sorted((key for key in self._keys.values() if key.subject == subject), key=lambda key: key.uuid)

    async def put_key(self, record: KeyRecord) -> None:
        self._keys[record.uuid] = record

    async def delete_key(self, uuid: str) -> None:
        self._keys.pop(uuid, None)

    async def version(self) -> int:
        return 0

    async def limits(self, namespace: str) -> bytes | None:
        return self._limits.get(namespace)

    async def all_limits(self) -> list[tuple[str, bytes]]:
        return list(self._limits.items())

    async def put_limits(self, namespace: str, limits: bytes | None) -> None:
        if limits is None:
            self._limits.pop(namespace, None)
        else:
            self._limits[namespace] = limits

    async def scan(self, collection: str, after: str, limit: int) -> list[Document]:
        ids = sorted(id for id, held in self._documents.items() if held.collection == collection and id > after)
        return [self._documents[id] for id in ids[:limit]]

    async def list(self, query: EntityQuery) -> list[Document]:
        return list(self._find(query)[query.skip : query.skip + query.limit])

    async def count(self, query: EntityQuery) -> int:
        return len(self._find(query))

    async def close(self) -> None:
        pass

    def _find(self, query: EntityQuery) -> Sequence[Document]:
        found = [
            document
            for document in self._documents.values()
            if document.collection == query.collection
            and document.namespace == query.namespace
            and query.package in (None, document.package)
            and (document.publish or not query.only_published)
        ]
        return sorted(found, key=lambda document: (document.updated_ms, document.id), reverse=True)


class MemoryBlobs:
    """`BlobStore` as a dictionary."""

    def __init__(self) -> None:
        self._blobs: dict[str, tuple[bytes, float]] = {}

    async def put(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self._blobs[digest] = (content, time.monotonic())
        return digest

    async def get(self, digest: str) -> bytes:
        try:
            return self._blobs[digest][0]
        except KeyError:
            raise Corrupt() from None

    async def sweep(self, used: frozenset[str], older_than_s: float) -> int:
        before = time.monotonic() - older_than_s
        gone = [digest for digest, (_, written) in self._blobs.items() if digest not in used and written < before]
        for digest in gone:
            del self._blobs[digest]
        return len(gone)


class MemoryLedger:
    """`Ledger` and `ActivationStore` without a disk: everything is durable at once, until the process ends."""

    def __init__(self) -> None:
        self._records: dict[str, ActivationRecord] = {}
        self._open: dict[str, OpenWork] = {}
        self._found: list[OpenWork] = []
        self._heard: list[Callable[[ActivationRecord], None]] = []

    def reopened(self) -> MemoryLedger:
        """What the next process would find, were this one killed now."""
        after = MemoryLedger()
        after._records = self._records.copy()
        after._open = self._open.copy()
        after._found = list(self._open.values())
        return after

    def check_room(self) -> None:
        pass

    def accept(
        self,
        works: Sequence[Work],
        record: ActivationRecord | None,
        then: Then,
        *,
        is_owed: bool = False,
        is_kept: bool = True,
    ) -> None:
        self._open |= {work.id: OpenWork(work.id, work.message, False, work.due_ms) for work in works}
        if record is not None:
            self._open.pop(record.head.id, None)
            self._keep(record, is_kept=is_kept)
        _soon(then)

    def keep(self, works: Sequence[Work], then: Then) -> None:
        self.accept(works, None, then)

    def start(self, ids: Sequence[str], then: Then) -> None:
        for id in ids:
            if (work := self._open.get(id)) is not None:
                self._open[id] = msgspec.structs.replace(work, is_started=True)
        _soon(then)

    def finish(self, record: ActivationRecord, then: Then, *, is_synced: bool = False, is_kept: bool = True) -> None:
        self._open.pop(record.head.id, None)
        self._keep(record, is_kept=is_kept)
        _soon(then)

    def end(self, id: str) -> None:
        self._open.pop(id, None)

    def add_logs(self, id: str, logs: tuple[str, ...], collected_us: int | None = None) -> None:
        if (record := self._records.get(id)) is not None:
            self._records[id] = with_logs(record, logs, collected_us)

    def has_waiting(self, id: str) -> bool:
        work = self._open.get(id)
        return work is not None and not work.is_started

    def open_work(self) -> list[OpenWork]:
        found, self._found = self._found, []
        return found

    async def get(self, namespace: str, id: str) -> ActivationRecord | None:
        record = self._records.get(id)
        return record if record is not None and record.head.namespace == namespace else None

    def when_recorded(self, then: Callable[[ActivationRecord], None]) -> None:
        self._heard.append(then)

    def has_open(self, id: str) -> bool:
        return id in self._open

    async def is_open(self, id: str) -> bool:
        return id in self._open

    def _keep(self, record: ActivationRecord, *, is_kept: bool) -> None:
        if is_kept:
            self._records[record.head.id] = record
        for then in self._heard:
            then(record)

    async def list(self, query: ActivationQuery) -> list[ActivationRecord]:
        return list(self._find(query)[query.skip : query.skip + query.limit])

    async def count(self, query: ActivationQuery) -> int:
        return len(self._find(query))

    def _find(self, query: ActivationQuery) -> Sequence[ActivationRecord]:
        found = [
            record
            for record in self._records.values()
            if record.has_all_logs
            and record.head.namespace == query.namespace
            and query.name in (None, filter_name(record.head))
            and (query.since_ms is None or record.head.start_ms >= query.since_ms)
            and (query.upto_ms is None or record.head.start_ms <= query.upto_ms)
        ]
        return sorted(found, key=lambda record: (record.head.start_ms, record.head.id), reverse=True)


def _soon(then: Then) -> None:
    asyncio.get_running_loop().call_soon(then, None)
