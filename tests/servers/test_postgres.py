"""`postgres/notify` and `postgres/changes` against a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tests.servers.programs import BINARIES, Postgres
from tests.servers.watched import Crash, Near, Watched

from visp.feed.base import FeedRefused, Made, SourceLost
from visp.feed.postgres import DROP, Changes, Notify, slot_of

pytestmark = [pytest.mark.all]


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    program = Postgres()
    try:
        program.start()
        yield program
    finally:
        program.close()


async def client(postgres: Postgres) -> Any:
    import asyncpg

    while True:
        try:
            return await asyncpg.connect(
                host="127.0.0.1", port=postgres.port, user="postgres", password="s3cret", ssl=False
            )
        except asyncpg.CannotConnectNowError:  # it reads its log after a crash
            continue


async def run(postgres: Postgres, *statements: str) -> None:
    connection = await client(postgres)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


def url(postgres: Postgres) -> str:
    return f"postgres://postgres:s3cret@localhost:{postgres.port}/postgres"


def asked(postgres: Postgres, mode: str) -> dict[str, Any]:
    return Changes().parse({"url": url(postgres), "tables": "orders", "mode": mode}, 0)


TABLE = "CREATE TABLE orders (id bigserial PRIMARY KEY, name text)"
MODES = pytest.mark.parametrize("mode", ["logical", "outbox"])


def add(postgres: Postgres, *names: str) -> Any:
    return run(postgres, *(f"INSERT INTO orders (name) VALUES ('{name}')" for name in names))


def names(watch: Watched) -> list[str]:
    return [body["new"]["name"] for body in watch.bodies]


async def test_what_is_notified_while_it_listens_is_told(postgres: Postgres) -> None:
    asks = Notify().parse({"url": url(postgres), "channel": "Orders"}, 0)
    assert await Notify().check(asks, Near()) is None
    watch = Watched()
    await watch.is_live(Notify().open(asks, Near()), lambda: run(postgres, "SELECT pg_notify('Orders', 'a')"))
    assert watch.bodies == [{"channel": "Orders", "payload": "a"}]


@MODES
async def test_rows_are_told_from_creation_on_in_order(postgres: Postgres, mode: str) -> None:
    await run(postgres, TABLE)
    await add(postgres, "before")
    asks = asked(postgres, mode)
    watch = Watched(await Changes().check(asks, Near()))
    await run(postgres, "INSERT INTO orders (name) VALUES ('a'), ('b''c')")
    await watch.run(Changes().open(asks, Near()), lambda watch: len(watch.events) == 2)
    first = watch.bodies[0]
    assert (first["table"], first["op"], first["key"]) == ("public.orders" if mode == "logical" else "orders",
                                                           "insert", {"id": 2})  # fmt: skip
    assert first["new"] == {"id": 2, "name": "a"}
    await add(postgres, "d")
    await watch.run(Changes().open(asks, Near()), lambda watch: len(watch.events) == 3)
    assert names(watch) == ["a", "b'c", "d"]
    assert watch.told == 3


async def test_updates_and_deletions_are_told_with_what_was(postgres: Postgres) -> None:
    await run(postgres, TABLE, "ALTER TABLE orders REPLICA IDENTITY FULL", "CREATE TABLE other (id int)")
    asks = asked(postgres, "logical")
    watch = Watched(await Changes().check(asks, Near()))
    await add(postgres, "a")
    await run(postgres, "UPDATE orders SET name = 'b'", "INSERT INTO other VALUES (1)", "DELETE FROM orders")
    await watch.run(Changes().open(asks, Near()), lambda watch: len(watch.events) == 3)
    assert [body["op"] for body in watch.bodies] == ["insert", "update", "delete"]
    assert watch.bodies[1]["old"] == {"id": 1, "name": "a"}
    assert watch.bodies[1]["new"] == {"id": 1, "name": "b"}
    assert watch.bodies[2]["old"] == {"id": 1, "name": "b"}
    assert watch.bodies[2]["new"] is None
    assert watch.bodies[2]["key"] == {"id": 1}


@MODES
async def test_a_crash_between_fire_and_position_loses_nothing(postgres: Postgres, mode: str) -> None:
    await run(postgres, TABLE)
    asks = asked(postgres, mode)
    watch = Watched(await Changes().check(asks, Near()))
    await add(postgres, "a", "b")
    watch.crashes_between = True
    with pytest.raises(Crash):
        await watch.run(Changes().open(asks, Near()), lambda watch: False)
    await add(postgres, "c")
    await watch.run(Changes().open(asks, Near()), lambda watch: len(watch.events) == 3)
    assert names(watch) == ["a", "b", "c"]


async def test_a_large_transaction_goes_on_in_its_middle(postgres: Postgres) -> None:
    await run(postgres, TABLE)
    asks = asked(postgres, "logical")
    watch = Watched(await Changes().check(asks, Near()))
    await run(postgres, "INSERT INTO orders (name) SELECT 'n' || i FROM generate_series(1, 1500) i")
    await watch.run(Changes().open(asks, Near()), lambda watch: len(watch.events) >= 500)
    assert watch.position["done"] < 1500
    told = watch.told
    await watch.run(Changes().open(asks, Near()), lambda watch: len(watch.events) == 1500)
    assert watch.told - told == 1500 - told
    assert names(watch) == [f"n{i}" for i in range(1, 1501)]


async def test_an_id_that_commits_late_is_told(postgres: Postgres) -> None:
    await run(postgres, TABLE)
    asks = asked(postgres, "outbox")
    watch = Watched(await Changes().check(asks, Near()))
    slow, late = await client(postgres), await client(postgres)
    begun = slow.transaction()
    await begun.start()
    await slow.execute("INSERT INTO orders (name) VALUES ('slow')")
    early_id = await late.fetchval("SELECT nextval('orders_id_seq')")
    await add(postgres, "fast")
    running = asyncio.ensure_future(watch.run(Changes().open(asks, Near()), lambda watch: len(watch.events) == 3))
    await begun.commit()
    await watch.has(2)
    assert names(watch) == ["slow", "fast"]
    await late.execute("INSERT INTO orders VALUES ($1, 'late')", early_id)
    await running
    assert names(watch) == ["slow", "fast", "late"]
    await slow.close()
    await late.close()


@MODES
async def test_a_server_that_goes_is_lost_and_goes_on_where_it_was(postgres: Postgres, mode: str) -> None:
    await run(postgres, TABLE)
    asks = asked(postgres, mode)
    watch = Watched(await Changes().check(asks, Near()))
    await add(postgres, "a")
    source = Changes().open(asks, Near())

    def stops(watch: Watched) -> bool:
        if watch.events:
            postgres.stop()
        return False

    with pytest.raises(SourceLost, match="PostgreSQL at localhost") as lost:
        await watch.run(source, stops)
    assert "s3cret" not in str(lost.value)
    with pytest.raises(SourceLost):
        await watch.run(source, lambda watch: False)
    (postgres.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
    postgres.start()
    await add(postgres, "b")
    await watch.run(source, lambda watch: len(watch.events) == 2)
    assert names(watch) == ["a", "b"]


async def test_what_cannot_be_is_refused_without_a_secret(postgres: Postgres) -> None:
    with pytest.raises(FeedRefused, match="The table 'orders' does not exist"):
        await Changes().check(asked(postgres, "logical"), Near())
    asks = Notify().parse({"url": url(postgres), "channel": "c", "password": "wr0ng"}, 0)
    with pytest.raises(FeedRefused, match="PostgreSQL at localhost") as refused:
        await Notify().check(asks, Near())
    assert "wr0ng" not in refused.value.sentence


async def test_two_feeds_do_not_read_one_slot(postgres: Postgres) -> None:
    await run(postgres, TABLE)
    asks = asked(postgres, "logical")
    watch = Watched(await Changes().check(asks, Near()))

    async def second() -> None:
        with pytest.raises(SourceLost, match="read by another feed"):
            await Changes().open(asks, Near()).run(Watched(), {})
        await add(postgres, "a")

    await watch.is_live(Changes().open(asks, Near()), second)


async def test_a_slot_that_was_made_goes_with_its_feed(postgres: Postgres) -> None:
    await run(postgres, TABLE)
    asks = asked(postgres, "logical")
    watch = Watched(found := await Changes().check(asks, Near()))
    assert isinstance(found, Made)
    assert not isinstance(await Changes().check(asks, Near()), Made)
    await add(postgres, "a")
    await watch.run(Changes().open(asks, Near()), lambda watch: len(watch.events) == 1)
    await Changes().deleted(asks, Near())
    connection = await client(postgres)
    assert await connection.fetch("SELECT slot_name FROM pg_replication_slots") == []
    await connection.close()
    await Changes().deleted(asks, Near())
    assert Changes().trace(asked(postgres, "outbox")) is None


async def test_a_slot_that_is_read_is_dropped_when_it_is_not(postgres: Postgres) -> None:
    await run(postgres, TABLE)
    asks = asked(postgres, "logical")
    await Changes().check(asks, Near())
    reads = [str(BINARIES[-1] / "pg_recvlogical"), "-d", url(postgres), "-S", slot_of(asks), "--start", "-f", "-"]
    reader = await asyncio.create_subprocess_exec(*reads, stdout=asyncio.subprocess.DEVNULL)
    connection = await client(postgres)
    try:
        await until(connection, "SELECT bool_and(active) FROM pg_replication_slots")
        dropping = asyncio.ensure_future(Changes().deleted(asks, Near()))
        await until(connection, "SELECT count(*) > 0 FROM pg_stat_activity WHERE state = 'idle' AND query = $1", DROP)
        assert not dropping.done()
    finally:
        reader.terminate()
        await reader.wait()
    await dropping
    assert await connection.fetch("SELECT slot_name FROM pg_replication_slots") == []
    await connection.close()


async def until(connection: Any, question: str, *given: str) -> None:
    async with asyncio.timeout(20):
        while not await connection.fetchval(question, *given):  # noqa: ASYNC110 - only the server knows
            await asyncio.sleep(0.02)
