"""What a server owes beside activations, in one SQLite file: dead letters, what idempotency keys and keys of batches
stand for, and which clients may call which API; and feeds of triggers, which `feeds.py` reads and writes.

All shards use the same file, each with connections of its own. What is acknowledged survives a power cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from visp.errors import Corrupt
from visp.store.base import WITHIN, Batch, Letter, Promise, Subscription
from visp.store.database import Database
from visp.store.feeds import SqliteFeeds
from visp.store.rows import checksum, readable
from visp.telemetry import log

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

MIGRATIONS = (
    """
    CREATE TABLE letters (
        id BLOB PRIMARY KEY, namespace TEXT NOT NULL, at_ms INTEGER NOT NULL, body BLOB NOT NULL, crc INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX letters_by_time ON letters (namespace, at_ms, id);
    CREATE TABLE promises (
        scope BLOB PRIMARY KEY, namespace TEXT NOT NULL, at_ms INTEGER NOT NULL, body BLOB NOT NULL, id BLOB NOT NULL,
        crc INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX promises_by_age ON promises (at_ms);
    CREATE TABLE promise_counts (namespace TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TRIGGER promise_made AFTER INSERT ON promises BEGIN
        INSERT INTO promise_counts VALUES (new.namespace, 1) ON CONFLICT DO UPDATE SET count = count + 1;
    END;
    CREATE TRIGGER promise_gone AFTER DELETE ON promises BEGIN
        UPDATE promise_counts SET count = count - 1 WHERE namespace = old.namespace;
    END;
    """,
    """
    CREATE TABLE subscriptions (
        namespace TEXT NOT NULL, base_path TEXT NOT NULL, digest BLOB NOT NULL, client TEXT NOT NULL,
        secret BLOB NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (namespace, base_path, digest)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE batches (
        scope BLOB PRIMARY KEY, namespace TEXT NOT NULL, at_ms INTEGER NOT NULL, number INTEGER NOT NULL,
        revision INTEGER NOT NULL, ids BLOB NOT NULL, crc INTEGER NOT NULL
    );
    CREATE INDEX batches_by_age ON batches (at_ms);
    CREATE TRIGGER batch_made AFTER INSERT ON batches BEGIN
        INSERT INTO promise_counts VALUES (new.namespace, 1 + length(new.ids) / 32)
            ON CONFLICT DO UPDATE SET count = count + excluded.count;
    END;
    CREATE TRIGGER batch_changed AFTER UPDATE ON batches BEGIN
        UPDATE promise_counts SET count = count + length(new.ids) / 32 - length(old.ids) / 32
            WHERE namespace = old.namespace;
    END;
    CREATE TRIGGER batch_gone AFTER DELETE ON batches BEGIN
        UPDATE promise_counts SET count = count - 1 - length(old.ids) / 32 WHERE namespace = old.namespace;
    END;
    """,
    """
    CREATE TABLE feeds (
        namespace TEXT NOT NULL, trigger TEXT NOT NULL, id TEXT NOT NULL, is_active INTEGER NOT NULL,
        entry BLOB NOT NULL, progress BLOB NOT NULL, crc INTEGER NOT NULL,
        holder TEXT NOT NULL DEFAULT '', PRIMARY KEY (namespace, trigger)
    ) WITHOUT ROWID;
    CREATE INDEX feeds_by_id ON feeds (id);
    CREATE INDEX feeds_by_holder ON feeds (holder, is_active);
    CREATE TABLE feed_holders (holder TEXT PRIMARY KEY, until_ms INTEGER NOT NULL) WITHOUT ROWID;
    """,
)
KEY_BYTES = ID_BYTES = 16
"""Of a batch's keys, which are digests, and of the ids that they stand for: they lie one pair behind the other."""

PUT_LETTER = "INSERT OR REPLACE INTO letters (id, namespace, at_ms, body, crc) VALUES (?, ?, ?, ?, ?)"
_LETTER = "SELECT id, namespace, at_ms, body, crc FROM letters"
GET_LETTER = f"{_LETTER} WHERE id = ? AND namespace = ?"
LETTERS = f"{_LETTER} WHERE namespace = ? ORDER BY at_ms DESC, id DESC LIMIT ? OFFSET ?"
COUNT_LETTERS = "SELECT count(*) FROM letters WHERE namespace = ?"
DROP_LETTER = "DELETE FROM letters WHERE id = ? AND namespace = ?"
OLDEST_LETTERS = (
    "DELETE FROM letters WHERE id IN (SELECT id FROM letters WHERE namespace = ? ORDER BY at_ms DESC, id DESC "
    "LIMIT -1 OFFSET ?)"
)
ALL_LETTERS = f"{_LETTER} ORDER BY id"
_PROMISE = "scope, namespace, at_ms, body, id, crc"
GET_PROMISE = f"SELECT {_PROMISE} FROM promises WHERE scope = ?"
ALL_PROMISES = f"SELECT {_PROMISE} FROM promises ORDER BY scope"
PUT_PROMISE = (
    f"INSERT INTO promises ({_PROMISE}) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET at_ms = excluded.at_ms, body = excluded.body, id = excluded.id, crc = excluded.crc "
    "WHERE at_ms < ?"
)
_COUNTED = (
    "SELECT namespace, count(*) AS number FROM promises GROUP BY namespace UNION ALL "
    "SELECT namespace, sum(1 + length(ids) / 32) AS number FROM batches GROUP BY namespace"
)
MISCOUNTED = (
    "SELECT namespace FROM promise_counts LEFT JOIN "
    f"(SELECT namespace, sum(number) AS number FROM ({_COUNTED}) GROUP BY namespace) USING (namespace) "
    "WHERE count != coalesce(number, 0) UNION "
    "SELECT namespace FROM promises WHERE namespace NOT IN (SELECT namespace FROM promise_counts) UNION "
    "SELECT namespace FROM batches WHERE namespace NOT IN (SELECT namespace FROM promise_counts)"
)
"""Namespaces whose promises are not as many as their count says: a key is one, and so is a batch beside its keys."""
COUNT_PROMISES = "SELECT count FROM promise_counts WHERE namespace = ?"
DROP_PROMISE = "DELETE FROM promises WHERE scope = ?"
OLD_PROMISES = "DELETE FROM promises WHERE scope IN (SELECT scope FROM promises WHERE at_ms < ? LIMIT 1000)"
_BATCH = "scope, namespace, at_ms, number, revision, ids, crc"
GET_BATCH = f"SELECT {_BATCH} FROM batches WHERE scope = ?"
ALL_BATCHES = f"SELECT {_BATCH} FROM batches ORDER BY scope"
PUT_BATCH = (
    f"INSERT INTO batches ({_BATCH}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET at_ms = excluded.at_ms, "
    "number = excluded.number, revision = excluded.revision, ids = excluded.ids, crc = excluded.crc"
)
OLD_BATCHES = "DELETE FROM batches WHERE scope IN (SELECT scope FROM batches WHERE at_ms < ? LIMIT 1000)"
_SUBSCRIPTION = "namespace, base_path, digest, client, secret, crc"
PUT_SUBSCRIPTION = f"INSERT OR REPLACE INTO subscriptions ({_SUBSCRIPTION}) VALUES (?, ?, ?, ?, ?, ?)"
_OF_API = "namespace = ? AND base_path = ?"
GET_SUBSCRIPTION = f"SELECT {_SUBSCRIPTION} FROM subscriptions WHERE {_OF_API} AND digest = ?"
SUBSCRIPTIONS = f"SELECT {_SUBSCRIPTION} FROM subscriptions WHERE {_OF_API}"
ALL_SUBSCRIPTIONS = f"SELECT {_SUBSCRIPTION} FROM subscriptions"
SUBSCRIPTIONS_IN_ORDER = f"{ALL_SUBSCRIPTIONS} ORDER BY namespace, base_path, client"
COUNT_SUBSCRIPTIONS = "SELECT count(*) FROM subscriptions WHERE namespace = ?"
DROP_SUBSCRIPTION = f"DELETE FROM subscriptions WHERE {_OF_API} AND digest = ?"
DROP_SUBSCRIPTIONS = (
    "DELETE FROM subscriptions WHERE namespace = ? AND (base_path = ? OR substr(base_path, 1, length(?)) = ?)"
)

LetterRow = tuple[bytes, str, int, bytes, int]


class SqlitePromises:
    """`LetterStore`, `PromiseStore`, `BatchStore` and `SubscriptionStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def open(cls, path: Path) -> SqlitePromises:
        """Raises `StoreUnavailable` with a sentence when it cannot be used."""
        return cls(await Database.open(path, MIGRATIONS, synchronous="FULL"))

    @property
    def feeds(self) -> SqliteFeeds:
        return SqliteFeeds(self._database)

    async def close(self) -> None:
        await self._database.close()

    # ── dead letters ────────────────────────────────────────────────────────────────────────────────────────────

    async def put_letter(self, letter: Letter, keep: int) -> int:
        row = (bytes.fromhex(letter.id), letter.namespace, letter.at_ms, letter.body)
        values = (*row, checksum(*row))

        def change(db: sqlite3.Connection) -> int:
            db.execute(PUT_LETTER, values)
            return db.execute(OLDEST_LETTERS, (letter.namespace, keep)).rowcount

        return await self._database.write(change)

    async def letter(self, namespace: str, id: str) -> Letter | None:
        key = bytes.fromhex(id)
        row = await self._database.read(lambda db: db.execute(GET_LETTER, (key, namespace)).fetchone())
        return None if row is None else read_letter(row)

    async def letters(self, namespace: str, skip: int, limit: int) -> Sequence[Letter]:
        rows = await self._database.read(lambda db: db.execute(LETTERS, (namespace, limit, skip)).fetchall())
        return [letter for row in rows if (letter := _listed(row)) is not None]

    async def count_letters(self, namespace: str) -> int:
        (count,) = await self._database.read(lambda db: db.execute(COUNT_LETTERS, (namespace,)).fetchone())
        return int(count)

    async def drop_letter(self, namespace: str, id: str) -> bool:
        key = bytes.fromhex(id)
        return await self._database.write(lambda db: db.execute(DROP_LETTER, (key, namespace)).rowcount) > 0

    # ── promises ────────────────────────────────────────────────────────────────────────────────────────────────

    async def promise(self, scope: bytes, since_ms: int) -> Promise | None:
        row = await self._database.read(lambda db: db.execute(GET_PROMISE, (scope,)).fetchone())
        if row is None:
            return None
        promise = read_promise(row)
        return promise if promise.at_ms >= since_ms else None

    async def put_promise(
        self, scope: bytes, namespace: str, promise: Promise, since_ms: int, limit: int
    ) -> Promise | None:
        row = (scope, namespace, promise.at_ms, promise.body, bytes.fromhex(promise.id))
        values = (*row, checksum(*row), since_ms)

        def change(db: sqlite3.Connection) -> Promise | None:
            counted = db.execute(COUNT_PROMISES, (namespace,)).fetchone()
            if counted is not None and counted[0] >= limit:
                return None
            db.execute(PUT_PROMISE, values)
            return read_promise(db.execute(GET_PROMISE, (scope,)).fetchone())

        return await self._database.write(change)

    async def drop_promise(self, scope: bytes) -> None:
        await self._database.write(lambda db: db.execute(DROP_PROMISE, (scope,)).rowcount)

    async def sweep_promises(self, before_ms: int) -> int:
        total = 0
        while removed := await self._database.write(lambda db: db.execute(OLD_PROMISES, (before_ms,)).rowcount):
            total += removed
        return total

    # ── batches ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def batch(self, scope: bytes) -> Batch | None:
        row = await self._database.read(lambda db: db.execute(GET_BATCH, (scope,)).fetchone())
        return None if row is None else read_batch(row)

    async def put_batch(self, scope: bytes, namespace: str, batch: Batch, limit: int) -> bool | None:
        ids = b"".join(key + bytes.fromhex(id) for key, id in batch.ids.items())
        row = (scope, namespace, batch.at_ms, batch.number, batch.revision + 1, ids)
        values = (*row, checksum(*row))

        def change(db: sqlite3.Connection) -> bool | None:
            held = db.execute(GET_BATCH, (scope,)).fetchone()
            if (0 if held is None else held[4]) != batch.revision:
                return False
            counted = db.execute(COUNT_PROMISES, (namespace,)).fetchone()
            more = len(batch.ids) + 1 if held is None else len(batch.ids) - len(held[5]) // (KEY_BYTES + ID_BYTES)
            if more > 0 and (0 if counted is None else counted[0]) + more > limit:
                return None
            db.execute(PUT_BATCH, values)
            return True

        return await self._database.write(change)

    async def sweep_batches(self, before_ms: int) -> int:
        total = 0
        while removed := await self._database.write(lambda db: db.execute(OLD_BATCHES, (before_ms,)).rowcount):
            total += removed
        return total

    # ── subscriptions ───────────────────────────────────────────────────────────────────────────────────────────

    async def put_subscription(self, subscription: Subscription, limit: int) -> bool:
        values = row_of(subscription)

        def change(db: sqlite3.Connection) -> bool:
            is_held = db.execute(GET_SUBSCRIPTION, values[:3]).fetchone() is not None
            if not is_held and db.execute(COUNT_SUBSCRIPTIONS, values[:1]).fetchone()[0] >= limit:
                return False
            db.execute(PUT_SUBSCRIPTION, values)
            return True

        return await self._database.write(change)

    async def subscription(self, namespace: str, base_path: str, digest: bytes) -> Subscription | None:
        key = (namespace, base_path, digest)
        row = await self._database.read(lambda db: db.execute(GET_SUBSCRIPTION, key).fetchone())
        return None if row is None else read_subscription(row)

    async def subscriptions(self, namespace: str, base_path: str) -> Sequence[Subscription]:
        key = (namespace, base_path)
        rows = await self._database.read(lambda db: db.execute(SUBSCRIPTIONS, key).fetchall())
        return sorted(readable(rows, read_subscription), key=lambda held: held.client)

    async def drop_subscription(self, namespace: str, base_path: str, digest: bytes | None) -> bool:
        key = (namespace, base_path)
        if digest is None:
            of_paths = (base_path + WITHIN,) * 2
            return await self._database.write(lambda db: db.execute(DROP_SUBSCRIPTIONS, (*key, *of_paths)).rowcount) > 0
        return await self._database.write(lambda db: db.execute(DROP_SUBSCRIPTION, (*key, digest)).rowcount) > 0


def _listed(row: LetterRow) -> Letter | None:
    try:
        return read_letter(row)
    except Corrupt:
        log.error("letters.damaged", id=row[0].hex() if isinstance(row[0], bytes) else repr(row[0]))
        return None


def read_letter(row: LetterRow) -> Letter:
    """Raises `Corrupt`, as the others do."""
    *values, crc = row
    if checksum(*values) != crc:
        raise Corrupt()
    id, namespace, at_ms, body, _ = row
    return Letter(id=id.hex(), namespace=namespace, at_ms=at_ms, body=body)


def read_promise(row: tuple[bytes, str, int, bytes, bytes, int]) -> Promise:
    *values, crc = row
    if checksum(*values) != crc:
        raise Corrupt()
    _, _, at_ms, body, id, _ = row
    return Promise(body=body, id=id.hex(), at_ms=at_ms)


def read_batch(row: tuple[bytes, str, int, int, int, bytes, int]) -> Batch:
    *values, crc = row
    if checksum(*values) != crc:
        raise Corrupt()
    _, _, at_ms, number, revision, ids, _ = row
    step = KEY_BYTES + ID_BYTES
    pairs = (ids[at : at + step] for at in range(0, len(ids), step))
    by_key = {pair[:KEY_BYTES]: pair[KEY_BYTES:].hex() for pair in pairs}
    return Batch(number=number, at_ms=at_ms, ids=by_key, revision=revision)


def row_of(subscription: Subscription) -> tuple[Any, ...]:
    row = msgspec.structs.astuple(subscription)
    return (*row, checksum(*row))


def read_subscription(row: tuple[str, str, bytes, str, bytes, int]) -> Subscription:
    *values, crc = row
    if checksum(*values) != crc:
        raise Corrupt()
    namespace, base_path, digest, client, secret, _ = row
    return Subscription(namespace=namespace, base_path=base_path, digest=digest, client=client, secret=secret)
