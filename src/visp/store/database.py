"""One SQLite file in WAL mode: one writer with group commit, one reader, numbered migrations.

Each side has a connection and a thread of its own. Writes that arrive while a commit is under way share the next one. A
file that another process writes is `Borrowed`: it has the reader alone.

A file that is damaged is refused when it is opened, as far as a quick look shows. What it does not show is found by the
checksums of rows, which are their readers' business, and by `visp admin check`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from visp.errors import Corrupt, StoreFull, StoreUnavailable, VispError
from visp.store import wal
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Migration = str | Callable[[sqlite3.Connection], None]
    """A script, or a function that runs inside the migration's transaction."""

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


LOOKED_THROUGH_BYTES = 16 * 1024 * 1024
"""A file up to this size is looked through at every start, which takes a fifth of a second at the most."""
LOOKED_AT_BYTES = 128 * 1024 * 1024
"""One up to this size is looked at without comparing its indexes, which is five times as fast; a larger one is not."""
FAILURES = (sqlite3.Error, UnicodeDecodeError)
"""What a read raises. SQLite's sentence about a damaged schema may hold bytes of it, which are no text."""
DAMAGED = "`visp admin check` says what is damaged, and `visp admin restore` brings back a backup"
NEWER = "run that visp, or restore a backup that this one made"


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
        cls, path: Path, migrations: Sequence[Migration], *, synchronous: str, cache_kib: int = CACHE_KIB
    ) -> Database:
        """Opens the file and brings it to the newest version; `cache_kib` is the writer's.

        Raises `StoreUnavailable` with a sentence when it cannot be used, is damaged or was written by a newer visp.
        """
        database = cls(path)
        loop = asyncio.get_running_loop()
        try:
            database._to_write = await loop.run_in_executor(
                database._writer, lambda: _open(path, synchronous, migrations, cache_kib)
            )
            database._to_read = await loop.run_in_executor(database._reader, lambda: _connect(path, synchronous))
        except (*FAILURES, OSError) as error:
            database._reader.shutdown()
            database._writer.shutdown()
            raise StoreUnavailable(f"{path} cannot be used: {error}{_advice(error)}") from None
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
        except FAILURES as error:
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
    connection.text_factory = _text
    return connection


def _borrow(path: Path) -> sqlite3.Connection:
    """A connection that may do what the file's owner left undone when it was killed, and changes nothing else."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    connection.execute("PRAGMA query_only=1")
    connection.text_factory = _text
    return connection


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that leaves the file, and its log, as they are; another process may write it meanwhile."""
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        connection.text_factory = _text
        yield connection
    finally:
        connection.close()


def _text(raw: bytes) -> str:
    """Damaged bytes become a text that no checksum fits: they must not keep other rows from being read."""
    return raw.decode(errors="surrogateescape")


def _open(path: Path, synchronous: str, migrations: Sequence[Migration], cache_kib: int) -> sqlite3.Connection:
    if synchronous == "FULL":
        _look_at_log(path)
    connection = _connect(path, synchronous)
    try:
        connection.execute(f"PRAGMA cache_size=-{cache_kib}")
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA journal_size_limit=67108864")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(migrations):
            raise Newer(f"a newer visp wrote it (version {version}, this one knows {len(migrations)})")
        if version < 0:
            raise Damaged(f"it is damaged (version {version})")
        _look_through(connection, path.stat().st_size)
        for number in range(version, len(migrations)):
            _migrate(connection, migrations[number], number + 1)
    except BaseException:
        connection.close()
        raise
    return connection


class Newer(sqlite3.DatabaseError):
    """Written by a visp that knows more."""


def check_version(path: Path, migrations: Sequence[Migration]) -> None:
    """Raises `StoreUnavailable` when a newer visp wrote the file, or it cannot be read. Its owner may be at work."""
    try:
        with contextlib.closing(_borrow(path)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
    except FAILURES as error:
        raise StoreUnavailable(f"{path} cannot be read: {error}") from None
    if version > len(migrations):
        raise StoreUnavailable(f"{path} was written by a newer visp (version {version}): {NEWER}")


class Damaged(sqlite3.DatabaseError):
    """Found by ourselves: SQLite's own findings have an error code."""


def _migrate(connection: sqlite3.Connection, migration: Migration, version: int) -> None:
    if isinstance(migration, str):
        connection.executescript(f"BEGIN IMMEDIATE;{migration};PRAGMA user_version={version};COMMIT;")
        return
    connection.execute("BEGIN IMMEDIATE")
    migration(connection)
    connection.execute(f"PRAGMA user_version={version}")
    connection.execute("COMMIT")


def _look_at_log(path: Path) -> None:
    """SQLite ends its log where a frame does not fit its checksum, and says nothing of what it drops."""
    state = wal.examine(path)
    while state.is_damaged and (again := wal.examine(path)) != state:
        state = again  # another process began it anew while it was read
    if state.is_damaged:
        raise Damaged(
            f"its log is damaged at byte {state.whole_bytes} of {path.name}-wal: what it held has been acknowledged"
        )
    if state.cut_bytes:
        log.warning("store.cut", file=f"{path.name}-wal", at=state.whole_bytes, bytes=state.cut_bytes)


def _look_through(connection: sqlite3.Connection, size_bytes: int) -> None:
    if size_bytes > LOOKED_AT_BYTES:
        return
    pragma = "integrity_check" if size_bytes <= LOOKED_THROUGH_BYTES else "quick_check"
    found = [row[0] for row in connection.execute(f"PRAGMA {pragma}(1)")]
    if found != ["ok"]:
        raise Damaged(f"it is damaged ({' '.join(str(found[0]).split())})")


def _advice(error: sqlite3.Error | UnicodeDecodeError | OSError) -> str:
    """What to do about a file that cannot be used, where visp knows."""
    if isinstance(error, Newer):
        return f"; {NEWER}"
    return f"; {DAMAGED}" if isinstance(error, (Damaged, UnicodeDecodeError)) or _code(error) in CORRUPT_CODES else ""


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
    return _Failed(_translate(error) if isinstance(error, (*FAILURES, OSError)) else error)


def _checkpoint(connection: sqlite3.Connection) -> bool:
    is_busy, pages, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return not is_busy and pages == moved


def _translated(query: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
    try:
        return query(connection)
    except (*FAILURES, OSError) as error:
        raise _translate(error) from error


def _translate(error: sqlite3.Error | UnicodeDecodeError | OSError) -> VispError:
    """Foreign exceptions end here."""
    if isinstance(error, OSError):
        return StoreFull() if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreUnavailable()
    if isinstance(error, UnicodeDecodeError):
        return Corrupt()
    code = _code(error)
    if code == sqlite3.SQLITE_FULL:
        return StoreFull()
    if code in CORRUPT_CODES:
        return Corrupt()
    return StoreUnavailable()


CORRUPT_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _code(error: BaseException) -> int:
    """SQLite's number of an error, without what the extended code adds."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
