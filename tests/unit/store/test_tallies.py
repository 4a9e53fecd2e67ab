"""Counts and deep pages are those of the records, whatever came, came again, or went."""

from __future__ import annotations

import random
import sqlite3
from typing import TYPE_CHECKING

import msgspec
import pytest

from visp.entity.activation import ActivationHead, ActivationRecord, filter_name
from visp.store import check, tallies
from visp.store.base import ActivationQuery
from visp.store.database import Database
from visp.store.index import ACTIVATION_MIGRATIONS, SqliteActivations, put_activations
from visp.store.rows import activation
from visp.store.values import Values

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

BEGIN_MS = 1_700_000_000_000
NAMES = ("often", "p/often", "seldom", "never")
NAMESPACES = ("ns", "other")
LAST_MS = (1 << 63) - 1


def record(chance: random.Random, number: int, span_ms: int) -> ActivationRecord:
    """Anywhere in that time; more of some names, and of a start that others have too."""
    start_ms = BEGIN_MS + chance.randrange(span_ms)
    if number % 3 == 0:
        start_ms = start_ms >> tallies.NARROW << tallies.NARROW
    name = chance.choices(NAMES[:3], (60, 30, 2))[0]
    head = ActivationHead(
        id=f"{start_ms:012x}{number:020x}",
        namespace=chance.choice(NAMESPACES),
        subject="who",
        name=name.rpartition("/")[2],
        version="0.0.1",
        start_ms=start_ms,
        size=2,
        path=f"ns/{name}" if "/" in name else None,
    )
    return ActivationRecord(head=head, result=b"{}")


def found(records: Sequence[ActivationRecord], query: ActivationQuery) -> list[ActivationRecord]:
    """All that a query means, newest first."""
    own = [
        one
        for one in records
        if one.head.namespace == query.namespace
        and query.name in (None, filter_name(one.head))
        and (query.since_ms is None or one.head.start_ms >= query.since_ms)
        and (query.upto_ms is None or one.head.start_ms <= query.upto_ms)
    ]
    return sorted(own, key=lambda one: (one.head.start_ms, one.head.id), reverse=True)


def queries(chance: random.Random, records: Sequence[ActivationRecord]) -> Iterator[ActivationQuery]:
    starts = sorted(one.head.start_ms for one in records)
    edges = [None, -LAST_MS, -1, 0, LAST_MS, starts[0], starts[-1], starts[-1] + 1]
    edges += [chance.choice(starts) + chance.choice((-1, 0, 1)) for _ in range(4)]
    edges += [BEGIN_MS >> level << level for level in tallies.LEVELS]
    for _ in range(60):
        yield ActivationQuery(
            namespace=chance.choice(NAMESPACES),
            name=chance.choice((None, *NAMES)),
            since_ms=chance.choice(edges),
            upto_ms=chance.choice(edges),
            skip=chance.choice((0, 1, 7, len(records) // 4, len(records) - 1, 10 * len(records))),
            limit=chance.choice((1, 30)),
        )


async def check_all(index: SqliteActivations, records: Sequence[ActivationRecord], chance: random.Random) -> None:
    for query in queries(chance, records):
        expected = found(records, query)
        assert await index.count(query) == len(expected), query
        assert await index.list(query) == expected[query.skip : query.skip + query.limit], query


def miscounted(path: Path) -> list[str]:
    return [damage.says for damage in check.activations(path, Values(path.with_suffix(".values")))]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "activations-0.db"


@pytest.fixture
async def index(path: Path) -> AsyncIterator[SqliteActivations]:
    opened = await SqliteActivations.open(path)
    yield opened
    await opened.close()


@pytest.fixture(autouse=True)
def depth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every skip is deep."""
    monkeypatch.setattr(tallies, "DEEP", 0)


@pytest.mark.parametrize("span_ms", [20_000, 3_600_000, 30 * 86_400_000], ids=["seconds", "an hour", "a month"])
async def test_counts_and_pages_are_those_of_the_records(index: SqliteActivations, path: Path, span_ms: int) -> None:
    chance = random.Random(span_ms)
    records = [record(chance, number, span_ms) for number in range(500)]
    await index.put(records[:300], 1)
    await index.put(records[300:], 2)
    await check_all(index, records, chance)

    moved = msgspec.structs.replace(records[0].head, start_ms=BEGIN_MS, name="never", path=None)
    again = [msgspec.structs.replace(records[0], head=moved), *records[1:40]]
    await index.put(again, 3)
    records[:40] = again
    await check_all(index, records, chance)

    before_ms = BEGIN_MS + span_ms // 2
    gone = [one for one in records if one.head.start_ms < before_ms]
    assert await index.sweep(before_ms, 0) == len(gone)
    records = [one for one in records if one not in gone]
    await check_all(index, records, chance)
    assert miscounted(path) == []


async def test_of_one_id_the_last_record_is_kept_and_counted(index: SqliteActivations, path: Path) -> None:
    first = record(random.Random(1), 1, 1_000)
    last = msgspec.structs.replace(first, result=b"7")
    await index.put([first, last], 1)
    query = ActivationQuery(namespace=first.head.namespace)
    assert await index.list(query) == [last]
    assert await index.count(query) == 1
    assert miscounted(path) == []


@pytest.mark.parametrize(
    ("platform", "own"),
    [(None, 600), (600, 900), (600, 300), (600, None), (None, None), (300, 10_000)],
    ids=["own alone", "own shorter", "own longer", "own whatever the age", "none", "all"],
)
async def test_a_namespace_goes_by_its_own_age(
    index: SqliteActivations, path: Path, monkeypatch: pytest.MonkeyPatch, platform: int | None, own: int | None
) -> None:
    chance = random.Random(5)
    records = [record(chance, number, 1_000) for number in range(400)]
    await index.put(records, 1)
    monkeypatch.setattr("visp.store.index.SWEEP_ROWS", 7)  # several steps, of both
    monkeypatch.setattr("visp.store.index.SWEEP_NAMESPACES", 1)
    bounds = {"ns": own, "other": platform}
    ages = {namespace: None if age is None else BEGIN_MS + age for namespace, age in bounds.items()}
    kept = [one for one in records if one.head.start_ms >= (ages[one.head.namespace] or 0)]
    assert await index.sweep(ages["other"], 0, {"ns": ages["ns"], "nobody": 1}) == len(records) - len(kept)
    if kept:
        await check_all(index, kept, chance)
    assert miscounted(path) == []
    assert await index.sweep(ages["other"], 0, {"ns": ages["ns"]}) == 0


async def test_age_is_that_of_the_start(index: SqliteActivations) -> None:
    """A delayed run has the id of when it was asked for."""
    early = record(random.Random(1), 1, 1)
    late = msgspec.structs.replace(early, head=msgspec.structs.replace(early.head, start_ms=BEGIN_MS + 1_000))
    await index.put([late], 1)
    assert await index.sweep(BEGIN_MS + 1_000, 0) == 0
    assert await index.sweep(BEGIN_MS + 1_001, 0) == 1


@pytest.mark.parametrize("column", ["namespace", "name"])
@pytest.mark.parametrize("damage", ["CAST(x'ff6e' AS TEXT)", "x'6e73'"], ids=["no text", "bytes"])
async def test_a_damaged_name_keeps_nothing_from_going(path: Path, column: str, damage: str) -> None:
    chance = random.Random(2)
    index = await SqliteActivations.open(path)
    await index.put([record(chance, number, 1_000) for number in range(9)], 1)
    await index.close()
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE activations SET {column} = {damage} WHERE id = (SELECT min(id) FROM activations)")
    db.close()
    index = await SqliteActivations.open(path)
    try:
        assert await index.sweep(BEGIN_MS + 1_000, 0) >= 8
        assert await index.sweep(None, 1) + await index.count(ActivationQuery(namespace="ns")) <= 2
    finally:
        await index.close()


async def test_nothing_is_counted_of_what_is_all_gone(index: SqliteActivations, path: Path) -> None:
    chance = random.Random(0)
    await index.put([record(chance, number, 3_600_000) for number in range(100)], 1)
    await index.sweep(BEGIN_MS + 3_600_000, 0)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM tallies").fetchone() == (0,)
    db.close()


async def test_an_index_of_an_earlier_version_is_counted_once(path: Path) -> None:
    chance = random.Random(3)
    records = [record(chance, number, 86_400_000) for number in range(200)]
    old = await Database.open(path, ACTIVATION_MIGRATIONS[:3], synchronous="NORMAL")
    values = [value for one in records for value in activation(one)]
    await old.write(lambda db: db.execute(put_activations(len(records)), values).rowcount)
    await old.close()
    for _ in range(2):
        index = await SqliteActivations.open(path)
        await check_all(index, records, chance)
        await index.close()
    assert miscounted(path) == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE tallies SET count = count + 1 WHERE level = 14 AND name = 'often'",
        "UPDATE tallies SET count = count - 1 WHERE level = 22 AND name = ''",
        "UPDATE tallies SET span = span + 1000 WHERE level = 22",
        "UPDATE tallies SET name = 'oftem' WHERE name = 'often'",
        "UPDATE tallies SET level = 23 WHERE level = 22",
        "DELETE FROM tallies WHERE name = ''",
        "INSERT INTO tallies VALUES ('ns', 'a', 14, 7, 1)",
    ],
)
async def test_a_count_that_is_wrong_is_found_by_the_check(index: SqliteActivations, path: Path, change: str) -> None:
    chance = random.Random(4)
    await index.put([record(chance, number, 3_600_000) for number in range(50)], 1)
    assert miscounted(path) == []
    with sqlite3.connect(path) as db:
        db.execute(change)
    db.close()
    assert "the number of records of ns is not what is counted" in miscounted(path)
