"""`redis/stream` against a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.servers.programs import Redis
from tests.servers.watched import Crash, Near, Watched

from visp.feed.base import FeedRefused, Made, SourceLost
from visp.feed.redis import Stream

pytestmark = [pytest.mark.all]


@pytest.fixture
def redis() -> Iterator[Redis]:
    program = Redis()
    try:
        program.start()
        yield program
    finally:
        program.close()


def asked(redis: Redis, **more: Any) -> dict[str, Any]:
    url = f"redis://:s3cret@localhost:{redis.port}"
    return Stream().parse({"url": url, "stream": "orders", **more}, 0)


async def add(redis: Redis, *numbers: int) -> None:
    from redis.asyncio import Redis as Client

    async with Client(port=redis.port, password="s3cret") as client:
        for number in numbers:
            await client.xadd("orders", {"number": number})


def numbers(watch: Watched) -> list[int]:
    return [int(body["fields"]["number"]) for body in watch.bodies]


@pytest.mark.parametrize("more", [{}, {"group": "g"}])
async def test_what_is_added_from_creation_on_is_told_in_order(redis: Redis, more: dict[str, Any]) -> None:
    await add(redis, 0)
    asks = asked(redis, **more)
    watch = Watched(await Stream().check(asks, Near()))
    await add(redis, *range(1, 30))
    await watch.run(Stream().open(asks, Near()), lambda watch: len(watch.events) == 29)
    assert numbers(watch) == list(range(1, 30))
    body = watch.bodies[0]
    assert body["stream"] == "orders"
    assert body["id"] in watch.events
    await add(redis, 30)
    await watch.run(Stream().open(asks, Near()), lambda watch: len(watch.events) == 30)
    assert watch.told == 30


@pytest.mark.parametrize("more", [{}, {"group": "g"}])
async def test_a_crash_between_fire_and_position_loses_nothing(redis: Redis, more: dict[str, Any]) -> None:
    asks = asked(redis, **more)
    watch = Watched(await Stream().check(asks, Near()))
    await add(redis, 1, 2)
    watch.crashes_between = True
    with pytest.raises(Crash):
        await watch.run(Stream().open(asks, Near()), lambda watch: False)
    await add(redis, 3)
    await watch.run(Stream().open(asks, Near()), lambda watch: len(watch.events) == 3)
    assert numbers(watch) == [1, 2, 3]


async def test_what_was_fired_but_not_acknowledged_is_not_told_again(redis: Redis) -> None:
    asks = asked(redis, group="g")
    watch = Watched(await Stream().check(asks, Near()))
    await add(redis, 1, 2)
    watch.crashes_between = True
    with pytest.raises(Crash):
        await watch.run(Stream().open(asks, Near()), lambda watch: False)
    ids = list(watch.events)
    watch.position = {"from": ids[0], "upto": ids[-1]}  # it was kept, and the crash came after
    await add(redis, 3)
    await watch.run(Stream().open(asks, Near()), lambda watch: len(watch.events) == 3)
    assert watch.told == 3


async def test_a_server_that_goes_is_lost_and_goes_on_where_it_was(redis: Redis) -> None:
    asks = asked(redis)
    watch = Watched(await Stream().check(asks, Near()))
    await add(redis, 1)
    source = Stream().open(asks, Near())

    def stops(watch: Watched) -> bool:
        if watch.events:
            redis.stop()
        return False

    with pytest.raises(SourceLost, match="Redis at localhost") as lost:
        await watch.run(source, stops)
    assert "s3cret" not in str(lost.value)
    with pytest.raises(SourceLost):
        await watch.run(source, lambda watch: False)
    redis.start()
    await add(redis, 2)
    await watch.run(source, lambda watch: len(watch.events) == 2)
    assert numbers(watch) == [1, 2]


async def test_who_may_not_is_refused_without_a_secret(redis: Redis) -> None:
    asks = asked(redis, password="wr0ng")
    with pytest.raises(FeedRefused, match=r"Redis at localhost:\d+ cannot be reached") as refused:
        await Stream().check(asks, Near())
    assert "wr0ng" not in refused.value.sentence
    with pytest.raises(FeedRefused, match="may not be reached"):
        await Stream().check(asked(redis, url="redis://elsewhere.test"), Near())


async def test_large_entries_come_in_several_batches(redis: Redis) -> None:
    from redis.asyncio import Redis as Client

    asks = asked(redis)
    watch = Watched(await Stream().check(asks, Near()))
    async with Client(port=redis.port, password="s3cret") as client:
        for number in range(20):
            await client.xadd("orders", {"number": number, "data": b"x" * 900_000})
        await client.xadd("orders", {"number": 99, "data": b"x" * 1_100_000})
        await client.xadd("orders", {"number": 20})
    await watch.run(Stream().open(asks, Near()), lambda watch: len(watch.events) == 21)
    assert numbers(watch) == list(range(21))


async def groups(redis: Redis) -> dict[str, list[str]]:
    """Consumers by group."""
    from redis.asyncio import Redis as Client

    async with Client(port=redis.port, password="s3cret", decode_responses=True) as client:
        found = [group["name"] for group in await client.xinfo_groups("orders")]
        return {name: [one["name"] for one in await client.xinfo_consumers("orders", name)] for name in found}


async def test_a_group_that_was_made_goes_with_its_feed(redis: Redis) -> None:
    from redis.asyncio import Redis as Client

    await add(redis, 0)
    asks = asked(redis, group="g")
    watch = Watched(found := await Stream().check(asks, Near()))
    assert isinstance(found, Made)
    assert not isinstance(await Stream().check(asks, Near()), Made)
    await add(redis, 1)
    await watch.run(Stream().open(asks, Near()), lambda watch: len(watch.events) == 1)
    async with Client(port=redis.port, password="s3cret") as client:
        await client.xgroup_createconsumer("orders", "g", "theirs")
    await Stream().deleted(asks, Near())
    assert await groups(redis) == {"g": ["theirs"]}  # somebody else reads it
    async with Client(port=redis.port, password="s3cret") as client:
        await client.xgroup_delconsumer("orders", "g", "theirs")
    await Stream().deleted(asks, Near())
    assert await groups(redis) == {}
    await Stream().deleted(asks, Near())
    assert (Stream().trace(asks), Stream().trace(asked(redis))) == (f"localhost:{redis.port}/0 6 orders g", None)
