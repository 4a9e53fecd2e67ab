"""One SQLite file: group commit, migrations, foreign exceptions translated."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from visp.errors import Conflict, Corrupt, StoreFull, StoreUnavailable
from visp.store import database as module
from visp.store.database import PAGE_BYTES, Database

FIRST = "CREATE TABLE words (word TEXT PRIMARY KEY)"
SECOND = "ALTER TABLE words ADD COLUMN length INTEGER; INSERT INTO words VALUES ('new', 3)"
PAGE = PAGE_BYTES
INSERT = "INSERT INTO words (word) VALUES (?)"


def overwrite(path: Path, at: int, data: bytes) -> None:
    path.touch()
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "words.db"


@pytest.fixture
async def database(path: Path):
    opened = await Database.open(path, [FIRST], synchronous="NORMAL")
    yield opened
    await opened.close()


def add(*words: str) -> Callable[[sqlite3.Connection], int]:
    def change(db: sqlite3.Connection) -> int:
        for word in words:
            db.execute(INSERT, (word,))
        return len(words)

    return change


async def words(database: Database) -> list[str]:
    rows = await database.read(lambda db: db.execute("SELECT word FROM words ORDER BY word").fetchall())
    return [word for (word,) in rows]


async def test_a_write_that_is_acknowledged_is_read(database: Database) -> None:
    assert await database.write(add("a", "b")) == 2
    assert await words(database) == ["a", "b"]


async def test_writes_that_arrive_together_share_a_commit(database: Database, path: Path) -> None:
    seen: list[int] = []

    def count_elsewhere(db: sqlite3.Connection) -> None:
        with sqlite3.connect(path) as other:
            seen.append(other.execute("SELECT count(*) FROM words").fetchone()[0])
        other.close()

    async with asyncio.TaskGroup() as tasks:
        for word in "abc":
            tasks.create_task(database.write(add(word)))
        tasks.create_task(database.write(count_elsewhere))
    assert seen == [0]  # three inserts before it, and none of them committed yet
    assert await words(database) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Conflict("taken"), Conflict),
        (ValueError("a mistake of the programmer"), ValueError),
        (sqlite3.IntegrityError("not unique"), StoreUnavailable),
    ],
)
async def test_a_change_that_fails_keeps_nothing_and_hurts_no_other(
    database: Database, error: Exception, expected: type[Exception]
) -> None:
    def fail(db: sqlite3.Connection) -> None:
        db.execute(INSERT, ("half",))
        raise error

    results = await asyncio.gather(
        database.write(add("before")), database.write(fail), database.write(add("after")), return_exceptions=True
    )
    assert [type(result) for result in results] == [int, expected, int]
    assert await words(database) == ["after", "before"]


async def test_a_real_violation_hurts_no_other(database: Database) -> None:
    await database.write(add("a"))
    results = await asyncio.gather(database.write(add("a")), database.write(add("b")), return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable, int]
    assert await words(database) == ["a", "b"]


async def test_a_group_that_cannot_be_committed_is_refused_and_the_next_one_is_not(database: Database) -> None:
    def give_up(db: sqlite3.Connection) -> None:
        db.execute("ROLLBACK")  # as SQLite does itself on a full disk
        raise sqlite3.OperationalError("disk I/O error")

    results = await asyncio.gather(database.write(add("a")), database.write(give_up), return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable, StoreUnavailable]
    await database.write(add("b"))
    assert await words(database) == ["b"]


async def test_a_full_database_is_store_full(database: Database) -> None:
    await database.write(lambda db: db.execute("PRAGMA max_page_count=8").fetchone())
    with pytest.raises(StoreFull):
        await database.write(add("x" * 100_000))
    assert await words(database) == []
    await database.write(add("small"))
    assert await words(database) == ["small"]


async def test_a_caller_that_is_cancelled_harms_no_other(database: Database) -> None:
    first = asyncio.ensure_future(database.write(add("a")))
    second = asyncio.ensure_future(database.write(add("b")))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 1
    assert "b" in await words(database)


async def test_too_many_waiting_writes_are_refused(database: Database, monkeypatch) -> None:
    monkeypatch.setattr(module, "WAITING_WRITES", 2)
    results = await asyncio.gather(*(database.write(add(word)) for word in "abcd"), return_exceptions=True)
    assert [type(result) for result in results] == [int, int, StoreUnavailable, StoreUnavailable]


async def test_more_writes_than_a_group_are_all_committed(database: Database, monkeypatch) -> None:
    monkeypatch.setattr(module, "GROUP_WRITES", 2)
    await asyncio.gather(*(database.write(add(word)) for word in "abcde"))
    assert await words(database) == list("abcde")


async def test_close_waits_for_what_was_written_and_refuses_what_comes_after(path: Path) -> None:
    opened = await Database.open(path, [FIRST], synchronous="FULL")
    writing = asyncio.ensure_future(opened.write(add("a")))
    await asyncio.sleep(0)
    await opened.close()
    assert await writing == 1
    with pytest.raises(StoreUnavailable):
        await opened.write(add("b"))
    with pytest.raises(StoreUnavailable):
        await words(opened)


async def test_migrations_are_applied_once_and_in_order(path: Path) -> None:
    opened = await Database.open(path, [FIRST], synchronous="NORMAL")
    await opened.write(add("old"))
    await opened.close()
    for _ in range(2):
        opened = await Database.open(path, [FIRST, SECOND], synchronous="NORMAL")
        assert await words(opened) == ["new", "old"]
        await opened.close()


async def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    await (await Database.open(path, [FIRST], synchronous="NORMAL")).close()
    with pytest.raises(StoreUnavailable, match=r"words\.db cannot be used"):
        await Database.open(path, [FIRST, SECOND + "; INSERT INTO nowhere VALUES (1)"], synchronous="NORMAL")
    opened = await Database.open(path, [FIRST], synchronous="NORMAL")
    assert await words(opened) == []
    await opened.close()


async def test_a_newer_file_is_refused_with_a_sentence(path: Path) -> None:
    await (await Database.open(path, [FIRST, SECOND], synchronous="NORMAL")).close()
    with pytest.raises(
        StoreUnavailable,
        match=r"words\.db cannot be used: a newer visp wrote it \(version 2, this one knows 1\)",
    ):
        await Database.open(path, [FIRST], synchronous="NORMAL")


async def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    overwrite(path, 0, b"no database at all" * 500)
    with pytest.raises(StoreUnavailable, match=r"words\.db cannot be used"):
        await Database.open(path, [FIRST], synchronous="NORMAL")


@pytest.mark.parametrize("most", [1 << 30, 0], ids=["small", "larger"])
async def test_a_damaged_page_is_refused_with_what_to_do(
    path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(module, "LOOKED_THROUGH_BYTES", most)
    opened = await Database.open(path, [FIRST], synchronous="NORMAL")
    await opened.write(add(*(f"word {number:05d}" for number in range(2_000))))
    await opened.close()
    overwrite(path, 3 * PAGE, b"\xff" * PAGE)
    with pytest.raises(StoreUnavailable, match=r"words\.db cannot be used: it is damaged .*`visp admin restore`"):
        await Database.open(path, [FIRST], synchronous="NORMAL")


async def test_a_schema_that_is_no_text_is_refused(path: Path) -> None:
    """SQLite puts its bytes into what it says."""
    await (await Database.open(path, [FIRST], synchronous="NORMAL")).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA writable_schema=1")
        db.execute("UPDATE sqlite_schema SET name = CAST(X'd5776f' AS TEXT), sql = CAST(X'd5776f' AS TEXT)")
    db.close()
    with pytest.raises(StoreUnavailable, match=r"words\.db cannot be used: .*`visp admin restore`"):
        await Database.open(path, [FIRST], synchronous="NORMAL")


async def test_a_version_that_never_was_is_damage(path: Path) -> None:
    await (await Database.open(path, [FIRST], synchronous="NORMAL")).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=-7")
    db.close()
    with pytest.raises(StoreUnavailable, match=r"it is damaged \(version -7\)"):
        await Database.open(path, [FIRST], synchronous="NORMAL")


async def test_a_migration_may_be_a_function(path: Path) -> None:
    await (await Database.open(path, [FIRST], synchronous="NORMAL")).close()

    def add_one(db: sqlite3.Connection) -> None:
        db.execute(INSERT, ("by a function",))

    def fail(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM words")
        raise sqlite3.OperationalError("no")

    with pytest.raises(StoreUnavailable):
        await Database.open(path, [FIRST, add_one, fail], synchronous="NORMAL")
    opened = await Database.open(path, [FIRST, add_one], synchronous="NORMAL")
    assert await words(opened) == ["by a function"]
    await opened.close()


async def test_a_damaged_page_is_corrupt(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOKED_AT_BYTES", 0)  # as of a file that is too large for that
    opened = await Database.open(path, [FIRST], synchronous="NORMAL")
    await opened.write(add(*(f"word {number:05d}" for number in range(20_000))))
    assert await opened.checkpoint()
    await opened.close()
    overwrite(path, 2 * PAGE, b"\xff" * 10 * PAGE)
    opened = await Database.open(path, [FIRST], synchronous="NORMAL")
    with pytest.raises(Corrupt):
        await words(opened)
    await opened.close()


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
async def test_the_file_is_synced_as_it_was_asked_for(path: Path, synchronous: str) -> None:
    opened = await Database.open(path, [FIRST], synchronous=synchronous)
    (level,) = await opened.write(lambda db: db.execute("PRAGMA synchronous").fetchone())
    (mode,) = await opened.read(lambda db: db.execute("PRAGMA journal_mode").fetchone())
    assert (level, mode) == ({"NORMAL": 1, "FULL": 2}[synchronous], "wal")
    await opened.close()


async def test_a_checkpoint_moves_everything_into_the_file(database: Database, path: Path, tmp_path: Path) -> None:
    await database.write(add("a"))
    assert await database.checkpoint()
    alone = tmp_path / "alone.db"
    shutil.copyfile(path, alone)  # without its WAL
    opened = await Database.open(alone, [FIRST], synchronous="NORMAL")
    assert await words(opened) == ["a"]
    await opened.close()
