"""What every store of APIs promises, and that other shards hear of changes."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from tests.contract.linked import linked

from visp.entity import api as apis
from visp.entity.api import Api
from visp.errors import Conflict
from visp.store.apis import DocumentApis
from visp.store.memory import MemoryEntities
from visp.store.shared import BorrowedEntities, WrittenEntities
from visp.store.sqlite import SqliteEntities


@pytest.fixture(params=["memory", "sqlite", "written", "borrowed"])
async def store(request, tmp_path):
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            opened: Any = MemoryEntities()
        elif request.param == "sqlite":
            opened = await SqliteEntities.open(tmp_path / "entities.db")
        else:
            first, second = await linked(stack, tmp_path)
            written = await WrittenEntities.open_shared(tmp_path / "entities.db", first)
            opened = await BorrowedEntities.borrow(tmp_path / "entities.db", second)
            if request.param == "written":
                opened, written = written, opened
            stack.push_async_callback(written.close)
        yield DocumentApis(opened)
        await opened.close()


def api(path: str, namespace: str = "ns", title: str | None = None) -> Api:
    return apis.api_of(namespace, apis.empty_document(path, title), 7)


async def test_what_was_put_is_there_by_base_path(store: DocumentApis) -> None:
    revisions = {path: await store.put(api(path), None) for path in ("/b", "/", "/a/b")}
    await store.put(api("/b", "ns2"), None)
    assert await store.of("ns") == [
        msgspec.structs.replace(api(path), revision=revisions[path]) for path in ("/", "/a/b", "/b")
    ]
    assert await store.of("none") == []


async def test_a_revision_that_is_another_is_a_conflict(store: DocumentApis) -> None:
    revision = await store.put(api("/a"), None)
    for expected in (None, revision + 1):
        with pytest.raises(Conflict):
            await store.put(api("/a"), expected)
    second = await store.put(api("/a", title="New"), revision)
    assert second > revision
    with pytest.raises(Conflict):
        await store.delete(msgspec.structs.replace(api("/a"), revision=revision))
    (found,) = await store.of("ns")
    assert found.title == "New"
    await store.delete(found)
    assert await store.of("ns") == []


async def test_all_are_read_at_once(store: DocumentApis) -> None:
    for number in range(250):
        await store.put(api(f"/{number:03}"), None)
    assert [one.base_path for one in await store.of("ns")] == [f"/{number:03}" for number in range(250)]


async def test_a_shard_hears_of_what_another_writes(tmp_path) -> None:
    async with AsyncExitStack() as stack:
        first, second = await linked(stack, tmp_path)
        written = await WrittenEntities.open_shared(tmp_path / "entities.db", first)
        borrowed = await BorrowedEntities.borrow(tmp_path / "entities.db", second)
        stack.push_async_callback(written.close)
        stack.push_async_callback(borrowed.close)
        heard: list[tuple[str, str | None]] = []
        borrowed.when_changed(lambda id, _: heard.append(("borrowed", apis.namespace_of(id))))
        written.when_changed(lambda id, _: heard.append(("written", apis.namespace_of(id))))
        await DocumentApis(written).put(api("/a"), None)
        await DocumentApis(borrowed).put(api("/b"), None)
        assert sorted(heard) == [("borrowed", "ns")] * 2 + [("written", "ns")] * 2
