"""What one shard's stores promise about what others wrote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.contract.linked import linked
from tests.contract.test_entity_store import document

from visp.bus.links import Links
from visp.clock import SystemClock
from visp.entity.activation import ActivationHead, ActivationRecord, new_id, shard_of
from visp.errors import Conflict, StoreUnavailable
from visp.settings import Settings
from visp.shard import left_behind
from visp.store import tallies
from visp.store.base import ActivationQuery, Delete, Put, Work
from visp.store.gathered import GatheredActivations, RoutedLedger
from visp.store.index import SqliteActivations
from visp.store.ledger import EmbeddedLedger
from visp.store.shared import BorrowedEntities, WrittenEntities

COUNT = 2


class Shard:
    """One shard's stores of activations over the folder that all share."""

    def __init__(self, number: int, links: Links, ledgers: dict[int, EmbeddedLedger], folder: Path) -> None:
        self.number = number
        self.links = links
        self.own = ledgers[number]
        self.ledger = RoutedLedger(number, ledgers, COUNT, links)
        self.activations = GatheredActivations(folder, ledgers, COUNT, left_behind(folder, COUNT), links)

    async def finish(self, start_ms: int, id: str = "") -> str:
        """A record; its id."""
        id = id or new_id(start_ms, self.number)
        head = ActivationHead(
            id=id, namespace="ns", subject="s", name="a", version="0.0.1", start_ms=start_ms, path="ns/a"
        )
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.ledger.finish(ActivationRecord(head=head, result=b'{"n":1}', logs=("said",)), done.set_result)
        assert await done is None
        return id

    async def accept(self, *ids: str) -> Exception | None:
        done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.ledger.accept([Work(id, b"message") for id in ids], None, done.set_result)
        assert not done.done()
        async with asyncio.timeout(5):
            return await done

    async def keep(self, *ids: str) -> Exception | None:
        done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.ledger.keep([Work(id, b"message") for id in ids], done.set_result)
        async with asyncio.timeout(5):
            return await done

    async def listed(self, **query: Any) -> list[str]:
        found = await self.activations.list(ActivationQuery(**{"namespace": "ns"} | query))
        return [record.head.id for record in found]


async def open_ledger(folder: Path, number: int) -> EmbeddedLedger:
    index = await SqliteActivations.open(folder / f"activations-{number}.db")
    ledger = EmbeddedLedger(folder / "ledger" / str(number), index, Settings(), SystemClock())
    await ledger.open()
    return ledger


@pytest.fixture
async def shards(tmp_path: Path) -> AsyncIterator[list[Shard]]:
    """Two shards; the first has adopted what a third one left."""
    async with AsyncExitStack() as stack:
        ledgers = [await open_ledger(tmp_path, number) for number in (0, 1, 7)]
        for ledger in ledgers:
            stack.push_async_callback(ledger.close)
        links = await linked(stack, tmp_path, COUNT)
        mine = ({0: ledgers[0], 7: ledgers[2]}, {1: ledgers[1]})
        shards = [Shard(number, links[number], mine[number], tmp_path) for number in range(COUNT)]
        for shard in shards:
            stack.push_async_callback(shard.activations.close)
        yield shards


# ── activations ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_record_is_read_on_every_shard_indexed_or_not(shards: list[Shard]) -> None:
    ids = [await shard.finish(1_000) for shard in shards]
    ids.append(await shards[0].finish(1_000, new_id(1_000, 7)))
    for _ in range(2):
        for shard in shards:
            for id in ids:
                record = await shard.activations.get("ns", id)
                assert record is not None
                assert (record.head.id, record.result, record.logs) == (id, b'{"n":1}', ("said",))
                assert await shard.activations.get("other", id) is None
            for number in (0, 1, 7, 9):
                assert await shard.activations.get("ns", new_id(5, number)) is None
        await shards[1].listed()


async def test_a_list_is_that_of_all_in_one_order(shards: list[Shard]) -> None:
    starts = [(5_000 + n // 2, await shards[n % 2].finish(5_000 + n // 2)) for n in range(20)]
    starts.append((5_003, await shards[0].finish(5_003, new_id(5_003, 7))))
    expected = [id for _, id in sorted(starts, reverse=True)]
    for shard in shards:
        assert await shard.listed() == expected
        assert await shard.listed(skip=3, limit=7) == expected[3:10]
        assert await shard.listed(skip=19, limit=7) == expected[19:]
        assert await shard.listed(limit=0) == []
        assert await shard.listed(since_ms=5_008) == expected[:4]
        assert await shard.activations.count(ActivationQuery(namespace="ns")) == 21
        assert await shard.activations.count(ActivationQuery(namespace="ns", upto_ms=5_000)) == 2


@pytest.mark.parametrize("apart_ms", [1, 9_000, 5_000_000], ids=["at once", "minutes", "days"])
async def test_a_deep_page_is_that_of_all(shards: list[Shard], monkeypatch: pytest.MonkeyPatch, apart_ms: int) -> None:
    monkeypatch.setattr(tallies, "DEEP", 0)
    begin_ms = 1_700_000_000_000
    starts = [begin_ms + n // 2 * apart_ms for n in range(40)]
    placed = [(start_ms, await shards[n % 2].finish(start_ms)) for n, start_ms in enumerate(starts)]
    placed.append((begin_ms, await shards[0].finish(begin_ms, new_id(begin_ms, 7))))
    expected = [id for _, id in sorted(placed, reverse=True)]
    upto_ms = begin_ms + 9 * apart_ms
    older = [id for start_ms, id in sorted(placed, reverse=True) if start_ms <= upto_ms]
    for skip in range(0, 45, 4):
        assert await shards[skip % 2].listed(skip=skip, limit=5) == expected[skip : skip + 5]
        assert await shards[skip % 2].listed(skip=skip, limit=5, upto_ms=upto_ms) == older[skip : skip + 5]


async def test_a_list_tells_what_it_can_while_a_shard_is_down(shards: list[Shard]) -> None:
    id = await shards[1].finish(1_000)
    await shards[1].own.flush()
    await shards[1].links.close()
    assert await shards[0].listed() == [id]
    with pytest.raises(StoreUnavailable):
        await shards[0].activations.get("ns", new_id(1_000, 1))


async def test_work_is_accepted_by_the_shard_that_its_id_names(shards: list[Shard]) -> None:
    away, here, adopted = new_id(1, 0), new_id(1, 1), new_id(1, 7)
    for shard in reversed(shards):
        assert await shard.accept(here if shard.number else adopted) is None
    assert await shards[1].accept(away) is None
    assert [list(ledger._open) for ledger in (shards[0].own, shards[1].own)] == [[away], [here]]
    assert shard_of(away) == 0


async def test_what_has_ended_on_another_shard_is_not_opened_again(shards: list[Shard]) -> None:
    running, ended, here = new_id(1, 0), new_id(1, 0), new_id(1, 1)
    shards[0].ledger.ask(lambda id: id == running)
    for id in (running, ended, here):
        assert await shards[1].keep(id) is None
    assert [list(shard.own._open) for shard in shards] == [[running], [here]]


async def test_work_for_a_shard_that_is_down_is_not_accepted(shards: list[Shard]) -> None:
    await shards[0].links.close()
    async with asyncio.timeout(5):
        while shards[1].links.up():  # noqa: ASYNC110 - the other end sees it a little later
            await asyncio.sleep(0.001)
    assert isinstance(await shards[1].accept(new_id(1, 0)), StoreUnavailable)


# ── entities ────────────────────────────────────────────────────────────────────────────────────────────────────


class Entities:
    """The stores of shard 0 and of two others, and what each has heard."""

    def __init__(self) -> None:
        self.links: list[Links] = []
        self.stores: list[WrittenEntities | BorrowedEntities] = []
        self.heard: list[list[tuple[str, int]]] = [[], [], []]


@pytest.fixture
async def entities(tmp_path: Path) -> AsyncIterator[Entities]:
    async with AsyncExitStack() as stack:
        made = Entities()
        made.links = await linked(stack, tmp_path, 3)
        path = tmp_path / "entities.db"
        made.stores.append(await WrittenEntities.open_shared(path, made.links[0]))
        made.stores += [await BorrowedEntities.borrow(path, links) for links in made.links[1:]]
        for store, heard in zip(made.stores, made.heard, strict=True):
            stack.push_async_callback(store.close)
            store.when_changed(lambda id, revision, heard=heard: heard.append((id, revision)))
        yield made


@pytest.mark.parametrize("writer", [0, 1, 2])
async def test_when_a_write_is_answered_every_shard_has_heard_and_reads_it(entities: Entities, writer: int) -> None:
    (revision,) = await entities.stores[writer].write([Put(document("ns/a", body=b"new"), None)])
    assert entities.heard == [[("ns/a", revision)]] * 3
    for store in entities.stores:
        found = await store.get("ns/a")
        assert found is not None
        assert (found.body, found.revision) == (b"new", revision)
    assert await entities.stores[writer].write([Delete("ns/a", revision)]) == [0]
    assert [heard[-1] for heard in entities.heard] == [("ns/a", 0)] * 3


async def test_of_two_writers_one_loses(entities: Entities) -> None:
    (revision,) = await entities.stores[1].write([Put(document("ns/a"), None)])
    raced = [store.write([Put(document("ns/a"), revision)]) for store in entities.stores]
    outcomes = await asyncio.gather(*raced, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes if isinstance(outcome, Exception)] == [Conflict, Conflict]


async def test_who_is_gone_is_not_waited_for(entities: Entities) -> None:
    await entities.links[2].close()
    await entities.stores[1].write([Put(document("ns/a"), None)])
    assert [len(heard) for heard in entities.heard] == [1, 1, 0]


async def test_without_the_writer_nothing_is_written_and_all_is_read(entities: Entities) -> None:
    await entities.stores[1].write([Put(document("ns/a"), None)])
    await entities.links[0].close()
    with pytest.raises(StoreUnavailable):
        await entities.stores[1].write([Put(document("ns/b"), None)])
    assert await entities.stores[2].get("ns/a") is not None
