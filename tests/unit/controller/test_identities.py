"""From a header to an identity: keys, blocks, and what an operator set for a namespace."""

import base64
import json
from typing import Any

import msgspec
import pytest

from visp.controller.identities import Identities, NamespaceLimits, effective_limits, own_days, seal, unseal
from visp.entity.limits import Range
from visp.entity.subject import GUEST, GUEST_KEY, GUEST_UUID, AuthKey, Identity, UserLimits
from visp.errors import Unauthorized
from visp.settings import Limits
from visp.store.memory import MemoryEntities

SECRET = b"s" * 32
PLATFORM = Limits(invocations_per_minute=60, fires_per_minute=61, concurrent_invocations=30)


def header(key: AuthKey | None) -> bytes:
    return b"Basic " + base64.b64encode(str(key).encode())


@pytest.fixture
def store() -> MemoryEntities:
    return MemoryEntities()


@pytest.fixture
def identities(store: MemoryEntities) -> Identities:
    return Identities(store, SECRET, PLATFORM, is_loopback=False)


async def limits_of(store: MemoryEntities, record: Any) -> UserLimits:
    await store.put_limits("ns", record if isinstance(record, bytes) else json.dumps(record).encode())
    identities = Identities(store, SECRET, PLATFORM, is_loopback=False)
    return (await identities.identify(header(await identities.ensure("ns")))).limits


async def test_a_key_is_made_once_and_found(identities: Identities) -> None:
    key = await identities.ensure("ns")
    assert await identities.ensure("ns") is None
    found = await identities.identify(header(key))
    assert isinstance(found, Identity)
    assert (found.namespace, found.subject, found.is_loopback_only) == ("ns", "ns", False)
    assert await identities.key_of(found.namespace_uuid) == str(key)
    assert identities.peek(header(key)) == found


async def test_a_blocked_key_ends_when_it_is_forgotten(identities: Identities, store: MemoryEntities) -> None:
    key = await identities.ensure("ns")
    await identities.identify(header(key))
    [record] = await store.keys_of("ns")
    await store.put_key(msgspec.structs.replace(record, is_blocked=True))
    identities.forget()
    with pytest.raises(Unauthorized):
        await identities.identify(header(key))


async def test_the_well_known_key_exists_only_on_loopback(identities: Identities, store: MemoryEntities) -> None:
    guest = header(AuthKey(GUEST_UUID, GUEST_KEY))
    with pytest.raises(Unauthorized):
        await identities.identify(guest)
    local = await Identities(store, SECRET, PLATFORM, is_loopback=True).identify(guest)
    assert (local.namespace, local.is_loopback_only) == (GUEST, True)


async def test_the_platforms_limits_hold_where_none_are_set(store: MemoryEntities) -> None:
    limits = await limits_of(store, {})
    assert (limits.invocations_per_minute, limits.fires_per_minute, limits.concurrent_invocations) == (60, 61, 30)
    assert (limits.is_storing, limits.own, limits.allowed_kinds) == (True, {}, frozenset())


async def test_an_operators_limits_stay_within_the_systems(store: MemoryEntities) -> None:
    limits = await limits_of(
        store,
        {
            "invocationsPerMinute": 0,
            "minActionMemory": 1,
            "maxActionMemory": 9999,
            "maxActionTimeout": 1000,
            "maxParameterSize": "1 KB",
            "maxPayloadSize": "5 GB",
            "truncationSize": "1 B",
            "storeActivations": False,
            "warmedContainerKeepingCount": 2,
            "warmedContainerKeepingTimeout": "24 hours",
            "retentionDays": 0.5,
            "unknown": 1,
        },
    )
    assert limits.invocations_per_minute == 0
    assert (limits.ranges.memory_mb.low, limits.ranges.memory_mb.high) == (128, 512)
    assert limits.ranges.timeout_ms.high == 1000
    assert (limits.parameters_bytes, limits.payload_bytes, limits.answers.shown) == (1024, 1048576, 1)
    assert not limits.is_storing
    assert limits.own == {
        "storeActivations": False,
        "maxPayloadSize": "1048576 B",
        "truncationSize": "1 B",
        "warmedContainerKeepingCount": 2,
        "warmedContainerKeepingTimeout": "24 hours",
        "retentionDays": 0.5,
    }


async def test_days_of_records_are_told_where_they_were_set(store: MemoryEntities) -> None:
    for namespace, record in (
        ("day", b'{"retentionDays":1}'),
        ("ever", b'{"retentionDays":0,"firesPerMinute":1}'),
        ("none", b'{"retentionDays":null}'),
        ("other", b'{"firesPerMinute":1}'),
        ("bad", b'{"retentionDays":-1}'),
        ("malformed", b'{"retentionDays":1,"firesPerMinute":"5"}'),
    ):
        await store.put_limits(namespace, record)
    assert await own_days(store, PLATFORM) == {"day": 1.0, "ever": 0.0}


@pytest.mark.parametrize(
    ("platform", "record", "high"),
    [(1, {}, 1), (1, {"maxActionConcurrency": 5}, 1), (10, {}, 10), (10, {"maxActionConcurrency": 5}, 5)],
)
def test_runs_at_once_in_a_container_are_bounded_by_setting_and_namespace(
    platform: int, record: dict[str, int], high: int
) -> None:
    own = msgspec.convert(record, NamespaceLimits)
    assert effective_limits(own, Limits(concurrency=platform)).ranges.concurrency == Range(1, high, 1)


@pytest.mark.parametrize("record", [b"{", b"[]", b"\xff", {"maxPayloadSize": "much"}, {"firesPerMinute": "5"}])
async def test_a_malformed_record_counts_as_none(store: MemoryEntities, record: Any) -> None:
    if isinstance(record, dict):
        record = record | {"invocationsPerMinute": 1}
    assert (await limits_of(store, record)).invocations_per_minute == 60


def test_a_key_is_sealed_under_the_secret() -> None:
    sealed = seal("key", SECRET)
    assert b"key" not in sealed
    assert sealed != seal("key", SECRET)
    assert unseal(sealed, SECRET) == "key"
