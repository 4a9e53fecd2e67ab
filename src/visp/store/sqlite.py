"""The embedded store of entities and subjects: one SQLite file, committed with `synchronous=FULL`.

No row is served whose bytes are not those that were written: each has a checksum over all of its columns.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.errors import Conflict, Corrupt
from visp.store import rows
from visp.store.base import Delete, Document, KeyRecord, Put
from visp.store.database import Database
from visp.store.rows import NO_CHECKSUM, checksum, readable

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

    from visp.store.base import EntityQuery, Revision
    from visp.store.database import Migration


def _seal_entities(db: sqlite3.Connection) -> None:
    """Checksums over whole rows. A document that did not fit its earlier one gets none that fits."""
    for table in ("keys", "namespace_limits", "revisions"):
        db.execute(f"ALTER TABLE {table} ADD COLUMN crc INTEGER NOT NULL DEFAULT {NO_CHECKSUM}")
    for row in db.execute("SELECT uuid, digest, sealed, subject, namespace, is_blocked FROM keys").fetchall():
        db.execute("UPDATE keys SET crc = ? WHERE uuid = ?", (checksum(*row), row[0]))
    for row in db.execute("SELECT namespace, limits FROM namespace_limits").fetchall():
        db.execute("UPDATE namespace_limits SET crc = ? WHERE namespace = ?", (checksum(*row), row[0]))
    for row in db.execute("SELECT last FROM revisions").fetchall():
        db.execute("UPDATE revisions SET crc = ?", (checksum(*row),))
    for (id,) in db.execute("SELECT id FROM documents").fetchall():
        *row, crc = db.execute(GET_DOCUMENT, (id,)).fetchone()
        values = (checksum(*row) if _fitted(id, row[_BODY], crc) else NO_CHECKSUM, id)
        db.execute("UPDATE documents SET crc = ? WHERE id = ?", values)


def _fitted(id: str, body: bytes, crc: int) -> bool:
    """Whether a document fits its checksum of the first version."""
    try:
        return zlib.crc32(body, zlib.crc32(id.encode())) == crc
    except (TypeError, ValueError):  # a column is not even of its type
        return False


ENTITY_MIGRATIONS: tuple[Migration, ...] = (
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
    _seal_entities,
    """
    CREATE INDEX keys_by_subject ON keys (subject, uuid);
    CREATE TABLE subject_changes (count INTEGER NOT NULL);
    INSERT INTO subject_changes VALUES (0);
    CREATE TRIGGER keys_insert AFTER INSERT ON keys BEGIN
        UPDATE subject_changes SET count = count + 1;
    END;
    CREATE TRIGGER keys_update AFTER UPDATE ON keys BEGIN
        UPDATE subject_changes SET count = count + 1;
    END;
    CREATE TRIGGER keys_delete AFTER DELETE ON keys BEGIN
        UPDATE subject_changes SET count = count + 1;
    END;
    CREATE TRIGGER namespace_limits_insert AFTER INSERT ON namespace_limits BEGIN
        UPDATE subject_changes SET count = count + 1;
    END;
    CREATE TRIGGER namespace_limits_update AFTER UPDATE ON namespace_limits BEGIN
        UPDATE subject_changes SET count = count + 1;
    END;
    CREATE TRIGGER namespace_limits_delete AFTER DELETE ON namespace_limits BEGIN
        UPDATE subject_changes SET count = count + 1;
    END;
    """,
    # A list of what only some documents have does not look through all of them.
    """
    CREATE INDEX documents_by_package ON documents (namespace, collection, package, updated_ms, id)
        WHERE package IS NOT NULL;
    CREATE INDEX documents_published ON documents (namespace, collection, updated_ms, id) WHERE publish;
    CREATE INDEX documents_by_collection ON documents (collection, id);
    """,
)

_DOCUMENT = "id, collection, namespace, package, name, updated_ms, publish, body, revision, crc"
_BODY = 7
GET_DOCUMENT = f"SELECT {_DOCUMENT} FROM documents WHERE id = ?"
GET_REVISION = "SELECT revision FROM documents WHERE id = ?"
PUT_DOCUMENT = f"INSERT OR REPLACE INTO documents ({_DOCUMENT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
SCAN_DOCUMENTS = f"SELECT {_DOCUMENT} FROM documents WHERE collection = ? AND id > ? ORDER BY id LIMIT ?"
ALL_DOCUMENTS = f"SELECT {_DOCUMENT} FROM documents ORDER BY id"
_FROM_LISTED = "FROM documents WHERE namespace = ? AND collection = ?"
_NEWEST = "ORDER BY updated_ms DESC, id DESC"


def _page(filter: str) -> str:
    """What is skipped is skipped in the index alone: only the documents of the page are looked up."""
    places = f"SELECT id AS place {_FROM_LISTED}{filter} {_NEWEST} LIMIT ? OFFSET ?"
    return f"SELECT {_DOCUMENT} FROM ({places}) CROSS JOIN documents ON id = place {_NEWEST}"


_OF_PACKAGE, _PUBLISHED = " AND package = ?", " AND publish"
LIST_DOCUMENTS = {
    (False, False): _page(""),
    (False, True): _page(_PUBLISHED),
    (True, False): _page(_OF_PACKAGE),
    (True, True): _page(_OF_PACKAGE + _PUBLISHED),
}
"""By whether those of one package are wanted, and whether only what is published."""
COUNT_DOCUMENTS = {
    (False, False): f"SELECT count(*) {_FROM_LISTED}",
    (False, True): f"SELECT count(*) {_FROM_LISTED}{_PUBLISHED}",
    (True, False): f"SELECT count(*) {_FROM_LISTED}{_OF_PACKAGE}",
    (True, True): f"SELECT count(*) {_FROM_LISTED}{_OF_PACKAGE}{_PUBLISHED}",
}
DELETE_DOCUMENT = "DELETE FROM documents WHERE id = ?"
GET_LAST_REVISION = "SELECT last, crc FROM revisions"
SET_LAST_REVISION = "UPDATE revisions SET last = ?, crc = ?"
_KEY = "uuid, digest, sealed, subject, namespace, is_blocked, crc"
PUT_KEY = f"INSERT OR REPLACE INTO keys ({_KEY}) VALUES (?, ?, ?, ?, ?, ?, ?)"
ALL_KEYS = f"SELECT {_KEY} FROM keys"
GET_KEY = f"SELECT {_KEY} FROM keys WHERE uuid = ?"
KEYS_OF = f"SELECT {_KEY} FROM keys WHERE namespace = ? ORDER BY uuid"
KEYS_OF_SUBJECT = f"SELECT {_KEY} FROM keys WHERE subject = ? ORDER BY uuid"
SUBJECT_CHANGES = "SELECT count FROM subject_changes"
DELETE_KEY = "DELETE FROM keys WHERE uuid = ?"
GET_LIMITS = "SELECT namespace, limits, crc FROM namespace_limits WHERE namespace = ?"
ALL_LIMITS = "SELECT namespace, limits, crc FROM namespace_limits"
PUT_LIMITS = "INSERT OR REPLACE INTO namespace_limits (namespace, limits, crc) VALUES (?, ?, ?)"
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
        return None if row is None else rows.document(row)

    async def write(self, changes: Sequence[Put | Delete]) -> list[Revision]:
        return await self._database.write(lambda db: [write_change(db, change) for change in changes])

    async def key(self, uuid: str) -> KeyRecord | None:
        """Raises `Corrupt` when the stored pair does not match its checksum."""
        row = await self._database.read(lambda db: db.execute(GET_KEY, (uuid,)).fetchone())
        return None if row is None else rows.key(row)

    async def keys_of(self, namespace: str) -> list[KeyRecord]:
        found = await self._database.read(lambda db: db.execute(KEYS_OF, (namespace,)).fetchall())
        return [rows.key(row) for row in found]

    async def keys_of_subject(self, subject: str) -> list[KeyRecord]:
        found = await self._database.read(lambda db: db.execute(KEYS_OF_SUBJECT, (subject,)).fetchall())
        return [rows.key(row) for row in found]

    async def delete_key(self, uuid: str) -> None:
        await self._database.write(lambda db: db.execute(DELETE_KEY, (uuid,)).rowcount)

    async def version(self) -> int:
        (version,) = await self._database.read(lambda db: db.execute(SUBJECT_CHANGES).fetchone())
        return int(version)

    async def put_key(self, record: KeyRecord) -> None:
        await self._database.write(lambda db: write_key(db, record))

    async def limits(self, namespace: str) -> bytes | None:
        """Raises `Corrupt` when they do not match their checksum."""
        row = await self._database.read(lambda db: db.execute(GET_LIMITS, (namespace,)).fetchone())
        return None if row is None else rows.limits(row)

    async def all_limits(self) -> list[tuple[str, bytes]]:
        return await self._database.read(
            lambda db: [(row[0], rows.limits(row)) for row in db.execute(ALL_LIMITS).fetchall()]
        )

    async def put_limits(self, namespace: str, limits: bytes | None) -> None:
        if limits is None:
            await self._database.write(lambda db: db.execute(DELETE_LIMITS, (namespace,)).rowcount)
        else:
            await self._database.write(lambda db: write_limits(db, namespace, limits))

    async def scan(self, collection: str, after: str, limit: int) -> list[Document]:
        found = await self._database.read(lambda db: db.execute(SCAN_DOCUMENTS, (collection, after, limit)).fetchall())
        return [rows.document(row) for row in found]

    async def list(self, query: EntityQuery) -> list[Document]:
        which, values = _entity_filter(query)
        values = (*values, query.limit, query.skip)
        found = await self._database.read(lambda db: db.execute(LIST_DOCUMENTS[which], values).fetchall())
        return readable(found, rows.document)

    async def count(self, query: EntityQuery) -> int:
        which, values = _entity_filter(query)
        (count,) = await self._database.read(lambda db: db.execute(COUNT_DOCUMENTS[which], values).fetchone())
        return int(count)

    async def close(self) -> None:
        await self._database.close()


def write_change(db: sqlite3.Connection, change: Put | Delete) -> Revision:
    """Within a transaction; raises `Conflict`."""
    id = change.document.id if isinstance(change, Put) else change.id
    row = db.execute(GET_REVISION, (id,)).fetchone()
    if (None if row is None else row[0]) != change.expected:
        raise Conflict(wording.CONCURRENT_CHANGE)
    if isinstance(change, Delete):
        db.execute(DELETE_DOCUMENT, (id,))
        return 0
    document, revision = change.document, _next_revision(db)
    values = (
        id,
        document.collection,
        document.namespace,
        document.package,
        document.name,
        document.updated_ms,
        int(document.publish),
        document.body,
        revision,
    )
    db.execute(PUT_DOCUMENT, (*values, checksum(*values)))
    return revision


def write_key(db: sqlite3.Connection, record: KeyRecord) -> None:
    *values, is_blocked = msgspec.structs.astuple(record)
    values.append(int(is_blocked))
    db.execute(PUT_KEY, (*values, checksum(*values)))


def write_limits(db: sqlite3.Connection, namespace: str, limits: bytes) -> None:
    db.execute(PUT_LIMITS, (namespace, limits, checksum(namespace, limits)))


def _next_revision(db: sqlite3.Connection) -> Revision:
    """One that was never given: caches would take what they hold under an earlier one for the new document."""
    last, crc = db.execute(GET_LAST_REVISION).fetchone() or (0, NO_CHECKSUM)
    if checksum(last) != crc:
        raise Corrupt()
    db.execute(SET_LAST_REVISION, (last + 1, checksum(last + 1)))
    return int(last) + 1


def _entity_filter(query: EntityQuery) -> tuple[tuple[bool, bool], tuple[object, ...]]:
    """Which of the statements, and what it is given."""
    values = (query.namespace, query.collection)
    if query.package is None:
        return (False, query.only_published), values
    return (True, query.only_published), (*values, query.package)
