"""The cache of entities: never older than what was acknowledged, bounded, unharmed by a bad document."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from visp.entity.action import Action
from visp.entity.execs import Code, CodeExec
from visp.entity.names import FullyQualifiedName
from visp.entity.parameters import Parameter
from visp.entity.trigger import Trigger
from visp.errors import Conflict, Corrupt
from visp.store import cache as module
from visp.store.base import Delete, Document, EntityQuery, Put
from visp.store.cache import EntityCache, Remove, Write, from_document, to_document
from visp.store.memory import MemoryBlobs, MemoryEntities


def trigger(name: str, *, package: str | None = None, version: str = "0.0.1") -> Trigger:
    return Trigger(name=FullyQualifiedName("ns", package, name), version=version, updated_ms=7)


class SlowEntities(MemoryEntities):
    """Reads and writes take effect at once; their answers wait until `gate` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def get(self, id: str) -> Document | None:
        found = await super().get(id)
        await self.gate.wait()
        return found

    async def write(self, changes: object) -> list[int]:
        revisions = await super().write(changes)  # type: ignore[arg-type]
        await self.gate.wait()
        return revisions


@pytest.fixture
def store() -> SlowEntities:
    return SlowEntities()


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs()


@pytest.fixture
def cache(store: SlowEntities, blobs: MemoryBlobs) -> EntityCache:
    return EntityCache(store, blobs)


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_an_entity_is_its_document_s() -> None:
    entity = trigger("t", package="pkg")
    document = to_document(entity)
    assert (document.id, document.collection, document.package) == ("ns/pkg/t", "triggers", "pkg")
    assert from_document(msgspec.structs.replace(document, revision=4)) == msgspec.structs.replace(entity, revision=4)


async def test_what_was_written_is_in_memory_with_its_revision(cache: EntityCache) -> None:
    await cache.write(Write(trigger("t"), None))
    held = cache.peek("ns/t")
    assert held is not None
    assert held.revision > 0
    assert await cache.get("ns/t") is held
    assert cache.peek("ns/other") is None
    assert await cache.get("ns/other") is None


async def test_a_read_fills_the_cache(cache: EntityCache, store: SlowEntities) -> None:
    await store.write([Put(to_document(trigger("t")), None)])
    assert cache.peek("ns/t") is None
    entity = await cache.get("ns/t")
    assert entity is not None
    assert cache.peek("ns/t") is entity


async def test_what_was_removed_is_gone(cache: EntityCache) -> None:
    await cache.write(Write(trigger("t"), None))
    held = cache.peek("ns/t")
    assert held is not None
    await cache.write(Remove(held))
    assert cache.peek("ns/t") is None
    assert await cache.get("ns/t") is None


async def test_a_conflict_forgets_what_is_older_than_the_store(cache: EntityCache, store: SlowEntities) -> None:
    await cache.write(Write(trigger("t"), None))
    held = cache.peek("ns/t")
    assert held is not None
    await store.write([Put(to_document(trigger("t", version="0.0.2")), held.revision)])
    with pytest.raises(Conflict):
        await cache.write(Write(trigger("t", version="0.0.3"), held.revision), Write(trigger("u"), None))
    found = await cache.get("ns/t")
    assert found is not None
    assert found.version == "0.0.2"
    assert cache.peek("ns/u") is None


async def test_a_slow_read_does_not_bring_back_an_old_value(cache: EntityCache, store: SlowEntities) -> None:
    (revision,) = await store.write([Put(to_document(trigger("t")), None)])
    store.gate.clear()
    reading = asyncio.ensure_future(cache.get("ns/t"))
    writing = asyncio.ensure_future(cache.write(Write(trigger("t", version="0.0.2"), revision)))
    await turn()
    store.gate.set()
    await writing
    await reading
    held = await cache.get("ns/t")
    assert held is not None
    assert held.version == "0.0.2"


@pytest.mark.parametrize("by", ["delete", "another server"])
async def test_a_slow_read_does_not_bring_back_what_is_gone(cache: EntityCache, store: SlowEntities, by: str) -> None:
    (revision,) = await store.write([Put(to_document(trigger("t")), None)])
    store.gate.clear()
    reading = asyncio.ensure_future(cache.get("ns/t"))
    await turn()
    await MemoryEntities.write(store, [Delete("ns/t", revision)])
    if by == "delete":
        removing = asyncio.ensure_future(cache.write(Write(trigger("u"), None)))
        await turn()
    cache.forget("ns/t")
    store.gate.set()
    await reading
    if by == "delete":
        await removing
    assert cache.peek("ns/t") is None
    assert await cache.get("ns/t") is None


async def test_a_cancelled_writer_does_not_leave_an_old_value(cache: EntityCache, store: SlowEntities) -> None:
    await cache.write(Write(trigger("t"), None))
    held = cache.peek("ns/t")
    assert held is not None
    store.gate.clear()
    writing = asyncio.ensure_future(cache.write(Write(trigger("t", version="0.0.2"), held.revision)))
    await turn()
    writing.cancel()
    await turn()
    store.gate.set()
    await turn()
    assert writing.cancelled()
    newer = cache.peek("ns/t")
    assert newer is not None
    assert newer.version == "0.0.2"


async def test_the_cache_drops_the_least_recently_filled(store: SlowEntities, blobs: MemoryBlobs) -> None:
    cache = EntityCache(store, blobs, limit=2)
    for name in ("a", "b"):
        await cache.write(Write(trigger(name), None))
    held = cache.peek("ns/a")
    assert held is not None
    await cache.write(Write(trigger("a", version="0.0.2"), held.revision))
    await cache.write(Write(trigger("c"), None))
    assert [name for name in "abc" if cache.peek(f"ns/{name}")] == ["a", "c"]
    assert await cache.get("ns/b") is not None


async def test_a_list_holds_the_store_s_newest_and_leaves_out_what_does_not_read(
    cache: EntityCache, store: SlowEntities
) -> None:
    await cache.write(Write(trigger("held"), None), Write(trigger("stale"), None))
    held, stale = cache.peek("ns/held"), cache.peek("ns/stale")
    assert held is not None
    assert stale is not None
    damaged = msgspec.structs.replace(to_document(trigger("damaged")), body=b'{"na')
    await store.write([Put(to_document(trigger("stale", version="0.0.2")), stale.revision), Put(damaged, None)])
    listed = await cache.list(EntityQuery(collection="triggers", namespace="ns"))
    assert [(entity.name.name, entity.version) for entity in listed] == [("stale", "0.0.2"), ("held", "0.0.1")]
    assert listed[1] is held


@pytest.mark.parametrize(
    "damage", [{"body": b'{"na'}, {"body": b"{}"}, {"body": b'{"name":"\xff"}'}, {"collection": "feeds"}]
)
async def test_a_document_that_does_not_read_is_corrupt(
    cache: EntityCache, store: SlowEntities, damage: dict[str, object]
) -> None:
    await store.write([Put(msgspec.structs.replace(to_document(trigger("t")), **damage), None)])
    with pytest.raises(Corrupt):
        await cache.get("ns/t")


async def test_code_is_inline_or_a_blob_that_is_read_once(cache: EntityCache, blobs: MemoryBlobs) -> None:
    assert await cache.code(Code(is_binary=False, inline="inline")) == "inline"
    digest = await blobs.put(b"stored")
    code = Code(is_binary=False, blob=digest)
    assert await asyncio.gather(cache.code(code), cache.code(code)) == ["stored", "stored"]
    await blobs.sweep(frozenset(), -1.0)
    assert await cache.code(code) == "stored"
    with pytest.raises(Corrupt):
        await cache.code(Code(is_binary=False, blob="0" * 64))


async def test_cached_code_is_bounded(monkeypatch, cache: EntityCache, blobs: MemoryBlobs) -> None:
    monkeypatch.setattr(module, "CACHED_CODE_BYTES", 40)
    texts = ["a" * 10, "b" * 10, "c" * 10, "d" * 10, "e" * 10, "large" * 10]
    codes = [Code(is_binary=False, blob=await blobs.put(text.encode())) for text in texts]
    for code in (codes[0], codes[0], *codes):
        await asyncio.gather(cache.code(code), cache.code(code))
    await blobs.sweep(frozenset(), -1.0)
    kept = []
    for code, text in zip(codes, texts, strict=True):
        try:
            kept.append(await cache.code(code) == text)
        except Corrupt:
            kept.append(False)
    assert kept == [False, True, True, True, True, False]


def test_an_action_is_its_document_s() -> None:
    action = Action(
        name=FullyQualifiedName("ns", None, "a"),
        exec=CodeExec(kind="python:3.11", code=Code(is_binary=False, inline="x")),
        parameters={"p": Parameter(msgspec.Raw(b"[1]"))},
    )
    read = from_document(to_document(action))
    assert isinstance(read, Action)
    assert read.exec == action.exec
    assert bytes(read.parameters["p"].value) == b"[1]"


async def test_what_others_wrote_is_read_anew(cache: EntityCache, store: SlowEntities) -> None:
    await cache.write(Write(trigger("a"), None))
    (revision,) = await store.write([Put(to_document(trigger("a", version="0.0.2")), 1)])
    cache.heard("ns/a", revision)
    found = await cache.get("ns/a")
    assert found is not None
    assert found.version == "0.0.2"


@pytest.mark.parametrize("newer", [2, 0])
async def test_a_write_whose_answer_comes_after_a_newer_one_is_not_kept(
    cache: EntityCache, store: SlowEntities, newer: int
) -> None:
    store.gate.clear()
    writing = asyncio.ensure_future(cache.write(Write(trigger("a"), None)))
    await turn()
    cache.heard("ns/a", 1)
    cache.heard("ns/a", newer)
    store.gate.set()
    await writing
    assert cache.peek("ns/a") is None


async def test_a_write_that_was_heard_of_is_kept(cache: EntityCache, store: SlowEntities) -> None:
    store.gate.clear()
    writing = asyncio.ensure_future(cache.write(Write(trigger("a"), None)))
    await turn()
    cache.heard("ns/a", 1)
    store.gate.set()
    await writing
    assert cache.peek("ns/a") is not None
    cache.clear()
    assert cache.peek("ns/a") is None
