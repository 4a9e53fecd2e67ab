"""One SQLite file in WAL mode: one writer with group commit, one reader, numbered migrations.

Each side has a connection and a thread of its own. Writes that arrive while a commit is under way share the next one. A
file that another process writes is `Borrowed`: it has the reader alone.
"""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from visp.errors import Corrupt, StoreFull, StoreUnavailable, VispError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

T = TypeVar("T")

BUSY_MS = 5_000
PAGE_BYTES = 8 * 1024
"""Of a new file. A page goes to the log whole: small values want small ones (with 16 KiB a record costs a fifth more),
values of a megabyte large ones (with 4 KiB they cost a third more).
"""
CACHE_KIB = 2 * 1024
"""Of pages that a connection keeps: SQLite's default."""
WAITING_WRITES = 20_000
"""Writes that may wait for a commit; one more is refused."""
GROUP_WRITES = 500
"""Writes of one commit: so that the first of many is not kept waiting by the last."""


class Database:
    """A file's two connections. `write` and `read` take functions that run in a thread, inside a transaction."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"{path.stem}-write")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix=f"{path.stem}-read")
        self._waiting: list[tuple[Callable[[sqlite3.Connection], object], asyncio.Future[object]]] = []
        self._committing: asyncio.Task[None] | None = None
        self._is_closed = False
        self._to_write: sqlite3.Connection
        self._to_read: sqlite3.Connection

    @classmethod
    async def open(
        cls, path: Path, migrations: Sequence[str], *, synchronous: str, cache_kib: int = CACHE_KIB
    ) -> Database:
        """Opens the file and brings it to the newest version; `cache_kib` is the writer's.

        Raises `StoreUnavailable` with a sentence when it cannot be used or was written by a newer visp.
        """
        database = cls(path)
        loop = asyncio.get_running_loop()
        try:
            database._to_write = await loop.run_in_executor(
                database._writer, lambda: _open(path, synchronous, migrations, cache_kib)
            )
            database._to_read = await loop.run_in_executor(database._reader, lambda: _connect(path, synchronous))
        except sqlite3.Error as error:
            database._reader.shutdown()
            database._writer.shutdown()
            raise StoreUnavailable(f"{path} cannot be used: {error}") from None
        return database

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """What `query` gives; it sees every write that has been acknowledged."""
        if self._is_closed:
            raise StoreUnavailable()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reader, _translated, query, self._to_read)

    async def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """What `change` gives, once it is committed.

        When it raises, nothing of it is kept, and the others of its group are not touched.
        """
        if self._is_closed or len(self._waiting) >= WAITING_WRITES:
            raise StoreUnavailable()
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, done))  # type: ignore[arg-type]
        if self._committing is None:
            self._committing = asyncio.ensure_future(self._commit_on())
        return await done

    async def _commit_on(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:GROUP_WRITES], self._waiting[GROUP_WRITES:]
                changes = [change for change, _ in group]
                results = await loop.run_in_executor(self._writer, _commit, self._to_write, changes)
                for (_, done), result in zip(group, results, strict=True):
                    if done.cancelled():
                        continue
                    if isinstance(result, _Failed):
                        done.set_exception(result.error)
                    else:
                        done.set_result(result)
        finally:
            self._committing = None

    async def checkpoint(self) -> bool:
        """Moves what was written into the file itself, durably; whether all of it was moved."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, _translated, _checkpoint, self._to_write)

    async def close(self) -> None:
        """After what was written is committed; from then on everything is refused."""
        self._is_closed = True
        while self._committing is not None:
            await asyncio.wait([self._committing])
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._reader, self._to_read.close)
        await loop.run_in_executor(self._writer, self._to_write.close)
        self._reader.shutdown(wait=False)
        self._writer.shutdown(wait=False)


class Borrowed(Database):
    """A file that belongs to another process: what that one has committed can be read."""

    @classmethod
    async def borrow(cls, path: Path) -> Borrowed:
        """Opens a file that is there; raises `StoreUnavailable` when it cannot be used."""
        database = cls(path)
        loop = asyncio.get_running_loop()
        try:
            database._to_read = await loop.run_in_executor(database._reader, _borrow, path)
        except sqlite3.Error as error:
            database._reader.shutdown()
            raise StoreUnavailable(f"{path} cannot be read: {error}") from None
        return database

    async def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        raise StoreUnavailable()

    async def checkpoint(self) -> bool:
        raise StoreUnavailable()

    async def close(self) -> None:
        self._is_closed = True
        await asyncio.get_running_loop().run_in_executor(self._reader, self._to_read.close)
        self._reader.shutdown(wait=False)


class _Failed:
    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


def _connect(path: Path, synchronous: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
    connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA temp_store=MEMORY")  # a savepoint keeps pages as they were: not in a file of its own
    return connection


def _borrow(path: Path) -> sqlite3.Connection:
    """A connection that may do what the file's owner left undone when it was killed, and changes nothing else."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    connection.execute("PRAGMA query_only=1")
    return connection


def _open(path: Path, synchronous: str, migrations: Sequence[str], cache_kib: int) -> sqlite3.Connection:
    connection = _connect(path, synchronous)
    try:
        connection.execute(f"PRAGMA cache_size=-{cache_kib}")
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA journal_size_limit=67108864")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(migrations):
            raise sqlite3.DatabaseError(f"a newer visp wrote it (version {version}, this one knows {len(migrations)})")
        for number in range(version, len(migrations)):
            connection.executescript(f"BEGIN IMMEDIATE;{migrations[number]};PRAGMA user_version={number + 1};COMMIT;")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _commit(
    connection: sqlite3.Connection, changes: Sequence[Callable[[sqlite3.Connection], object]]
) -> list[object | _Failed]:
    """All in one transaction; where there are several, each in a savepoint, which costs a copy of what it changes."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        is_alone = len(changes) == 1
        results = [change(connection) if is_alone else _change(connection, change) for change in changes]
        connection.execute("COMMIT")
    except Exception as error:  # nothing of the group was committed, whatever it was
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        return [_failed(error)] * len(changes)
    return results


def _change(connection: sqlite3.Connection, change: Callable[[sqlite3.Connection], object]) -> object | _Failed:
    connection.execute("SAVEPOINT one")
    try:
        result = change(connection)
    except Exception as error:  # whatever it is, it is this change's alone
        if not connection.in_transaction:
            raise  # SQLite has given up the whole transaction: disk full, I/O error
        connection.execute("ROLLBACK TO one")
        result = _failed(error)
    connection.execute("RELEASE one")
    return result


def _failed(error: Exception) -> _Failed:
    return _Failed(_translate(error) if isinstance(error, (sqlite3.Error, OSError)) else error)


def _checkpoint(connection: sqlite3.Connection) -> bool:
    is_busy, pages, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return not is_busy and pages == moved


def _translated(query: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
    try:
        return query(connection)
    except (sqlite3.Error, OSError) as error:
        raise _translate(error) from error


def _translate(error: sqlite3.Error | OSError) -> VispError:
    """Foreign exceptions end here."""
    if isinstance(error, OSError):
        return StoreFull() if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreUnavailable()
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without what the extended code adds
    if code == sqlite3.SQLITE_FULL:
        return StoreFull()
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Corrupt()
    return StoreUnavailable()
