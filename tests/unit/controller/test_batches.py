"""Many fires at once: a line each, all in one turn; of a numbered batch each key once, whatever comes between."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.controller.test_fire import ACTIVE, firing, trigger

from visp.controller.batches import (
    BEGINNING_MS,
    KEPT_MS,
    LINES_MOST,
    SLICE,
    SWEEP_S,
    Batches,
    Line,
    Numbered,
    digest_of,
    parse_batch,
    parse_lines,
)
from visp.controller.fire import NothingToDo
from visp.controller.primitive import Accepted, Refused
from visp.errors import (
    BadQuery,
    BadRequest,
    Malformed,
    OlderBatch,
    Overloaded,
    StoreFull,
    StoreUnavailable,
    Throttled,
    TooLarge,
)
from visp.settings import Queue
from visp.store.base import Batch
from visp.store.promises import SqlitePromises

ONE = trigger(("r", "hello", ACTIVE))


@pytest.fixture
async def promises(tmp_path: Path) -> AsyncIterator[SqlitePromises]:
    store = await SqlitePromises.open(tmp_path / "promises.db")
    yield store
    await store.close()


@pytest.fixture
async def world(controller: Any, promises: SqlitePromises) -> Any:
    await controller.add("hello")
    return World(controller, promises)


class World:
    """A controller, and what fires its trigger."""

    def __init__(self, controller: Any, promises: Any, keys: int = 1000) -> None:
        self.controller = controller
        self.promises = promises
        self.batches = Batches(
            fire=controller.fire,
            promises=promises,
            activations=controller.ledger,
            clock=controller.clock,
            limits=Queue(idempotency_keys=keys),
        )

    async def fire(self, *keys: str, number: int | None = 1, source: str = "s", of: Any = ONE) -> list[Any]:
        lines = [Line(json.dumps({"k": key}).encode(), key) for key in keys]
        numbered = None if number is None else Numbered(source, number)
        return await self.batches.fire(firing(self.controller, of), lines, numbered)

    @property
    def fired(self) -> list[str]:
        """What the action was given, in order."""
        return [json.loads(run.content)["k"] for run in self.controller.hands.runs]


def ids(outcomes: list[Any]) -> list[str]:
    assert all(isinstance(outcome, Accepted) for outcome in outcomes), outcomes
    return [outcome.id for outcome in outcomes]


# ── lines ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_line_is_a_fire_and_blank_ones_are_none() -> None:
    assert parse_lines(b'{"a":1}\r\n\n  \n{"b":2}', is_keyed=False) == [Line(b'{"a":1}'), Line(b'{"b":2}')]
    assert parse_lines(b"", is_keyed=False) == []


def test_a_keyed_line_has_a_key_and_a_value() -> None:
    body = rb"""{"key":"k","value":{"a": 1}}
{"key":1,"value":{}}
{"value":{}}
[]
{"key":"","value":{}}
{"key":"\ud800","value":{}}"""
    first, *wrong = parse_lines(body, is_keyed=True)
    assert first == Line(b'{"a": 1}', "k")
    assert [type(line.error) for line in wrong] == [Malformed, Malformed, Malformed, BadRequest, Malformed]


def test_more_lines_than_a_request_may_have_are_refused() -> None:
    assert len(parse_lines(b"{}\n" * LINES_MOST, is_keyed=False)) == LINES_MOST
    for body in (b"{}\n" * LINES_MOST + b"{}", b"\n" * (LINES_MOST + 1)):
        with pytest.raises(TooLarge):
            parse_lines(body, is_keyed=False)


def test_a_batch_is_a_source_and_a_number() -> None:
    assert parse_batch("a/b/7") == Numbered("a/b", 7)
    assert parse_batch(None) is None
    for text in ("", "7", "/7", "a/", "a/x", "a/-1", "a/٣", "a/" + "9" * 19, "x" * 201 + "/1"):
        with pytest.raises(BadQuery):
            parse_batch(text)


async def test_all_lines_are_accepted_in_one_turn(world: World) -> None:
    entered: list[int] = []
    accept = world.controller.ledger.accept

    def noted(*values: Any, **named: Any) -> None:
        entered.append(turn[0])
        accept(*values, **named)

    world.controller.ledger.accept = noted
    turn = [0]

    async def count() -> None:
        while True:
            turn[0] += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    keys = [str(n) for n in range(SLICE + 10)]
    assert len(set(ids(await world.fire(*keys, number=None)))) == len(keys)
    counting.cancel()
    assert len(entered) == len(keys)
    assert len(set(entered)) == 1
    assert world.fired == keys


async def test_each_line_has_its_own_answer(world: World) -> None:
    world.controller.identity = world.controller.caller(fires_per_minute=3)
    lines = [Line(b'{"k":1}'), Line(b"[]"), Line(b'{"k":2}'), Line(b'{"k":3}')]
    first, wrong, second, late = await world.batches.fire(firing(world.controller, ONE), lines)
    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert isinstance(wrong, Refused)
    assert isinstance(wrong.error, Malformed)
    assert isinstance(late, Refused)
    assert isinstance(late.error, Throttled)
    assert world.fired == [1, 2]


async def test_what_lines_run_counts_as_in_flight_from_one_to_the_next(world: World) -> None:
    world.controller.identity = world.controller.caller(concurrent_invocations=2)
    await world.fire("a", "b", "c", number=None)
    assert world.fired == ["a", "b"]
    assert world.controller.throttle.in_flight("u") == 2


async def test_without_an_active_rule_nothing_happens(world: World) -> None:
    assert await world.fire("a", "b", of=trigger()) == [NothingToDo(), NothingToDo()]
    assert world.controller.ledger.entries == []


async def test_what_the_ledger_refuses_is_not_begun(world: World) -> None:
    world.controller.ledger.error = StoreFull()
    outcomes = await world.fire(*map(str, range(SLICE + 10)), number=None)
    assert all(isinstance(outcome, Refused) and isinstance(outcome.error, StoreFull) for outcome in outcomes)
    assert world.controller.throttle.in_flight("u") == 0
    assert len(world.fired) < SLICE + 10  # what was sent in the same turn the invoker cannot begin


async def test_a_key_that_comes_twice_in_a_request_is_fired_once(world: World) -> None:
    a, b, again = ids(await world.fire("a", "b", "a", number=None))
    assert (a, world.fired) == (again, ["a", "b"])
    assert a != b


# ── numbered batches ────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_batch_that_comes_again_fires_what_was_not_fired(world: World) -> None:
    first = ids(await world.fire("a", "b"))
    assert ids(await world.fire("a", "b")) == first
    assert ids(await world.fire("b")) == first[1:]
    assert ids(await world.fire("c", "b", "a"))[1:] == first[::-1]
    assert world.fired == ["a", "b", "c"]


async def test_the_next_batch_ends_the_one_before(world: World) -> None:
    await world.fire("a", number=1)
    await world.fire("a", number=2)
    assert world.fired == ["a", "a"]
    with pytest.raises(OlderBatch) as told:
        await world.fire("a", number=1)
    assert told.value.headers == (("X-Visp-Batch", "2"),)


async def test_an_empty_batch_ends_the_one_before_too(world: World) -> None:
    assert await world.fire(number=5) == []
    with pytest.raises(OlderBatch):
        await world.fire("a", number=4)


async def test_sources_and_triggers_know_nothing_of_each_other(world: World) -> None:
    await world.fire("a", number=2)
    await world.fire("a", number=1, source="other")
    assert world.fired == ["a", "a"]


async def test_a_refused_line_is_promised_nothing(world: World) -> None:
    world.controller.identity = world.controller.caller(fires_per_minute=1)
    first, refused = await world.fire("a", "b")
    assert isinstance(refused, Refused)
    world.controller.identity = world.controller.caller()
    again, fired = ids(await world.fire("a", "b"))
    assert (again, world.fired) == (first.id, ["a", "b"])
    assert fired != again


async def test_what_was_promised_and_never_accepted_is_fired_once_that_is_certain(world: World) -> None:
    world.controller.ledger.error = StoreFull()
    await world.fire("a")
    world.controller.ledger.error = None
    # what was refused is no record: the twin in memory must forget it as a ledger does
    world.controller.ledger._records.clear()
    world.controller.hands.messages.clear()
    (early,) = await world.fire("a")
    assert isinstance(early, Refused)
    assert isinstance(early.error, Overloaded)
    world.controller.clock.advance(BEGINNING_MS / 1000)
    ids(await world.fire("a"))
    ids(await world.fire("a"))
    assert world.fired == ["a"]


async def test_a_namespace_that_stores_nothing_still_knows_what_was_fired(world: World) -> None:
    caller = world.controller.caller()
    limits = type(caller.limits)(
        invocations_per_minute=100, fires_per_minute=100, concurrent_invocations=100, is_storing=False
    )
    world.controller.identity = type(caller)(subject="someone", namespace="guest", namespace_uuid="u", limits=limits)
    first = ids(await world.fire("a"))
    assert ids(await world.fire("a")) == first
    assert world.fired == ["a"]


async def test_one_batch_of_a_source_at_a_time(world: World) -> None:
    running = asyncio.ensure_future(world.fire("a"))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await world.fire("a")
    assert len(ids(await running)) == 1
    assert world.fired == ["a"]


async def test_another_shard_that_was_first_is_left_to_it(world: World) -> None:
    put = world.promises.put_batch

    async def beaten(scope: bytes, namespace: str, batch: Batch, limit: int) -> Any:
        await put(scope, namespace, batch, limit)
        return await put(scope, namespace, batch, limit)

    world.promises.put_batch = beaten
    with pytest.raises(Overloaded):
        await world.fire("a")
    assert world.fired == []
    assert world.controller.throttle.in_flight("u") == 0


async def test_a_promise_that_was_long_in_coming_is_not_used(world: World) -> None:
    put = world.promises.put_batch

    async def slow(*values: Any) -> Any:
        world.controller.clock.advance(BEGINNING_MS / 1000)
        return await put(*values)

    world.promises.put_batch = slow
    with pytest.raises(Overloaded):
        await world.fire("a")
    assert world.fired == []


async def test_a_store_that_fails_fires_nothing(world: World) -> None:
    async def broken(*_: Any) -> Any:
        raise StoreUnavailable

    world.promises.put_batch = broken
    with pytest.raises(StoreUnavailable):
        await world.fire("a")
    assert (world.fired, world.controller.throttle.in_flight("u")) == ([], 0)


async def test_keys_are_bounded(world: World, controller: Any, promises: SqlitePromises) -> None:
    small = World(controller, promises, keys=3)
    await small.fire("a", "b")
    with pytest.raises(Throttled):
        await small.fire("c")
    await small.fire("c", number=2)  # the keys of the first are given up for it
    with pytest.raises(Throttled):
        await small.fire("a", "b", source="other")
    assert small.fired == ["a", "b", "c"]


async def test_a_batch_has_no_more_keys_than_a_request(world: World) -> None:
    held = {number.to_bytes(16, "big"): "0" * 32 for number in range(LINES_MOST)}
    world.batches._limits = Queue()
    await world.fire(number=1)
    scope = await _scope(world)
    batch = await world.promises.batch(scope)
    await world.promises.put_batch(
        scope, "guest", Batch(number=1, at_ms=0, ids=held, revision=batch.revision), 1_000_000
    )
    with pytest.raises(BadRequest):
        await world.fire("a")
    assert world.fired == []


async def _scope(world: World) -> bytes:
    row = await world.promises._database.read(lambda db: db.execute("SELECT scope FROM batches").fetchone())
    return bytes(row[0])


async def test_sources_that_are_silent_for_long_are_forgotten(world: World) -> None:
    await world.fire("a", "b")
    sweeping = asyncio.ensure_future(world.batches.sweep())
    await asyncio.sleep(0)
    world.controller.clock.advance(KEPT_MS / 1000 + SWEEP_S)

    def count(db: sqlite3.Connection) -> list[tuple[int]]:
        return db.execute("SELECT count(*) FROM batches UNION ALL SELECT count FROM promise_counts").fetchall()

    async with asyncio.timeout(5):
        while await world.promises._database.read(count) != [(0,), (0,)]:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
    sweeping.cancel()


def test_a_key_is_kept_as_a_digest() -> None:
    assert len(digest_of("k" * 200)) == 16
    assert digest_of("a") != digest_of("b")
