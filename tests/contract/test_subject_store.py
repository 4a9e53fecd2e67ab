"""What every subject store promises."""

from __future__ import annotations

import msgspec
import pytest

from visp.store.base import KeyRecord, SubjectStore
from visp.store.memory import MemoryEntities
from visp.store.sqlite import SqliteEntities

KEY = KeyRecord(uuid="u1", digest=b"\x00d", sealed=b"s\xff", subject="guest", namespace="ns")


@pytest.fixture(params=["memory", "sqlite"])
async def store(request, tmp_path):
    opened = MemoryEntities() if request.param == "memory" else await SqliteEntities.open(tmp_path / "entities.db")
    yield opened
    await opened.close()


async def test_a_key_is_found_by_its_uuid(store: SubjectStore) -> None:
    await store.put_key(KEY)
    assert await store.key("u1") == KEY
    assert await store.key("u2") is None


async def test_a_key_with_the_same_uuid_is_replaced(store: SubjectStore) -> None:
    await store.put_key(KEY)
    blocked = msgspec.structs.replace(KEY, digest=b"other", is_blocked=True)
    await store.put_key(blocked)
    assert await store.key("u1") == blocked
    assert await store.keys_of("ns") == [blocked]


async def test_the_keys_of_a_namespace_are_its_own(store: SubjectStore) -> None:
    second = msgspec.structs.replace(KEY, uuid="u0", subject="friend")
    await store.put_key(KEY)
    await store.put_key(second)
    await store.put_key(msgspec.structs.replace(KEY, uuid="u3", namespace="other"))
    assert await store.keys_of("ns") == [second, KEY]
    assert await store.keys_of("none") == []


async def test_limits_are_set_replaced_and_taken_away(store: SubjectStore) -> None:
    assert await store.limits("ns") is None
    await store.put_limits("ns", b'{"a":1}')
    await store.put_limits("other", b"{}")
    await store.put_limits("ns", b'{"a":2}')
    assert await store.limits("ns") == b'{"a":2}'
    assert sorted(await store.all_limits()) == [("ns", b'{"a":2}'), ("other", b"{}")]
    await store.put_limits("ns", None)
    assert await store.all_limits() == [("other", b"{}")]
    assert await store.limits("ns") is None
    assert await store.limits("other") == b"{}"
    await store.put_limits("ns", None)


async def test_the_keys_of_a_subject_are_found_and_go_one_by_one(store: SubjectStore) -> None:
    second = msgspec.structs.replace(KEY, uuid="u0", namespace="team")
    await store.put_key(KEY)
    await store.put_key(second)
    await store.put_key(msgspec.structs.replace(KEY, uuid="u3", subject="friend"))
    assert await store.keys_of_subject("guest") == [second, KEY]
    await store.delete_key("u0")
    await store.delete_key("nosuch")
    assert await store.keys_of_subject("guest") == [KEY]
    assert await store.keys_of("team") == []


async def test_what_another_process_writes_shows_in_the_version(tmp_path) -> None:
    one, other = [await SqliteEntities.open(tmp_path / "entities.db") for _ in range(2)]
    before = await one.version()
    assert await one.version() == before
    changes = (
        other.put_key(KEY),
        other.put_key(msgspec.structs.replace(KEY, is_blocked=True)),
        other.put_limits("ns", b"{}"),
        other.put_limits("ns", None),
        other.delete_key("u1"),
    )
    for change in changes:
        await change
        assert await one.version() != before
        before = await one.version()
    await one.close()
    await other.close()
