"""Clients of APIs: what is kept of them, and who is let in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from visp.controller import subscriptions as subject
from visp.controller.subscriptions import LENGTH_LIMIT, Subscriptions
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


async def test_clients_of_one_api(clients: Subscriptions) -> None:
    await clients.add("guest", "/a", "two", "s")
    await clients.add("guest", "/a", "one", None)
    assert await clients.clients("guest", "/a") == ["one", "two"]
    assert await clients.has("guest", "/a", "one")
    for namespace, base_path, client in (("guest", "/b", "one"), ("other", "/a", "one"), ("guest", "/a", "three")):
        assert not await clients.has(namespace, base_path, client)
    assert await clients.drop("guest", "/a", "one")
    assert not await clients.drop("guest", "/a", "one")
    assert await clients.clients("guest", "/a") == ["two"]
    await clients.drop_all("guest", "/a")
    assert await clients.clients("guest", "/a") == []


async def test_secrets(clients: Subscriptions) -> None:
    await clients.add("guest", "/a", "one", "first")
    assert await clients.knows("guest", "/a", "one", "first")
    assert not await clients.knows("guest", "/a", "one", "second")
    assert not await clients.knows("guest", "/a", "one", "")
    assert not await clients.knows("guest", "/a", "two", "first")
    await clients.add("guest", "/a", "one", "second")
    assert await clients.knows("guest", "/a", "one", "second")
    assert not await clients.knows("guest", "/a", "one", "first")
    await clients.add("guest", "/a", "one", None)
    assert not await clients.knows("guest", "/a", "one", "")


async def test_a_secret_is_not_kept(clients: Subscriptions, store: SqlitePromises) -> None:
    await clients.add("guest", "/a", "one", "a secret of a client")
    (held,) = await store.subscriptions("guest", "/a")
    assert b"a secret" not in held.secret
    assert len(held.secret) == len(held.digest) == 32


async def test_another_server_secret_knows_nobody(clients: Subscriptions, store: SqlitePromises) -> None:
    await clients.add("guest", "/a", "one", "s")
    other = Subscriptions(store, b"another")
    assert not await other.has("guest", "/a", "one")
    assert not await other.knows("guest", "/a", "one", "s")


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
