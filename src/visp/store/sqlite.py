"""The embedded stores: entities and subjects in one SQLite file, the index of activations in another.

Entities are committed with `synchronous=FULL`. The index is NORMAL: what a power cut takes from it is in the ledger.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, TypeVar

import msgspec

from visp import wording
from visp.entity.activation import ActivationHead, ActivationRecord
from visp.errors import Conflict, Corrupt
from visp.store.base import Delete, Document, KeyRecord, Put
from visp.store.database import Borrowed, Database
from visp.store.values import LARGE_BYTES, Values
from visp.telemetry import log

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from visp.store.base import ActivationQuery, EntityQuery, Revision

T = TypeVar("T")
Row = TypeVar("Row")

ENTITY_MIGRATIONS = (
    """
    CREATE TABLE documents (
        id TEXT PRIMARY KEY, collection TEXT NOT NULL, namespace TEXT NOT NULL, package TEXT, name TEXT NOT NULL,
        updated_ms INTEGER NOT NULL, publish INTEGER NOT NULL, revision INTEGER NOT NULL, body BLOB NOT NULL,
        crc INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX documents_by_update ON documents (namespace, collection, updated_ms DESC, id DESC);
    CREATE TABLE revisions (last INTEGER NOT NULL);
    INSERT INTO revisions VALUES (0);
    CREATE TABLE keys (
        uuid TEXT PRIMARY KEY, digest BLOB NOT NULL, sealed BLOB NOT NULL, subject TEXT NOT NULL,
        namespace TEXT NOT NULL, is_blocked INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX keys_by_namespace ON keys (namespace);
    CREATE TABLE namespace_limits (namespace TEXT PRIMARY KEY, limits BLOB NOT NULL) WITHOUT ROWID;
    """,
)

ACTIVATION_MIGRATIONS = (
    """
    CREATE TABLE activations (
        id BLOB PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, start_ms INTEGER NOT NULL,
        head BLOB NOT NULL, result BLOB NOT NULL, logs BLOB NOT NULL, crc INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX activations_by_start ON activations (namespace, start_ms DESC, id DESC);
    CREATE INDEX activations_by_name ON activations (namespace, name, start_ms DESC, id DESC);
    CREATE TABLE progress (indexed_to INTEGER NOT NULL);
    INSERT INTO progress VALUES (0);
    """,
    # Read backwards as fast; and what comes later goes to the right, where SQLite fills pages and does not split them.
    """
    DROP INDEX activations_by_start;
    DROP INDEX activations_by_name;
    CREATE INDEX activations_by_start ON activations (namespace, start_ms, id);
    CREATE INDEX activations_by_name ON activations (namespace, name, start_ms, id);
    """,
)
INDEX_CACHE_KIB = 8 * 1024
"""So that a group of records of a hundred actions and more finds their pages in memory: SQLite's own 2 MiB hold 250."""

# ── entities and subjects ───────────────────────────────────────────────────────────────────────────────────────

_DOCUMENT = "id, collection, namespace, package, name, updated_ms, publish, body, revision, crc"
GET_DOCUMENT = f"SELECT {_DOCUMENT} FROM documents WHERE id = ?"
GET_REVISION = "SELECT revision FROM documents WHERE id = ?"
PUT_DOCUMENT = f"INSERT OR REPLACE INTO documents ({_DOCUMENT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
SCAN_DOCUMENTS = f"SELECT {_DOCUMENT} FROM documents WHERE collection = ? AND id > ? ORDER BY id LIMIT ?"
DELETE_DOCUMENT = "DELETE FROM documents WHERE id = ?"
NEXT_REVISION = "UPDATE revisions SET last = last + 1 RETURNING last"
PUT_KEY = "INSERT OR REPLACE INTO keys (uuid, digest, sealed, subject, namespace, is_blocked) VALUES (?, ?, ?, ?, ?, ?)"
_KEY = "uuid, digest, sealed, subject, namespace, is_blocked"
GET_KEY = f"SELECT {_KEY} FROM keys WHERE uuid = ?"
KEYS_OF = f"SELECT {_KEY} FROM keys WHERE namespace = ? ORDER BY uuid"
GET_LIMITS = "SELECT limits FROM namespace_limits WHERE namespace = ?"
PUT_LIMITS = "INSERT OR REPLACE INTO namespace_limits (namespace, limits) VALUES (?, ?)"
DELETE_LIMITS = "DELETE FROM namespace_limits WHERE namespace = ?"


class SqliteEntities:
    """`EntityStore` and `SubjectStore` in one file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def open(cls, path: Path) -> SqliteEntities:
        return cls(await Database.open(path, ENTITY_MIGRATIONS, synchronous="FULL"))

    async def get(self, id: str) -> Document | None:
        row = await self._database.read(lambda db: db.execute(GET_DOCUMENT, (id,)).fetchone())
        return None if row is None else _document(row)

    async def write(self, changes: Sequence[Put | Delete]) -> list[Revision]:
        return await self._database.write(lambda db: [_write(db, change) for change in changes])

    async def key(self, uuid: str) -> KeyRecord | None:
        row = await self._database.read(lambda db: db.execute(GET_KEY, (uuid,)).fetchone())
        return None if row is None else _key(row)

    async def keys_of(self, namespace: str) -> list[KeyRecord]:
        rows = await self._database.read(lambda db: db.execute(KEYS_OF, (namespace,)).fetchall())
        return [_key(row) for row in rows]

    async def put_key(self, record: KeyRecord) -> None:
        values = msgspec.structs.astuple(record)
        await self._database.write(lambda db: db.execute(PUT_KEY, values).rowcount)

    async def limits(self, namespace: str) -> bytes | None:
        row = await self._database.read(lambda db: db.execute(GET_LIMITS, (namespace,)).fetchone())
        return None if row is None else bytes(row[0])

    async def put_limits(self, namespace: str, limits: bytes | None) -> None:
        if limits is None:
            await self._database.write(lambda db: db.execute(DELETE_LIMITS, (namespace,)).rowcount)
        else:
            await self._database.write(lambda db: db.execute(PUT_LIMITS, (namespace, limits)).rowcount)

    async def scan(self, collection: str, after: str, limit: int) -> list[Document]:
        rows = await self._database.read(lambda db: db.execute(SCAN_DOCUMENTS, (collection, after, limit)).fetchall())
        return [_document(row) for row in rows]

    async def list(self, query: EntityQuery) -> list[Document]:
        where, values = _entity_filter(query)
        sql = f"SELECT {_DOCUMENT} FROM documents {where} ORDER BY updated_ms DESC, id DESC LIMIT ? OFFSET ?"
        rows = await self._database.read(lambda db: db.execute(sql, (*values, query.limit, query.skip)).fetchall())
        return _readable(rows, _document)

    async def count(self, query: EntityQuery) -> int:
        where, values = _entity_filter(query)
        sql = f"SELECT count(*) FROM documents {where}"
        (count,) = await self._database.read(lambda db: db.execute(sql, values).fetchone())
        return int(count)

    async def close(self) -> None:
        await self._database.close()


def _write(db: sqlite3.Connection, change: Put | Delete) -> Revision:
    id = change.document.id if isinstance(change, Put) else change.id
    row = db.execute(GET_REVISION, (id,)).fetchone()
    if (None if row is None else row[0]) != change.expected:
        raise Conflict(wording.CONCURRENT_CHANGE)
    if isinstance(change, Delete):
        db.execute(DELETE_DOCUMENT, (id,))
        return 0
    (revision,) = db.execute(NEXT_REVISION).fetchone()
    document = change.document
    db.execute(
        PUT_DOCUMENT,
        (
            id,
            document.collection,
            document.namespace,
            document.package,
            document.name,
            document.updated_ms,
            document.publish,
            document.body,
            revision,
            _document_crc(id, document.body),
        ),
    )
    return int(revision)


def _document_crc(id: str, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(id.encode()))


def _entity_filter(query: EntityQuery) -> tuple[str, tuple[object, ...]]:
    where, values = "WHERE namespace = ? AND collection = ?", [query.namespace, query.collection]
    if query.package is not None:
        where += " AND package = ?"
        values.append(query.package)
    if query.only_published:
        where += " AND publish"
    return where, tuple(values)


def _document(row: tuple[str, str, str, str | None, str, int, int, bytes, int, int]) -> Document:
    id, collection, namespace, package, name, updated_ms, publish, body, revision, crc = row
    if _document_crc(id, body) != crc:
        raise Corrupt()
    return Document(
        id=id,
        collection=collection,
        namespace=namespace,
        package=package,
        name=name,
        updated_ms=updated_ms,
        publish=bool(publish),
        body=body,
        revision=revision,
    )


def _key(row: tuple[str, bytes, bytes, str, str, int]) -> KeyRecord:
    uuid, digest, sealed, subject, namespace, is_blocked = row
    return KeyRecord(
        uuid=uuid, digest=digest, sealed=sealed, subject=subject, namespace=namespace, is_blocked=bool(is_blocked)
    )


def _readable(rows: Iterable[Row], read: Callable[[Row], T]) -> list[T]:
    """What reads of a list: a damaged row is stated, and does not keep the others from being seen."""
    out: list[T] = []
    for row in rows:
        try:
            out.append(read(row))
        except Corrupt:
            log.error("store.damaged_row", row=repr(row)[:80])
    return out


# ── activations ─────────────────────────────────────────────────────────────────────────────────────────────────

ROWS_AT_ONCE = 50
"""Records of one statement. SQLite gives up the interpreter's lock for each: with a statement for each record, this
thread and the event loop's would hand it to one another all the time, which costs several times the work itself.
"""
_PUT_ACTIVATIONS = "INSERT OR REPLACE INTO activations (id, namespace, name, start_ms, head, result, logs, crc) VALUES "
_VALUES = "(?, ?, ?, ?, ?, ?, ?, ?)"


def put_activations(rows: int) -> str:
    """Adds this many records."""
    return _PUT_ACTIVATIONS + ", ".join([_VALUES] * rows)


_ACTIVATION = "id, head, result, logs, crc"
GET_ACTIVATION = f"SELECT {_ACTIVATION} FROM activations WHERE id = ? AND namespace = ?"
GET_ACTIVATIONS = f"SELECT {_ACTIVATION} FROM activations WHERE namespace = ? AND id IN "
OLDEST_ID = "SELECT min(id) FROM activations"
PROGRESS = "SELECT indexed_to FROM progress"
SET_PROGRESS = "UPDATE progress SET indexed_to = ?"
_DELETE = "DELETE FROM activations WHERE id IN (SELECT id FROM activations"
_GONE = "RETURNING id, typeof(result) = 'integer'"
OLDEST = f"{_DELETE} ORDER BY id LIMIT ?) {_GONE}"
OLDER = f"{_DELETE} WHERE id < ? ORDER BY id LIMIT ?) {_GONE}"
SWEEP_ROWS = 1_000
VACUUM_PAGES = 250


class SqliteActivations:
    """The index of records: what lists are made from, and where a record lies once it left the ledger's memory.

    A large result is a file in the folder beside it; the row has its length then.
    """

    def __init__(self, database: Database, values: Values) -> None:
        self._database = database
        self._values = values

    @classmethod
    async def open(cls, path: Path) -> SqliteActivations:
        """Raises `StoreUnavailable` with a sentence when it cannot be used."""
        database = await Database.open(path, ACTIVATION_MIGRATIONS, synchronous="NORMAL", cache_kib=INDEX_CACHE_KIB)
        values = Values(_folder_of(path))

        def prepare(db: sqlite3.Connection) -> None:
            (oldest,) = db.execute(OLDEST_ID).fetchone()
            values.prepare(None if oldest is None else oldest.hex())

        await database.write(prepare)
        return cls(database, values)

    @classmethod
    async def borrow(cls, path: Path) -> SqliteActivations:
        """The index of another process, to be read."""
        return cls(await Borrowed.borrow(path), Values(_folder_of(path)))

    async def put(self, records: Sequence[ActivationRecord], indexed_to: int) -> None:
        """Adds the records; everything in the ledger before `indexed_to` is indexed by this."""
        large = [(record.head.id, record.result) for record in records if len(record.result) > LARGE_BYTES]

        def change(db: sqlite3.Connection) -> None:
            self._values.put(large)
            for at in range(0, len(records), ROWS_AT_ONCE):
                some = records[at : at + ROWS_AT_ONCE]
                values = [value for record in some for value in _row(record)]
                db.execute(put_activations(len(some)), values)
            db.execute(SET_PROGRESS, (indexed_to,))

        await self._database.write(change)

    async def indexed_to(self) -> int:
        (offset,) = await self._database.read(lambda db: db.execute(PROGRESS).fetchone())
        return int(offset)

    async def get(self, namespace: str, id: str) -> ActivationRecord | None:
        """Raises `Corrupt` when the stored bytes do not match their checksum."""
        rows = await self._rows(GET_ACTIVATION, (bytes.fromhex(id), namespace))
        return _record(rows[0]) if rows else None

    async def list(self, query: ActivationQuery) -> list[ActivationRecord]:
        where, values = _activation_filter(query)
        sql = f"SELECT {_ACTIVATION} FROM activations {where} ORDER BY start_ms DESC, id DESC LIMIT ? OFFSET ?"
        return _readable(await self._rows(sql, (*values, query.limit, query.skip)), _record)

    async def _rows(self, sql: str, values: tuple[object, ...]) -> Sequence[_ActivationRow]:
        def read(db: sqlite3.Connection) -> Sequence[_ActivationRow]:
            return [self._with_result(*row) for row in db.execute(sql, values)]

        return await self._database.read(read)

    def _with_result(self, id: bytes, head: bytes, result: bytes | int, logs: bytes, crc: int) -> _ActivationRow:
        if isinstance(result, int):
            try:
                result = self._values.get(id.hex())
            except Corrupt:
                result = b""  # which the checksum does not match
        return head, result, logs, crc

    async def places(self, query: ActivationQuery) -> Sequence[tuple[int, str]]:
        """Start and id of what a list begins with: the query's page, and all that it skips."""
        where, values = _activation_filter(query)
        sql = f"SELECT start_ms, id FROM activations {where} ORDER BY start_ms DESC, id DESC LIMIT ?"
        rows = await self._database.read(lambda db: db.execute(sql, (*values, query.skip + query.limit)).fetchall())
        return [(start_ms, id.hex()) for start_ms, id in rows]

    async def some(self, namespace: str, ids: Sequence[str]) -> Sequence[ActivationRecord]:
        """The records with these ids, in no order; what is gone or does not read is left out."""
        keys = [bytes.fromhex(id) for id in ids]
        sql = f"{GET_ACTIVATIONS} ({', '.join('?' * len(keys))})"
        return _readable(await self._rows(sql, (namespace, *keys)), _record)

    async def count(self, query: ActivationQuery) -> int:
        where, values = _activation_filter(query)
        sql = f"SELECT count(*) FROM activations {where}"
        (count,) = await self._database.read(lambda db: db.execute(sql, values).fetchone())
        return int(count)

    async def sweep(self, before_ms: int | None, max_bytes: int) -> int:
        """Removes records older than `before_ms` and, oldest first, those beyond `max_bytes` (0: no bound).

        In steps, so that nothing waits long behind it; how many were removed.
        """
        total = 0
        while gone := await self._database.write(lambda db: self._sweep_step(db, before_ms, max_bytes)):
            total += len(gone)
            await self._remove_values([id.hex() for id, is_large in gone if is_large])
        return total

    async def _remove_values(self, ids: Sequence[str]) -> None:
        if ids:
            await self._database.write(lambda _: self._values.remove(ids))

    def _sweep_step(self, db: sqlite3.Connection, before_ms: int | None, max_bytes: int) -> Sequence[tuple[bytes, int]]:
        """Ids begin with the time: what is older has a smaller id."""
        gone: Sequence[tuple[bytes, int]] = ()
        if before_ms is not None and before_ms > 0:
            gone = db.execute(OLDER, (before_ms.to_bytes(6, "big"), SWEEP_ROWS)).fetchall()
        if not gone and max_bytes and _used_bytes(db) + self._values.size_bytes > max_bytes:
            gone = db.execute(OLDEST, (SWEEP_ROWS,)).fetchall()
        db.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
        return gone

    async def checkpoint(self) -> bool:
        """Makes everything indexed so far durable in the file itself; false when a reader was in the way."""
        return await self._database.checkpoint()

    async def close(self) -> None:
        await self._database.close()


_ActivationRow = tuple[bytes, bytes, bytes, int]
"""Head, result, logs, checksum."""


def _folder_of(path: Path) -> Path:
    """Of the large results of an index."""
    return path.with_suffix(".values")


def _row(record: ActivationRecord) -> tuple[bytes, str, str, int, bytes, bytes | int, bytes, int]:
    head, result = record.head, record.result
    packed = _encode_head(head)
    logs = msgspec.json.encode(record.logs) if record.logs else b""
    return (
        bytes.fromhex(head.id),
        head.namespace,
        filter_name(head),
        head.start_ms,
        packed,
        result if len(result) <= LARGE_BYTES else len(result),
        logs,
        _crc(packed, result, logs),
    )


def filter_name(head: ActivationHead) -> str:
    """The name that a list's filter compares: `package/name` of an action in a package, else the name."""
    if head.path is None:
        return head.name
    return head.path.partition("/")[2]


def _crc(head: bytes, result: bytes, logs: bytes) -> int:
    return zlib.crc32(logs, zlib.crc32(result, zlib.crc32(head)))


_encode_head = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(ActivationHead).decode
_decode_logs = msgspec.json.Decoder(tuple[str, ...]).decode


def _record(row: _ActivationRow) -> ActivationRecord:
    head, result, logs, crc = row
    if _crc(head, result, logs) != crc:
        raise Corrupt()
    return ActivationRecord(head=_decode_head(head), result=result, logs=_decode_logs(logs) if logs else ())


def _activation_filter(query: ActivationQuery) -> tuple[str, tuple[object, ...]]:
    where: str = "WHERE namespace = ?"
    values: list[object] = [query.namespace]
    if query.name is not None:
        where += " AND name = ?"
        values.append(query.name)
    if query.since_ms is not None:
        where += " AND start_ms >= ?"
        values.append(query.since_ms)
    if query.upto_ms is not None:
        where += " AND start_ms <= ?"
        values.append(query.upto_ms)
    return where, tuple(values)


def _used_bytes(db: sqlite3.Connection) -> int:
    pages, free, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return (int(pages) - int(free)) * int(size)
