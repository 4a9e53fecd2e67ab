"""`nats/subject` and `nats/stream` against a real nats-server with JetStream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.servers.programs import Nats
from tests.servers.watched import Crash, Near, Watched

from visp.feed.base import Batch, FeedRefused, Made, SourceLost
from visp.feed.nats import Stream, Subject

pytestmark = [pytest.mark.all]


@pytest.fixture
def nats() -> Iterator[Nats]:
    program = Nats()
    try:
        program.start()
        yield program
    finally:
        program.close()


def url(nats: Nats) -> str:
    return f"nats://visp:s3cret@localhost:{nats.port}"


async def client(nats: Nats) -> Any:
    import nats as library

    return await library.connect(url(nats), allow_reconnect=False)


async def publish(nats: Nats, *payloads: bytes, subject: str = "orders.new") -> None:
    connection = await client(nats)
    for payload in payloads:
        await connection.publish(subject, payload, headers={"kind": "test"})
    await connection.flush()
    await connection.close()


async def make_stream(nats: Nats) -> None:
    connection = await client(nats)
    await connection.jetstream().add_stream(name="ORDERS", subjects=["orders.>"])
    await connection.close()


async def add(nats: Nats, *numbers: int) -> None:
    connection = await client(nats)
    for number in numbers:
        await connection.jetstream().publish("orders.new", b'{"number":%d}' % number)
    await connection.close()


def numbers(watch: Watched) -> list[int]:
    return [body["body"]["number"] for body in watch.bodies]


def asked(nats: Nats, **more: Any) -> dict[str, Any]:
    return Stream().parse({"url": url(nats), "stream": "ORDERS", **more}, 0)


async def test_what_is_published_while_it_listens_is_told(nats: Nats) -> None:
    asks = Subject().parse({"url": url(nats), "subject": "orders.*"}, 0)
    assert await Subject().check(asks, Near()) is None
    watch = Watched()
    await watch.is_live(Subject().open(asks, Near()), lambda: publish(nats, b'{"a":1}'))
    assert watch.bodies == [{"subject": "orders.new", "body": {"a": 1}, "headers": {"kind": "test"}}]


@pytest.mark.parametrize("more", [{}, {"durable": "visp"}])
async def test_a_stream_is_told_from_creation_on_in_order(nats: Nats, more: dict[str, Any]) -> None:
    await make_stream(nats)
    await add(nats, 0)
    asks = asked(nats, **more)
    watch = Watched(await Stream().check(asks, Near()))
    await add(nats, *range(1, 30))
    await watch.run(Stream().open(asks, Near()), lambda watch: len(watch.events) == 29)
    assert numbers(watch) == list(range(1, 30))
    assert watch.bodies[0]["seq"] == 2
    await add(nats, 30)
    await watch.run(Stream().open(asks, Near()), lambda watch: len(watch.events) == 30)


@pytest.mark.parametrize("more", [{}, {"durable": "visp"}])
async def test_a_crash_between_fire_and_position_loses_nothing(nats: Nats, more: dict[str, Any]) -> None:
    await make_stream(nats)
    asks = asked(nats, **more)
    if more:
        connection = await client(nats)
        from nats.js.api import ConsumerConfig

        await connection.jetstream().add_consumer("ORDERS", ConsumerConfig(durable_name="visp", ack_wait=1))
        await connection.close()
    watch = Watched(await Stream().check(asks, Near()))
    await add(nats, 1, 2)
    watch.crashes_between = True
    with pytest.raises(Crash):
        await watch.run(Stream().open(asks, Near()), lambda watch: False)
    fired = watch.told
    assert fired
    await add(nats, 3)
    await watch.run(Stream().open(asks, Near()), lambda watch: watch.told == fired + 3)
    assert sorted(numbers(watch)) == [1, 2, 3]


async def test_what_was_about_to_be_fired_is_fired_first_after_a_crash(nats: Nats) -> None:
    """As the same batch, not when the server gives it again: what came meanwhile would have taken its number."""
    await make_stream(nats)
    asks = asked(nats, durable="visp")
    watch = Watched(await Stream().check(asks, Near()))
    await add(nats, 1, 2)
    watch.crashes_between = True
    with pytest.raises(Crash):
        await watch.run(Stream().open(asks, Near()), lambda watch: False)
    begun = list(watch.events)
    watch.events.clear()
    await add(nats, 3)
    await watch.run(Stream().open(asks, Near()), lambda watch: len(watch.events) >= len(begun) + 1)
    assert list(watch.events)[: len(begun)] == begun
    assert watch.bodies[0]["headers"] == {}


async def test_a_crash_between_the_batches_of_one_fetch(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first of them has fired is not told again, and the others come as they were cut."""
    await make_stream(nats)
    asks = asked(nats, durable="visp")
    watch = Watched(await Stream().check(asks, Near()))
    await add(nats, *range(1, 7))
    monkeypatch.setattr("visp.feed.batching.EVENTS_MOST", 2)
    batches: list[list[str]] = []
    fire = watch.fire

    async def counted(batch: Batch) -> None:
        if batch.events:
            batches.append([event.key for event in batch.events])
            watch.crashes_between = len(batches) == 2
        await fire(batch)

    monkeypatch.setattr(watch, "fire", counted)
    with pytest.raises(Crash):
        await watch.run(Stream().open(asks, Near()), lambda watch: False)
    await watch.run(Stream().open(asks, Near()), lambda watch: len(watch.events) == 6)
    assert batches == [["1", "2"], ["3", "4"], ["3", "4"], ["5", "6"]]


async def test_what_was_fired_but_not_acknowledged_is_not_told_again(nats: Nats) -> None:
    await make_stream(nats)
    connection = await client(nats)
    from nats.js.api import ConsumerConfig

    await connection.jetstream().add_consumer("ORDERS", ConsumerConfig(durable_name="visp", ack_wait=1))
    asks = asked(nats, durable="visp")
    watch = Watched(await Stream().check(asks, Near()))
    await add(nats, 1, 2)
    pulled = await connection.jetstream().pull_subscribe_bind(consumer="visp", stream="ORDERS")
    assert len(await pulled.fetch(2)) == 2
    await connection.close()
    watch.position = {"fired": [[1, 2]]}
    await add(nats, 3)
    await watch.run(Stream().open(asks, Near()), lambda watch: watch.lag == 0 and watch.told == 1)
    assert numbers(watch) == [3]


async def test_a_server_that_goes_is_lost_and_goes_on_where_it_was(nats: Nats) -> None:
    await make_stream(nats)
    asks = asked(nats)
    watch = Watched(await Stream().check(asks, Near()))
    await add(nats, 1)
    source = Stream().open(asks, Near())

    def stops(watch: Watched) -> bool:
        if watch.events:
            nats.stop()
        return False

    with pytest.raises(SourceLost, match="NATS at localhost") as lost:
        await watch.run(source, stops)
    assert "s3cret" not in str(lost.value)
    with pytest.raises(SourceLost):
        await watch.run(source, lambda watch: False)
    nats.start()
    await add(nats, 2)
    await watch.run(source, lambda watch: len(watch.events) == 2)
    assert numbers(watch) == [1, 2]


async def test_who_may_not_is_refused_without_a_secret(nats: Nats) -> None:
    asks = asked(nats, password="wr0ng")
    with pytest.raises(FeedRefused, match="NATS at localhost") as refused:
        await Stream().check(asks, Near())
    assert "wr0ng" not in refused.value.sentence


async def test_a_durable_consumer_that_was_made_goes_with_its_feed(nats: Nats) -> None:
    await make_stream(nats)
    asks = asked(nats, durable="d")
    watch = Watched(found := await Stream().check(asks, Near()))
    assert isinstance(found, Made)
    assert not isinstance(await Stream().check(asks, Near()), Made)
    await add(nats, 1)
    await watch.run(Stream().open(asks, Near()), lambda watch: len(watch.events) == 1)
    await Stream().deleted(asks, Near())
    connection = await client(nats)
    assert await connection.jetstream().consumers_info("ORDERS") == []
    await connection.close()
    await Stream().deleted(asks, Near())
    assert (Stream().trace(asks), Stream().trace(asked(nats))) == (f"localhost:{nats.port} ORDERS d", None)
