"""What every entity store promises: conflict rules, revisions, lists."""

from __future__ import annotations

from contextlib import AsyncExitStack

import msgspec
import pytest
from tests.contract.linked import linked

from visp import wording
from visp.errors import Conflict
from visp.store.base import Delete, Document, EntityQuery, EntityStore, Put
from visp.store.memory import MemoryEntities
from visp.store.shared import BorrowedEntities, WrittenEntities
from visp.store.sqlite import SqliteEntities


@pytest.fixture(params=["memory", "sqlite", "written", "borrowed"])
async def store(request, tmp_path):
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            opened = MemoryEntities()
        elif request.param == "sqlite":
            opened = await SqliteEntities.open(tmp_path / "entities.db")
        else:
            first, second = await linked(stack, tmp_path)
            written = await WrittenEntities.open_shared(tmp_path / "entities.db", first)
            opened = await BorrowedEntities.borrow(tmp_path / "entities.db", second)
            if request.param == "written":
                opened, written = written, opened
            stack.push_async_callback(written.close)
        yield opened
        await opened.close()


def document(id: str, *, updated_ms: int = 1, publish: bool = False, body: bytes = b"{}") -> Document:
    namespace, *package, name = id.split("/")
    return Document(
        id=id,
        collection="actions",
        namespace=namespace,
        package=package[0] if package else None,
        name=name,
        updated_ms=updated_ms,
        publish=publish,
        body=body,
    )


async def put(store: EntityStore, *documents: Document) -> list[int]:
    return await store.write([Put(entry, None) for entry in documents])


async def test_what_was_written_is_read_with_its_revision(store: EntityStore) -> None:
    entry = msgspec.structs.replace(document("ns/pkg/a"), publish=True, body=b'{"b":"\xc3\xa9"}')
    (revision,) = await put(store, entry)
    assert revision > 0
    assert await store.get("ns/pkg/a") == msgspec.structs.replace(entry, revision=revision)
    assert await store.get("ns/a") is None


async def test_revisions_grow_with_every_write_over_deletion_and_re_creation(store: EntityStore) -> None:
    (first,) = await put(store, document("ns/a"))
    (second,) = await store.write([Put(document("ns/a"), first)])
    assert await store.write([Delete("ns/a", second)]) == [0]
    assert await store.get("ns/a") is None
    (third,) = await put(store, document("ns/a"))
    assert first < second < third


@pytest.mark.parametrize(
    "change",
    [
        Put(document("ns/a", body=b"new"), None),
        Put(document("ns/a", body=b"new"), 999),
        Delete("ns/a", 999),
        Put(document("ns/none", body=b"new"), 1),
        Delete("ns/none", 1),
    ],
)
async def test_a_change_of_another_revision_is_a_conflict_and_changes_nothing(
    store: EntityStore, change: Put | Delete
) -> None:
    await put(store, document("ns/a", body=b"old"))
    with pytest.raises(Conflict, match=wording.CONCURRENT_CHANGE):
        await store.write([change])
    kept = await store.get("ns/a")
    assert kept is not None
    assert kept.body == b"old"
    assert await store.get("ns/none") is None


async def test_all_changes_of_a_write_or_none(store: EntityStore) -> None:
    (revision,) = await put(store, document("ns/a", body=b"old"))
    with pytest.raises(Conflict):
        await store.write(
            [Put(document("ns/b"), None), Put(document("ns/a", body=b"new"), revision), Delete("ns/none", 7)]
        )
    assert await store.get("ns/b") is None
    kept = await store.get("ns/a")
    assert kept is not None
    assert (kept.body, kept.revision) == (b"old", revision)


async def test_the_changes_of_a_write_see_one_another(store: EntityStore) -> None:
    (revision,) = await put(store, document("ns/a", body=b"old"))
    gone, fresh = await store.write([Delete("ns/a", revision), Put(document("ns/a", body=b"new"), None)])
    assert gone == 0
    assert fresh > revision
    with pytest.raises(Conflict):
        await store.write([Put(document("ns/b"), None), Put(document("ns/b"), None)])


async def test_a_list_is_newest_first_then_by_id_descending_and_pages(store: EntityStore) -> None:
    await put(
        store,
        document("ns/b", updated_ms=5),
        document("ns/a", updated_ms=5),
        document("ns/old", updated_ms=1),
        document("ns/pkg/new", updated_ms=9),
    )
    query = EntityQuery(collection="actions", namespace="ns")

    async def ids(skip: int, limit: int) -> list[str]:
        page = await store.list(msgspec.structs.replace(query, skip=skip, limit=limit))
        return [entry.id for entry in page]

    assert await ids(0, 30) == ["ns/pkg/new", "ns/b", "ns/a", "ns/old"]
    assert await ids(1, 2) == ["ns/b", "ns/a"]
    assert await ids(4, 2) == []
    assert await ids(0, 0) == []


async def test_a_list_and_its_count_keep_to_what_is_asked_for(store: EntityStore) -> None:
    trigger = msgspec.structs.replace(document("ns/t"), collection="triggers")
    await put(
        store,
        document("ns/a"),
        document("ns/pkg/b", publish=True),
        document("ns/pkg/c"),
        document("other/a", publish=True),
        trigger,
    )

    async def found(**parts: object) -> set[str]:
        query = EntityQuery(**{"collection": "actions", "namespace": "ns"} | parts)  # type: ignore[arg-type]
        listed = {entry.id for entry in await store.list(query)}
        assert await store.count(msgspec.structs.replace(query, skip=1, limit=1)) == len(listed)
        return listed

    assert await found() == {"ns/a", "ns/pkg/b", "ns/pkg/c"}
    assert await found(package="pkg") == {"ns/pkg/b", "ns/pkg/c"}
    assert await found(package="none") == set()
    assert await found(only_published=True) == {"ns/pkg/b"}
    assert await found(collection="triggers") == {"ns/t"}
    assert await found(namespace="other") == {"other/a"}


async def test_deleted_documents_are_not_listed(store: EntityStore) -> None:
    (revision,) = await put(store, document("ns/a"))
    await store.write([Delete("ns/a", revision)])
    query = EntityQuery(collection="actions", namespace="ns")
    assert await store.list(query) == []
    assert await store.count(query) == 0
