"""Clients of APIs: what is kept of them, and who is let in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.contract.linked import linked

from visp.controller import subscriptions as subject
from visp.controller.subscriptions import LENGTH_LIMIT, Subscriptions, place_of
from visp.errors import BadRequest, Throttled
from visp.store.promises import SqlitePromises


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlitePromises]:
    made = await SqlitePromises.open(tmp_path / "promises.db")
    yield made
    await made.close()


@pytest.fixture
def clients(store: SqlitePromises) -> Subscriptions:
    return Subscriptions(store, b"server's own")


async def has(clients: Subscriptions, namespace: str, base_path: str, client: str) -> bool:
    """Whether the store knows a client, and memory does then."""
    found = await clients.find(namespace, base_path, client)
    assert clients.peek(namespace, base_path, client) is found
    return found is not None


async def knows(clients: Subscriptions, namespace: str, base_path: str, client: str, secret: str) -> bool:
    return clients.is_secret(await clients.find(namespace, base_path, client), secret)


async def test_clients_of_one_api(clients: Subscriptions) -> None:
    await clients.add("guest", "/a", "two", "s")
    await clients.add("guest", "/a", "one", None)
    assert await clients.clients("guest", "/a") == ["one", "two"]
    assert await has(clients, "guest", "/a", "one")
    for namespace, base_path, client in (("guest", "/b", "one"), ("other", "/a", "one"), ("guest", "/a", "three")):
        assert not await has(clients, namespace, base_path, client)
    assert await clients.drop("guest", "/a", "one")
    assert not await clients.drop("guest", "/a", "one")
    assert await clients.clients("guest", "/a") == ["two"]
    await clients.drop_all("guest", "/a")
    assert await clients.clients("guest", "/a") == []


async def test_secrets(clients: Subscriptions) -> None:
    await clients.add("guest", "/a", "one", "first")
    assert await knows(clients, "guest", "/a", "one", "first")
    assert not await knows(clients, "guest", "/a", "one", "second")
    assert not await knows(clients, "guest", "/a", "one", "")
    assert not await knows(clients, "guest", "/a", "two", "first")
    await clients.add("guest", "/a", "one", "second")
    assert await knows(clients, "guest", "/a", "one", "second")
    assert not await knows(clients, "guest", "/a", "one", "first")
    await clients.add("guest", "/a", "one", None)
    assert not await knows(clients, "guest", "/a", "one", "")


async def test_a_secret_is_not_kept(clients: Subscriptions, store: SqlitePromises) -> None:
    await clients.add("guest", "/a", "one", "a secret of a client")
    (held,) = await store.subscriptions("guest", "/a")
    assert b"a secret" not in held.secret
    assert len(held.secret) == len(held.digest) == 32


async def test_another_server_secret_knows_nobody(clients: Subscriptions, store: SqlitePromises) -> None:
    await clients.add("guest", "/a", "one", "s")
    other = Subscriptions(store, b"another")
    assert not await has(other, "guest", "/a", "one")
    assert not await knows(other, "guest", "/a", "one", "s")


@pytest.mark.parametrize(
    ("client", "secret"), [("", None), ("a" * (LENGTH_LIMIT + 1), None), ("a", ""), ("a", "b" * 513)]
)
async def test_what_is_no_client(clients: Subscriptions, client: str, secret: str | None) -> None:
    with pytest.raises(BadRequest):
        await clients.add("guest", "/a", client, secret)


async def test_a_namespace_has_so_many(clients: Subscriptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "SUBSCRIPTIONS_LIMIT", 2)
    await clients.add("guest", "/a", "one", None)
    await clients.add("guest", "/b", "one", None)
    with pytest.raises(Throttled, match="2"):
        await clients.add("guest", "/a", "two", None)
    await clients.add("guest", "/a", "one", "new")
    await clients.add("other", "/a", "two", None)


async def test_what_is_held_is_bounded(clients: Subscriptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "CACHED_LIMIT", 2)
    names = ("one", "two", "three")
    for name in names:
        await clients.add("guest", "/a", name, None)
    for name in names:
        assert await has(clients, "guest", "/a", name)
    assert [name for name in names if clients.peek("guest", "/a", name)] == ["three"]


async def test_who_is_gone_while_it_is_read_is_not_held(clients: Subscriptions, store: SqlitePromises) -> None:
    await clients.add("guest", "/a", "one", None)
    reading = asyncio.ensure_future(clients.find("guest", "/a", "one"))
    await asyncio.sleep(0)
    clients.clear()
    await reading
    assert clients.peek("guest", "/a", "one") is None


async def test_every_shard_hears_of_a_change(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        links = await linked(stack, tmp_path)
        store = await SqlitePromises.open(tmp_path / "promises.db")
        stack.push_async_callback(store.close)
        here, there = (Subscriptions(store, b"s", each) for each in links)
        await here.add("guest", "/a", "one", "first")
        await here.add("guest", "/b", "one", None)
        for clients in (here, there):
            assert await knows(clients, "guest", "/a", "one", "first")
            assert await has(clients, "guest", "/b", "one")
        await there.drop("guest", "/a", "one")
        for clients in (here, there):
            assert clients.peek("guest", "/a", "one") is None
            assert clients.peek("guest", "/b", "one") is not None
            assert not await has(clients, "guest", "/a", "one")
        is_down = asyncio.Event()
        links[1].when_down(lambda _: is_down.set())
        links[0].drop(1)
        await is_down.wait()
        assert there.peek("guest", "/b", "one") is None  # changes may be missed


async def test_clients_of_a_path_go_with_its_api(clients: Subscriptions) -> None:
    places = [place_of(scope, "/a", "/a/x") for scope in ("api", "resource", "tenant")]
    assert len(set(places)) == 3
    assert place_of("other", "/a", "/a/x") is None
    other = place_of("resource", "/ab", "/ab/x")
    for place in (*places, other):
        assert place is not None
        await clients.add("guest", place, "one", None)
        assert await has(clients, "guest", place, "one")
    await clients.drop_all("guest", "/a")
    assert [await has(clients, "guest", str(place), "one") for place in places] == [False, False, True]
    assert await has(clients, "guest", str(other), "one")
