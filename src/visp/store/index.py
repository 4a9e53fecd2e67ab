"""The index of activations' records, in a SQLite file of each shard's.

It is NORMAL: what a power cut takes from it is in the ledger. No row is served whose bytes are not those that were
written: each has a checksum over all of its columns; those of a record that its head holds too are compared with it.
"""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from visp.errors import Corrupt
from visp.store import rows, tallies
from visp.store.database import Borrowed, Database
from visp.store.rows import NO_CHECKSUM, checksum, readable
from visp.store.values import LARGE_BYTES, Values
from visp.telemetry import log

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from visp.entity.activation import ActivationRecord
    from visp.store.base import ActivationQuery
    from visp.store.database import Migration
    from visp.store.rows import ActivationRow

    GoneRow = tuple[bytes, int, str, str, int]
    """Its id, whether its result is large, and what it counts for."""
    Aged = list[tuple[bytes, int]]
    """Namespaces, each with the start before which its records go."""


def _seal_progress(db: sqlite3.Connection) -> None:
    db.execute(f"ALTER TABLE progress ADD COLUMN crc INTEGER NOT NULL DEFAULT {NO_CHECKSUM}")
    for row in db.execute("SELECT indexed_to FROM progress").fetchall():
        db.execute("UPDATE progress SET crc = ?", (checksum(*row),))


ACTIVATION_MIGRATIONS: tuple[Migration, ...] = (
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
    _seal_progress,
    tallies.make,
)
INDEX_CACHE_KIB = 8 * 1024
"""So that a group of records of a hundred actions and more finds their pages in memory: SQLite's own 2 MiB hold 250."""

ROWS_AT_ONCE = 50
"""Records of one statement. SQLite gives up the interpreter's lock for each: with a statement for each record, this
thread and the event loop's would hand it to one another all the time, which costs several times the work itself.
"""
_PUT_ACTIVATIONS = "INSERT INTO activations (id, namespace, name, start_ms, head, result, logs, crc) VALUES "
_VALUES = "(?, ?, ?, ?, ?, ?, ?, ?)"


def put_activations(count: int) -> str:
    """Adds this many records."""
    return _PUT_ACTIVATIONS + ", ".join([_VALUES] * count)


def replace_activations(count: int) -> str:
    """Removes what there was under this many ids. It is said, as what `INSERT OR REPLACE` removes is not."""
    return f"DELETE FROM activations WHERE id IN ({', '.join('?' * count)}) RETURNING namespace, name, start_ms"


def some_activations(count: int) -> str:
    """Those of this many ids."""
    return f"SELECT {_ACTIVATION} FROM activations WHERE namespace = ? AND id IN ({', '.join('?' * count)})"


_ACTIVATION = "id, namespace, name, start_ms, head, result, logs, crc"
GET_ACTIVATION = f"SELECT {_ACTIVATION} FROM activations WHERE id = ? AND namespace = ?"
ONE_ACTIVATION = f"SELECT {_ACTIVATION} FROM activations WHERE id = ?"
ALL_ACTIVATIONS = f"SELECT {_ACTIVATION} FROM activations ORDER BY id"
ACTIVATIONS_AFTER = f"SELECT {_ACTIVATION} FROM activations WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
HAS_ACTIVATION = "SELECT 1 FROM activations WHERE id = ?"
DROP_ACTIVATION = "DELETE FROM activations WHERE id = ? RETURNING namespace, name, start_ms"
LARGE_RESULTS = "SELECT id FROM activations WHERE typeof(result) = 'integer' ORDER BY id"
_LATEST = "start_ms BETWEEN ? AND ? ORDER BY start_ms DESC, id DESC LIMIT ?"
PLACES = f"SELECT start_ms, id FROM activations WHERE namespace = ? AND {_LATEST}"
PLACES_OF_NAME = f"SELECT start_ms, id FROM activations WHERE namespace = ? AND name = ? AND {_LATEST}"
_LISTED = ", ".join(f"activations.{column}" for column in _ACTIVATION.split(", "))


def _records(places: str) -> str:
    """The rows of these places in their order, of which some are skipped in the index alone."""
    return (
        f"SELECT {_LISTED} FROM ({places} OFFSET ?) AS place CROSS JOIN activations ON activations.id = place.id "
        "ORDER BY place.start_ms DESC, place.id DESC"
    )


LIST_ACTIVATIONS, LIST_OF_NAME = _records(PLACES), _records(PLACES_OF_NAME)
NEWEST_ID = "SELECT max(id) FROM activations"
PROGRESS = "SELECT indexed_to, crc FROM progress"
SET_PROGRESS = "INSERT OR REPLACE INTO progress (rowid, indexed_to, crc) VALUES (1, ?, ?)"
_DELETE = "DELETE FROM activations WHERE id IN (SELECT id FROM activations"
_GONE = "RETURNING id, typeof(result) = 'integer', namespace, name, start_ms"
OLDEST = f"{_DELETE} ORDER BY id LIMIT ?) {_GONE}"
_TEXT = "CAST(? AS TEXT)"
"""Names go as bytes: those of a damaged row need not be text to Python."""
OLDER = f"{_DELETE} WHERE namespace = {_TEXT} AND start_ms < ? ORDER BY start_ms, id LIMIT ?) {_GONE}"
_NEXT = "SELECT min(namespace) FROM activations WHERE namespace < x'' AND namespace >"
OLDEST_OF_EACH = (
    f"WITH RECURSIVE each_one (owner) AS ({_NEXT} {_TEXT} "
    f"UNION ALL SELECT ({_NEXT} owner) FROM each_one WHERE owner IS NOT NULL) "
    "SELECT CAST(owner AS BLOB), (SELECT min(start_ms) FROM activations WHERE namespace = owner) "
    "FROM each_one WHERE owner IS NOT NULL LIMIT ?"
)
"""The next namespaces, each with the start of its oldest record: two looks into an index for each, not a walk."""
SWEEP_ROWS = 1_000
SWEEP_NAMESPACES = 1_000
ALL_ALIKE: Mapping[str, int | None] = MappingProxyType({})
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
        values = Values(folder_of(path))

        def prepare(db: sqlite3.Connection) -> None:
            values.prepare(partial(_has_record, db))

        await database.write(prepare)
        return cls(database, values)

    @classmethod
    async def borrow(cls, path: Path) -> SqliteActivations:
        """The index of another process, to be read."""
        return cls(await Borrowed.borrow(path), Values(folder_of(path)))

    async def put(self, records: Sequence[ActivationRecord], indexed_to: int) -> None:
        """Adds the records, of one id the last; everything in the ledger before `indexed_to` is indexed by this."""
        records = list({record.head.id: record for record in records}.values())
        large = [(record.head.id, record.result) for record in records if len(record.result) > LARGE_BYTES]

        def change(db: sqlite3.Connection) -> None:
            self._values.put(large)
            gone: list[tuple[str, str, int]] = []
            came: list[tuple[str, str, int]] = []
            for at in range(0, len(records), ROWS_AT_ONCE):
                some = [rows.activation(record) for record in records[at : at + ROWS_AT_ONCE]]
                gone += db.execute(replace_activations(len(some)), [row[0] for row in some]).fetchall()
                db.execute(put_activations(len(some)), [value for row in some for value in row])
                came += [row[1:4] for row in some]
            if gone:
                tallies.take(db, tallies.tally(gone))
            tallies.add(db, tallies.tally(came))
            db.execute(SET_PROGRESS, (indexed_to, checksum(indexed_to)))

        await self._database.write(change)

    async def indexed_to(self) -> int:
        """Everything in the ledger before it is in here; 0 when that is not known: then it is all indexed anew."""
        row = await self._database.read(lambda db: db.execute(PROGRESS).fetchone())
        offset, crc = row or (0, NO_CHECKSUM)
        if checksum(offset) != crc:
            log.error("index.progress_damaged", action="all that the ledger holds is indexed anew")
            return 0
        return int(offset)

    async def get(self, namespace: str, id: str) -> ActivationRecord | None:
        """Raises `Corrupt` when the stored bytes do not match their checksum."""
        found = await self._rows(GET_ACTIVATION, (bytes.fromhex(id), namespace))
        return rows.record(found[0]) if found else None

    async def list(self, query: ActivationQuery) -> list[ActivationRecord]:
        near = await tallies.nearer(query, [self])
        sql = LIST_ACTIVATIONS if near.name is None else LIST_OF_NAME
        return readable(await self._rows(sql, (*_filter(near), near.limit, near.skip)), rows.record)

    async def _rows(self, sql: str, values: tuple[object, ...]) -> Sequence[ActivationRow]:
        def read(db: sqlite3.Connection) -> Sequence[ActivationRow]:
            return [with_result(self._values, *row) for row in db.execute(sql, values)]

        return await self._database.read(read)

    async def places(self, query: ActivationQuery) -> Sequence[tuple[int, str]]:
        """Start and id of what a list begins with: the query's page, and all that it skips."""
        sql = PLACES if query.name is None else PLACES_OF_NAME
        values = (*_filter(query), query.skip + query.limit)
        found = await self._database.read(lambda db: db.execute(sql, values).fetchall())
        return [(start_ms, id.hex()) for start_ms, id in found if isinstance(id, bytes) and isinstance(start_ms, int)]

    async def some(self, namespace: str, ids: Sequence[str]) -> Sequence[ActivationRecord]:
        """The records with these ids, in no order; what is gone or does not read is left out."""
        keys = [bytes.fromhex(id) for id in ids]
        return readable(await self._rows(some_activations(len(keys)), (namespace, *keys)), rows.record)

    async def count(self, query: ActivationQuery) -> int:
        return await self._database.read(lambda db: tallies.count(db, query))

    async def tallied(self, query: ActivationQuery, level: int, first: int, end: int) -> dict[int, int]:
        """How many of the query's namespace and name started in each span of a level, of these spans."""
        values = (query.namespace, query.name or tallies.ALL, level, first, end)
        found = await self._database.read(lambda db: db.execute(tallies.TALLIES, values).fetchall())
        return {span: count for span, count in found if isinstance(span, int) and isinstance(count, int)}

    async def sweep(
        self, before_ms: int | None, max_bytes: int, own_before_ms: Mapping[str, int | None] = ALL_ALIKE
    ) -> int:
        """Removes records that started before `before_ms` and, oldest first, those beyond `max_bytes` (0: no bound).

        A namespace in `own_before_ms` has that bound of age instead; None is none. In steps, so that nothing waits long
        behind it; how many were removed.
        """
        total, last = 0, b""
        is_any_too_old = before_ms is not None or any(own is not None for own in own_before_ms.values())
        while is_any_too_old and (found := await self._oldest_of_each(last)):
            if found[-1][0] <= last:
                raise Corrupt()  # an index that is out of order leads back
            last = found[-1][0]
            aged = list(_aged(found, before_ms, own_before_ms))
            while aged:
                total += await self._sweep_step(partial(_take_older, aged))
        while removed := await self._sweep_step(partial(self._take_beyond, max_bytes)):
            total += removed
        return total

    async def _oldest_of_each(self, last: bytes) -> Sequence[tuple[bytes, int]]:
        values = (last, SWEEP_NAMESPACES)
        return await self._database.read(lambda db: db.execute(OLDEST_OF_EACH, values).fetchall())

    async def _sweep_step(self, take: Callable[[sqlite3.Connection], Sequence[GoneRow]]) -> int:
        def step(db: sqlite3.Connection) -> Sequence[GoneRow]:
            gone = take(db)
            tallies.take(db, tallies.tally(row[2:] for row in gone))
            db.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
            return gone

        gone = await self._database.write(step)
        large = [id.hex() for id, is_large, *_ in gone if is_large]
        if large:
            await self._database.write(lambda _: self._values.remove(large))
        return len(gone)

    def _take_beyond(self, max_bytes: int, db: sqlite3.Connection) -> Sequence[GoneRow]:
        """Ids begin with the time: what is older has a smaller id."""
        if not max_bytes or _used_bytes(db) + self._values.size_bytes <= max_bytes:
            return ()
        return db.execute(OLDEST, (SWEEP_ROWS,)).fetchall()

    async def checkpoint(self) -> bool:
        """Makes everything indexed so far durable in the file itself; false when a reader was in the way."""
        return await self._database.checkpoint()

    async def close(self) -> None:
        await self._database.close()


def _aged(
    found: Iterable[tuple[bytes, int]], before_ms: int | None, own_before_ms: Mapping[str, int | None]
) -> Iterable[tuple[bytes, int]]:
    """Those namespaces whose oldest record is too old."""
    for name, oldest_ms in found:
        before = own_before_ms.get(name.decode(errors="replace"), before_ms)
        if before is not None and isinstance(oldest_ms, int) and oldest_ms < before:
            yield name, before


def _take_older(aged: Aged, db: sqlite3.Connection) -> Sequence[GoneRow]:
    """A step's rows; the namespaces of which none is left are taken out of `aged`."""
    gone: list[GoneRow] = []
    while aged and len(gone) < SWEEP_ROWS:
        wanted = SWEEP_ROWS - len(gone)
        found = db.execute(OLDER, (*aged[-1], wanted)).fetchall()
        gone += found
        if len(found) < wanted:
            aged.pop()
    return gone


def _has_record(db: sqlite3.Connection, id: str) -> bool:
    try:
        return db.execute(HAS_ACTIVATION, (bytes.fromhex(id),)).fetchone() is not None
    except ValueError:  # the name of no record's file
        return False


def folder_of(path: Path) -> Path:
    """Of the large results of an index."""
    return path.with_suffix(".values")


def with_result(
    values: Values,
    id: bytes,
    namespace: str,
    name: str,
    start_ms: int,
    head: bytes,
    result: bytes | int,
    logs: bytes,
    crc: int,
) -> ActivationRow:
    """A row with a result that lies in a file: b"", which the checksum does not match, where there is none."""
    if isinstance(result, int):
        try:
            result = values.get(id.hex()) if isinstance(id, bytes) else b""
        except Corrupt:
            result = b""
    return id, namespace, name, start_ms, head, result, logs, crc


def _filter(query: ActivationQuery) -> tuple[object, ...]:
    """What a list's statement begins with."""
    name = () if query.name is None else (query.name,)
    return (query.namespace, *name, *tallies.window(query))


def _used_bytes(db: sqlite3.Connection) -> int:
    pages, free, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return (int(pages) - int(free)) * int(size)
