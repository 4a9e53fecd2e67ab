"""Rows that are not what was written are not served; files of earlier versions get their checksums."""

from __future__ import annotations

import sqlite3
import zlib
from typing import TYPE_CHECKING

import pytest

from visp.entity.activation import ActivationHead, ActivationRecord
from visp.errors import Corrupt
from visp.store.base import ActivationQuery, Document, EntityQuery, KeyRecord, Put
from visp.store.database import Database
from visp.store.index import ACTIVATION_MIGRATIONS, SqliteActivations
from visp.store.sqlite import ENTITY_MIGRATIONS, SqliteEntities

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DOCUMENT = Document(
    id="ns/p/a",
    collection="actions",
    namespace="ns",
    package="p",
    name="a",
    updated_ms=5,
    publish=False,
    body=b'{"a":1}',
)
KEY = KeyRecord(uuid="u", digest=b"d", sealed=b"s", subject="who", namespace="ns")
RECORD = ActivationRecord(
    head=ActivationHead(id=f"{7:032x}", namespace="ns", subject="who", name="a", version="0.0.1", start_ms=3, size=2),
    result=b"{}",
)


def change(path: Path, sql: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(sql)
    db.close()


@pytest.fixture
async def entities(tmp_path: Path) -> AsyncIterator[SqliteEntities]:
    store = await SqliteEntities.open(tmp_path / "entities.db")
    await store.write([Put(DOCUMENT, None)])
    await store.put_key(KEY)
    await store.put_limits("ns", b"{}")
    yield store
    await store.close()


@pytest.mark.parametrize(
    "column",
    [
        "publish = 1",
        "revision = 2",
        "updated_ms = 6",
        "package = NULL",
        "package = ''",
        "name = 'b'",
        "namespace = 'other'",
        "collection = 'triggers'",
        "body = CAST(body AS TEXT)",
        "body = X'ff'",
        "name = CAST(X'ff' AS TEXT)",
        "crc = -1",
        "crc = NULL",
    ],
)
async def test_no_column_of_a_document_may_differ(entities: SqliteEntities, tmp_path: Path, column: str) -> None:
    try:
        change(tmp_path / "entities.db", f"UPDATE documents SET {column}")
    except sqlite3.IntegrityError:
        return
    with pytest.raises(Corrupt):
        await entities.get(DOCUMENT.id)
    for collection in ("actions", "triggers"):
        for namespace in ("ns", "other"):
            assert await entities.list(EntityQuery(collection=collection, namespace=namespace)) == []


@pytest.mark.parametrize("column", ["digest = X'00'", "sealed = X'00'", "subject = 'x'", "is_blocked = 1"])
async def test_no_column_of_a_key_may_differ(entities: SqliteEntities, tmp_path: Path, column: str) -> None:
    change(tmp_path / "entities.db", f"UPDATE keys SET {column}")
    with pytest.raises(Corrupt):
        await entities.key("u")
    with pytest.raises(Corrupt):
        await entities.keys_of("ns")


async def test_a_key_of_one_namespace_is_none_of_another(entities: SqliteEntities, tmp_path: Path) -> None:
    change(tmp_path / "entities.db", "UPDATE keys SET namespace = 'whisk.system'")
    with pytest.raises(Corrupt):
        await entities.keys_of("whisk.system")


async def test_limits_may_not_differ(entities: SqliteEntities, tmp_path: Path) -> None:
    change(tmp_path / "entities.db", "UPDATE namespace_limits SET limits = X'7b'")
    with pytest.raises(Corrupt):
        await entities.limits("ns")


async def test_no_revision_is_given_a_second_time(entities: SqliteEntities, tmp_path: Path) -> None:
    change(tmp_path / "entities.db", "UPDATE revisions SET last = 0")
    with pytest.raises(Corrupt):
        await entities.write([Put(DOCUMENT, 1)])


@pytest.mark.parametrize(
    "column",
    [
        "namespace = 'other'",
        "name = 'b'",
        "start_ms = 4",
        "id = X'00000000000000000000000000000008'",
        "id = 'text'",
        "result = 5",
        "result = NULL",
        "head = 'text'",
        "logs = X'5b5d'",
    ],
)
async def test_no_column_of_a_record_may_differ(tmp_path: Path, column: str) -> None:
    index = await SqliteActivations.open(tmp_path / "activations-0.db")
    await index.put([RECORD], 9)
    assert await index.get("ns", RECORD.head.id) == RECORD
    try:
        change(tmp_path / "activations-0.db", f"UPDATE activations SET {column}")
    except sqlite3.IntegrityError:
        await index.close()
        return
    for namespace in ("ns", "other"):
        for id in (RECORD.head.id, f"{8:032x}"):
            try:
                assert await index.get(namespace, id) is None
            except Corrupt:
                pass
            assert await index.some(namespace, [id]) == []
        query = ActivationQuery(namespace=namespace)
        assert await index.list(query) == []
        await index.places(query)
    await index.close()


async def test_an_index_that_does_not_know_how_far_it_is_begins_anew(tmp_path: Path) -> None:
    index = await SqliteActivations.open(tmp_path / "activations-0.db")
    await index.put([RECORD], 9)
    assert await index.indexed_to() == 9
    change(tmp_path / "activations-0.db", "UPDATE progress SET indexed_to = 1000000")
    assert await index.indexed_to() == 0
    change(tmp_path / "activations-0.db", "DELETE FROM progress")
    assert await index.indexed_to() == 0
    await index.put([RECORD], 12)
    assert await index.indexed_to() == 12
    await index.close()


async def test_entities_of_the_first_version_get_their_checksums(tmp_path: Path) -> None:
    path = tmp_path / "entities.db"
    old = await Database.open(path, ENTITY_MIGRATIONS[:1], synchronous="FULL")

    def write(db: sqlite3.Connection) -> None:
        for id, body, crc in (("ns/good", b"{}", None), ("ns/bad", b"{}", 5)):
            first = crc or zlib.crc32(body, zlib.crc32(id.encode()))
            values = (id, "actions", "ns", None, id[3:], 5, 1, 3, body, first)
            db.execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        db.execute("INSERT INTO keys VALUES ('u', X'00', X'01', 'who', 'ns', 0)")
        db.execute("INSERT INTO namespace_limits VALUES ('ns', X'7b7d')")
        db.execute("UPDATE revisions SET last = 3")

    await old.write(write)
    await old.close()
    for _ in range(2):
        store = await SqliteEntities.open(path)
        good = await store.get("ns/good")
        assert good is not None
        assert (good.publish, good.revision, good.package) == (True, 3, None)
        with pytest.raises(Corrupt):
            await store.get("ns/bad")
        key = await store.key("u")
        assert key is not None
        assert (key.subject, key.is_blocked) == ("who", False)
        assert await store.limits("ns") == b"{}"
        await store.close()
    store = await SqliteEntities.open(path)
    assert await store.write([Put(DOCUMENT, None)]) == [4]
    await store.close()


async def test_an_index_of_an_earlier_version_knows_how_far_it_is(tmp_path: Path) -> None:
    path = tmp_path / "activations-0.db"
    old = await Database.open(path, ACTIVATION_MIGRATIONS[:2], synchronous="NORMAL")
    await old.write(lambda db: db.execute("UPDATE progress SET indexed_to = 77").rowcount)
    await old.close()
    index = await SqliteActivations.open(path)
    assert await index.indexed_to() == 77
    await index.close()
