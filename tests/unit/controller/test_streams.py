"""Who reads the parts of a result."""

import asyncio

import pytest

from visp.bus import base as topics
from visp.bus.base import invoker_topic
from visp.bus.memory import MemoryBus
from visp.bus.messages import Credit, Message, Part, ResultAck
from visp.controller.streams import Reader, Streams
from visp.entity.activation import ActivationHead, new_id


class Held:
    def __init__(self) -> None:
        self.bus = MemoryBus()
        self.streams = Streams(self.bus, 2)
        self.told: list[Message] = []
        self.bus.subscribe(invoker_topic(1), self.told.append)
        self.id = new_id(1, 1)
        self.reader = Reader()
        head = ActivationHead(id=self.id, namespace="n", subject="s", name="a", version="0.0.1", start_ms=5)
        self.ack = ResultAck(head, b"{}")

    def part(self, data: bytes) -> None:
        self.bus.publish(topics.PARTS, Part(self.id, data))


@pytest.fixture
async def held() -> Held:
    return Held()


async def test_parts_come_in_order_and_then_the_end(held: Held) -> None:
    with held.streams.reading(held.id, held.reader):
        next = asyncio.ensure_future(held.reader.next())
        await asyncio.sleep(0)
        held.part(b"1")
        held.part(b"2")
        assert await next == [b"1", b"2"]
        held.part(b"3")
        held.reader.on_result(held.ack)
        assert await held.reader.next() == [b"3"]
        assert await held.reader.next() is None
        assert held.reader.ack is held.ack
    assert held.told == []


async def test_what_was_taken_is_told_where_it_runs(held: Held) -> None:
    with held.streams.reading(held.id, held.reader):
        held.streams.taken(held.id, 5)
        assert held.told == [Credit(held.id, 5)]
        held.reader.on_result(held.ack)


async def test_a_reader_that_leaves_early_is_told_of(held: Held) -> None:
    with held.streams.reading(held.id, held.reader):
        pass
    assert held.told == [Credit(held.id, None)]


async def test_parts_that_nobody_reads_are_answered_so(held: Held) -> None:
    held.part(b"1")
    assert held.told == [Credit(held.id, None)]


async def test_readers_end_when_the_server_does(held: Held) -> None:
    with held.streams.reading(held.id, held.reader):
        held.streams.close()
        assert await held.reader.next() is None
        assert held.reader.ack is None
