"""APIs over their store: what is made and taken away, and what is held in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from visp.clock import ManualClock
from visp.controller import apis as module
from visp.controller.apis import Apis
from visp.entity import api as entity
from visp.entity.api import Api, Endpoint
from visp.entity.apidoc import Given
from visp.errors import ApiRefused, Conflict
from visp.store import apis as stored
from visp.store.apis import DocumentApis
from visp.store.memory import MemoryEntities


class Store(DocumentApis):
    """Also counts reads, and lets others come before a write."""

    def __init__(self) -> None:
        super().__init__(MemoryEntities())
        self.reads = 0
        self.before: list[Any] = []

    async def of(self, namespace: str) -> list[Api]:
        self.reads += 1
        found = await super().of(namespace)
        await asyncio.sleep(0)
        return found

    async def put(self, api: Api, expected: int | None) -> int:
        if self.before:
            await self.before.pop()()
        return await super().put(api, expected)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def apis(store: Store) -> Apis:
    return Apis(store, ManualClock())


def adding(path: str = "/a", verb: str = "get", base_path: str = "/shop", title: str | None = None) -> Given:
    return Given(
        endpoint=Endpoint(
            base_path=base_path,
            title=title,
            path=path,
            verb=verb,
            url="http://h/api/v1/web/ns/default/a.json",
            namespace="ns",
            package="",
            action="a",
            is_http=False,
        )
    )


def whole(base_path: str = "/shop", **parts: Any) -> Given:
    made = entity.empty_document(base_path, "Whole") | {"x-ibm-configuration": {"assembly": {"execute": []}}}
    return Given(document=made | parts)


async def refused(act: Any) -> str:
    with pytest.raises(ApiRefused) as caught:
        await act
    return caught.value.sentence


async def test_operations_of_one_base_path_are_one_api(apis: Apis) -> None:
    for path in ("/a", "/b", "/c"):
        await apis.create("ns", adding(path, title="First" if path == "/a" else "Other"))
    await apis.create("ns", adding("/d", base_path="First"))
    (api,) = await apis.of("ns")
    assert (api.title, list(api.document["paths"])) == ("First", ["/a", "/b", "/c", "/d"])
    assert await apis.of("other") == ()


async def test_a_name_without_a_slash_is_a_base_path_where_it_is_no_title(apis: Apis) -> None:
    await apis.create("ns", adding("/a", base_path="/shop", title="Shop"))
    api = await apis.create("ns", adding("/b", base_path="shop"))
    assert (api.base_path, list(api.document["paths"])) == ("/shop", ["/a", "/b"])
    api = await apis.create("ns", adding("/a", base_path="new"))
    assert (api.base_path, api.title, api.document["basePath"]) == ("/new", "new", "/new")


async def test_a_document_replaces_all_of_an_api(apis: Apis) -> None:
    await apis.create("ns", adding())
    await apis.create("ns", whole(paths={"/new": {}}))
    (api,) = await apis.of("ns")
    assert (api.title, list(api.document["paths"])) == ("Whole", ["/new"])


async def test_taking_away(apis: Apis) -> None:
    for path, verb in (("/a", "get"), ("/a", "put"), ("/b", "get")):
        await apis.create("ns", adding(path, verb, title="Shop"))
    await apis.delete("ns", "/shop", "/a", "get")
    assert list((await apis.of("ns"))[0].document["paths"]["/a"]) == ["put"]
    await apis.delete("ns", "Shop", "/a", None)
    await apis.delete("ns", "/shop/", "/b", "get")
    assert await apis.of("ns") == ()
    assert await refused(apis.delete("ns", "/shop", None, None)) == (
        "API deletion failure: API '/shop' does not exist."
    )
    await apis.create("ns", adding(title="Shop"))
    said = await refused(apis.delete("ns", "/shop", "/x", None))
    assert said == "API deletion failure: path '/x' does not exist in the API"
    await apis.delete("ns", "Shop", None, None)
    assert await apis.of("ns") == ()


async def test_refusals_say_what_failed(apis: Apis) -> None:
    said = await refused(apis.create("ns", adding("a")))
    assert said.startswith("API creation failure: Unable to configure the API Gateway (status code 400): ")
    said = await refused(apis.create("ns", whole("/{a}")))
    assert said.startswith("API creation failure: The base path (/{a}) cannot have parameters.")
    assert await apis.of("ns") == ()


async def test_limits(apis: Apis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "APIS_LIMIT", 2)
    await apis.create("ns", whole("/a"))
    await apis.create("ns", whole("/b"))
    assert "has 2 APIs" in await refused(apis.create("ns", whole("/c")))
    await apis.create("ns", whole("/b", description="again"))
    await apis.create("other", whole("/c"))
    monkeypatch.setattr(module, "NAMESPACE_BYTES", 1000)
    assert "more than 1000 bytes together" in await refused(apis.create("ns", whole("/b", description="x" * 900)))


# ── what is held ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_was_read_is_held_until_it_changes(apis: Apis, store: Store) -> None:
    assert apis.peek("ns") is None
    await apis.create("ns", adding())
    held = await apis.of("ns")
    reads = store.reads
    assert apis.peek("ns") is held
    assert await apis.of("ns") is held
    assert store.reads == reads
    apis.heard("ns/a")  # an entity
    apis.heard("other//shop")
    assert apis.peek("ns") is held
    apis.heard("ns//shop")
    assert apis.peek("ns") is None
    await apis.of("ns")
    apis.clear()
    assert apis.peek("ns") is None


async def test_what_changes_while_it_is_read_is_not_held(apis: Apis) -> None:
    reading = asyncio.ensure_future(apis.of("ns"))
    await asyncio.sleep(0)
    apis.heard("ns//shop")
    assert await reading == ()
    assert apis.peek("ns") is None


async def test_no_more_is_held_than_allowed(apis: Apis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHED_NAMESPACES", 2)
    for namespace in ("a", "b", "c"):
        await apis.of(namespace)
    assert [apis.peek(namespace) for namespace in "abc"] == [None, (), ()]
    monkeypatch.setattr(module, "CACHED_BYTES", 100)
    for namespace in ("d", "e"):
        await apis.create(namespace, adding())
        await apis.of(namespace)
    assert apis.peek("d") is None
    assert apis.peek("e")


# ── others at the same time ─────────────────────────────────────────────────────────────────────────────────────


async def test_many_at_once_make_one_api(apis: Apis) -> None:
    await asyncio.gather(*(apis.create("ns", adding(f"/{n}")) for n in range(30)))
    (api,) = await apis.of("ns")
    assert len(api.document["paths"]) == 30


async def test_another_shard_comes_before(store: Store) -> None:
    here, there = Apis(store, ManualClock()), Apis(store, ManualClock())
    await here.create("ns", adding("/a"))

    async def other() -> None:
        await there.create("ns", adding("/b"))

    store.before.append(other)
    await here.create("ns", adding("/c"))
    (api,) = await here.of("ns")
    assert list(api.document["paths"]) == ["/a", "/b", "/c"]


async def test_it_gives_up_on_what_changes_all_the_time(apis: Apis, store: Store) -> None:
    async def never() -> None:
        raise Conflict("changed")

    store.before += [never] * module.TRIES
    said = await refused(apis.create("ns", adding()))
    assert said == "API creation failure: The API was changed by others meanwhile: try again."


async def test_a_caller_that_goes_leaves_the_change_to_end(apis: Apis, store: Store) -> None:
    begun, gate, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        begun.set()
        await gate.wait()
        asyncio.get_running_loop().call_soon(ended.set)

    store.before.append(hold)
    making = asyncio.ensure_future(apis.create("ns", adding()))
    await begun.wait()
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert apis.peek("ns") == ()
    gate.set()
    await ended.wait()
    assert apis.peek("ns") is None  # what was held is not what is there
    assert len(await apis.of("ns")) == 1


def test_an_api_is_a_document_of_its_own_collection() -> None:
    api = entity.api_of("ns", entity.empty_document("/shop", "Shop"), 7)
    document = msgspec.structs.replace(stored.to_document(api), revision=3)
    assert (document.id, document.collection, document.name) == ("ns//shop", "apis", "/shop")
    assert stored.from_document(document) == msgspec.structs.replace(api, revision=3)
