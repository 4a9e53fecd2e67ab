"""SQLite's log: the end that a crash leaves is told from damage."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from typing import TYPE_CHECKING

import pytest

from visp.errors import StoreUnavailable
from visp.store import wal
from visp.store.database import Database
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGE = 4096
FRAME = PAGE + 24
COMMITS = 12


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A database as a killed server leaves it: a dozen commits of one frame each are in its log alone."""
    path = tmp_path / "live" / "words.db"
    path.parent.mkdir()
    with sqlite3.connect(path, isolation_level=None) as db:
        db.execute(f"PRAGMA page_size={PAGE}")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE words (word TEXT)")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for number in range(COMMITS):
            db.execute("INSERT INTO words VALUES (?)", (f"word {number}",))
        copy = tmp_path / "killed" / "words.db"
        shutil.copytree(path.parent, copy.parent)
    db.close()
    copy.with_name("words.db-shm").unlink()
    return copy


def log_of(path: Path) -> Path:
    return path.with_name("words.db-wal")


def change(path: Path, at: int, by: Callable[[int], int]) -> None:
    data = bytearray(log_of(path).read_bytes())
    data[at] = by(data[at])
    log_of(path).write_bytes(data)


def kept(path: Path) -> int:
    with sqlite3.connect(path) as db:
        (count,) = db.execute("SELECT count(*) FROM words").fetchone()
    db.close()
    return int(count)


def test_a_log_that_is_whole(killed: Path) -> None:
    assert wal.examine(killed) == wal.State(32 + COMMITS * FRAME)
    assert kept(killed) == COMMITS
    assert wal.examine(killed) == wal.State()  # it has been brought into the file


def test_no_log(tmp_path: Path) -> None:
    assert wal.examine(tmp_path / "absent.db") == wal.State()
    (tmp_path / "zeros.db-wal").write_bytes(bytes(PAGE))
    assert wal.examine(tmp_path / "zeros.db") == wal.State()


@pytest.mark.parametrize("part", ["salts", "sums", "page"])
def test_damage_before_the_last_commit_is_damage(killed: Path, part: str) -> None:
    at = {"salts": 9, "sums": 17, "page": 1000}[part]
    change(killed, 32 + 5 * FRAME + at, lambda byte: byte ^ 4)
    assert wal.examine(killed).is_damaged
    assert kept(killed) == 5  # SQLite says nothing of the rest


def test_every_bit_that_turns_is_seen(killed: Path) -> None:
    chance, whole = random.Random(1), log_of(killed).read_bytes()
    for _ in range(200):
        at, bit = chance.randrange(len(whole)), chance.randrange(8)
        data = bytearray(whole)
        data[at] ^= 1 << bit
        log_of(killed).write_bytes(data)
        state = wal.examine(killed)
        assert state.is_damaged or state.cut_bytes, (at, bit)
        assert state.is_damaged or at >= 32 + (COMMITS - 1) * FRAME or at < 8, (at, bit)


def test_the_last_commit_may_have_been_torn(killed: Path) -> None:
    change(killed, 32 + (COMMITS - 1) * FRAME + 2000, lambda byte: byte ^ 1)
    assert wal.examine(killed) == wal.State(32 + (COMMITS - 1) * FRAME, FRAME)
    log_of(killed).write_bytes(log_of(killed).read_bytes()[:-100])
    assert wal.examine(killed) == wal.State(32 + (COMMITS - 1) * FRAME, FRAME - 100)


def test_what_is_left_of_an_earlier_log_is_none_of_this_one(tmp_path: Path) -> None:
    path = tmp_path / "words.db"
    with sqlite3.connect(path, isolation_level=None) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE words (word TEXT)")
        for number in range(COMMITS):
            db.execute("INSERT INTO words VALUES (?)", (f"word {number}",))
        db.execute("PRAGMA wal_checkpoint(RESTART)")
        db.execute("INSERT INTO words VALUES ('one more')")  # over the first frames
        state = wal.examine(path)
    db.close()
    assert (state.cut_bytes, state.is_damaged) == (0, False)


def test_a_store_that_must_keep_what_it_acknowledged_is_refused(killed: Path) -> None:
    change(killed, 32 + 5 * FRAME + 1000, lambda byte: byte ^ 4)
    before = log_of(killed).read_bytes()
    with pytest.raises(StoreUnavailable, match=r"words\.db cannot be used: its log is damaged .*visp admin"):
        asyncio.run(Database.open(killed, [], synchronous="FULL"))
    assert log_of(killed).read_bytes() == before, "what can be rescued must stay"


def test_what_a_crash_cut_is_said(killed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(log, "warning", lambda event, **_: said.append(event))
    log_of(killed).write_bytes(log_of(killed).read_bytes()[:-100])

    async def opened() -> None:
        await (await Database.open(killed, ["", ""], synchronous="FULL")).close()

    asyncio.run(opened())
    assert said == ["store.cut"]
    assert kept(killed) == COMMITS - 1
