"""Waits over real links: a shard watches and follows what another writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from tests.contract.linked import linked

from visp.bus.links import Links
from visp.controller.abroad import Abroad
from visp.controller.waits import Waits
from visp.entity.activation import ActivationHead, ActivationRecord
from visp.entity.subject import Identity, UserLimits
from visp.errors import NotFound
from visp.settings import Waits as Limits
from visp.store.base import ActivationQuery
from visp.store.memory import MemoryLedger

LIMITS = UserLimits(invocations_per_minute=60, fires_per_minute=60, concurrent_invocations=30)
ALICE = Identity(subject="alice", namespace="alice", namespace_uuid="uuid-a", limits=LIMITS)
BOB = Identity(subject="bob", namespace="bob", namespace_uuid="uuid-b", limits=LIMITS)
LONG_S = 60.0


def id_on(shard: int, number: int = 1) -> str:
    return f"{number:012x}{shard:02x}{number:018x}"


class Gathered:
    """Records of all shards, as one of them reads them: its own ledger tells of what it writes alone."""

    def __init__(self, own: MemoryLedger, every: list[MemoryLedger]) -> None:
        self._every = every
        self.when_recorded = own.when_recorded
        self.has_open = own.has_open

    async def get(self, namespace: str, id: str) -> ActivationRecord | None:
        return await self._every[int(id[12:14], 16) % len(self._every)].get(namespace, id)

    async def list(self, query: ActivationQuery) -> list[ActivationRecord]:
        raise NotImplementedError

    async def count(self, query: ActivationQuery) -> int:
        raise NotImplementedError


class Shard:
    def __init__(self, links: Links, ledger: MemoryLedger, every: list[MemoryLedger]) -> None:
        self.links = links
        self.ledger = ledger
        activations = Gathered(ledger, every)
        self.waits = Waits(activations, Limits())
        self.under_way: dict[str, str] = {}
        self.waits.ask(self.under_way.get)
        self.abroad = Abroad(self.waits, links, activations)
        self.waits.join(self.abroad)

    def begin(self, id: str) -> str:
        self.under_way[id] = ALICE.namespace_uuid
        return id

    def finish(self, id: str) -> None:
        head = ActivationHead(id=id, namespace="alice", subject="s", name="a", version="0.0.1", start_ms=0)
        self.ledger.finish(ActivationRecord(head=head, result=b"{}"), lambda _: None)

    @property
    def taken(self) -> float:
        (family,) = self.waits.measured()
        count = family.samples[()]
        assert isinstance(count, float | int)
        return count


@pytest.fixture
async def shards(tmp_path) -> AsyncIterator[list[Shard]]:
    async with AsyncExitStack() as stack:
        links = await linked(stack, tmp_path)
        ledgers = [MemoryLedger() for _ in links]
        yield [Shard(link, ledger, ledgers) for link, ledger in zip(links, ledgers, strict=True)]


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.001)


async def test_a_wait_for_another_shards_activation_is_answered_when_that_writes_it(shards: list[Shard]) -> None:
    here, there = shards
    id = there.begin(id_on(1))
    waiting = asyncio.ensure_future(here.waits.record(ALICE, id, LONG_S))
    await until(lambda: here.taken == 1)
    there.finish(id)
    async with asyncio.timeout(5):
        assert (await waiting).head.id == id
    await until(lambda: not there.abroad._watched)


async def test_it_is_said_at_once_what_another_shard_does_not_have_and_what_is_not_ones_own(
    shards: list[Shard],
) -> None:
    here, there = shards
    there.begin(id_on(1))
    async with asyncio.timeout(5):
        for id, who in ((id_on(1, 9), ALICE), (id_on(1), BOB), (id_on(7), ALICE)):
            with pytest.raises(NotFound) as raised:
                await here.waits.record(who, id, LONG_S)
            assert raised.value.headers == ()


async def test_who_waits_no_longer_is_not_watched_for(shards: list[Shard]) -> None:
    here, there = shards
    id = there.begin(id_on(1))
    waiting = asyncio.ensure_future(here.waits.record(ALICE, id, LONG_S))
    await until(lambda: there.abroad._watched)
    waiting.cancel()
    await until(lambda: not there.abroad._watched)


async def test_a_shard_that_no_longer_exists_is_waited_for_where_its_ledger_went(shards: list[Shard]) -> None:
    first, other = shards
    id = first.begin(id_on(6))
    waiting = asyncio.ensure_future(other.waits.record(ALICE, id, LONG_S))
    await until(lambda: other.taken == 1)
    first.finish(id)
    async with asyncio.timeout(5):
        assert (await waiting).head.id == id


async def test_a_link_that_ends_takes_its_watches_along_and_who_waited_asks_again(shards: list[Shard]) -> None:
    here, there = shards
    id = there.begin(id_on(1))
    waiting = asyncio.ensure_future(here.waits.record(ALICE, id, LONG_S))
    await until(lambda: here.taken == 1)
    here.links.drop(1)
    await until(lambda: not there.abroad._watched)
    await until(lambda: there.abroad._watched)
    there.finish(id)
    async with asyncio.timeout(5):
        assert (await waiting).head.id == id


async def test_a_feed_has_what_every_shard_finishes_also_after_a_link_was_lost(shards: list[Shard]) -> None:
    here, there = shards
    async with asyncio.timeout(10), here.waits.feed("alice", None, None) as feed:
        there.finish(id_on(1, 1))
        assert await feed.next() == id_on(1, 1)
        here.finish(id_on(0, 2))
        assert await feed.next() == id_on(0, 2)
        here.links.drop(1)
        await until(lambda: not there.abroad._followed)
        await until(lambda: there.abroad._followed)
        there.finish(id_on(1, 3))
        assert await feed.next() == id_on(1, 3)
    await until(lambda: not there.abroad._followed)
