"""The bus: within one process, within one shard, and from shard to shard."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from visp.bus import base as topics
from visp.bus.base import Bus, invoker_topic
from visp.bus.frames import frame
from visp.bus.links import Links
from visp.bus.memory import MemoryBus
from visp.bus.messages import (
    ActivationMessage,
    CompletionAck,
    Credit,
    Detached,
    EntityChanged,
    Message,
    Part,
    Ping,
    ResultAck,
    decode,
    encode,
)
from visp.bus.unix import UnixBus
from visp.clock import SystemClock
from visp.entity.activation import ActivationHead

MESSAGE = ActivationMessage(
    id="1",
    transid="t",
    namespace="n",
    namespace_uuid="u",
    subject="s",
    action="n/a",
    revision=7,
    content='{"é": "\\u0000"}'.encode(),
    received_ms=5,
    cause="2",
)
HEAD = ActivationHead(id="1", namespace="n", subject="s", name="a", version="0.0.1", start_ms=5)


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.001)


class Shards:
    """Several buses that are linked; each is ended on its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.links: dict[int, Links] = {}
        self.buses: dict[int, UnixBus] = {}

    async def start(self, number: int, count: int = 2) -> UnixBus:
        links = Links(number, count, self.folder, SystemClock())
        self.links[number], self.buses[number] = links, UnixBus(links)
        return self.buses[number]

    async def end(self, number: int) -> None:
        await self.links.pop(number).close()


@pytest.fixture
async def shards() -> AsyncIterator[Shards]:
    with tempfile.TemporaryDirectory(prefix="visp-" + "long-" * 20) as folder:
        shards = Shards(Path(folder))
        try:
            yield shards
        finally:
            for number in list(shards.links):
                await shards.end(number)


async def joined(shards: Shards, count: int = 2) -> None:
    for number in range(count):
        await shards.start(number, count)
    for links in shards.links.values():
        await links.open()
    await until(lambda: all(len(links.up()) == count - 1 for links in shards.links.values()))


@pytest.fixture(params=["memory", "here", "there"])
async def ends(request: Any, shards: Shards) -> tuple[Bus, Bus, str]:
    """Where is published, where is heard, and the topic by which it comes there."""
    if request.param == "memory":
        bus = MemoryBus()
        return bus, bus, invoker_topic(0)
    await joined(shards)
    if request.param == "here":
        return shards.buses[0], shards.buses[0], invoker_topic(0)
    return shards.buses[0], shards.buses[1], invoker_topic(1)


# ── what every bus promises ─────────────────────────────────────────────────────────────────────────────────────


async def test_messages_are_heard_by_everyone_in_order(ends: tuple[Bus, Bus, str]) -> None:
    near, far, topic = ends
    first, second = list[Message](), list[Message]()
    far.subscribe(topic, first.append)
    far.subscribe(topic, second.append)
    sent: list[Message] = [MESSAGE, *(Detached(str(number)) for number in range(100))]
    for message in sent:
        near.publish(topic, message)
    await until(lambda: len(second) == len(sent))
    assert first == second == sent


async def test_a_subscriber_that_raises_hurts_nobody(
    ends: tuple[Bus, Bus, str], capsys: pytest.CaptureFixture[str]
) -> None:
    near, far, topic = ends
    heard = list[Message]()

    def fail(_: Message) -> None:
        raise RuntimeError("a bug")

    far.subscribe(topic, fail)
    far.subscribe(topic, heard.append)
    near.publish(topic, MESSAGE)
    near.publish(topic, Detached("1"))
    await until(lambda: heard == [MESSAGE, Detached("1")])
    assert "bus.handler_failed" in capsys.readouterr().err


async def test_who_has_left_hears_nothing(ends: tuple[Bus, Bus, str]) -> None:
    near, far, topic = ends
    left, heard = list[Message](), list[Message]()
    leave = far.subscribe(topic, left.append)
    far.subscribe(topic, heard.append)
    leave()
    near.publish(topic, MESSAGE)
    await until(lambda: heard)
    assert left == []


async def test_a_topic_that_nobody_hears_is_no_error(ends: tuple[Bus, Bus, str]) -> None:
    near, _, topic = ends
    near.publish(topic, MESSAGE)
    near.publish("nobody", EntityChanged("n/a", 1))


@pytest.mark.parametrize(
    "message",
    [
        MESSAGE,
        ResultAck(HEAD, b'{"a":1}', None, True),
        CompletionAck("1"),
        Detached("1"),
        Ping(1, 1024, 256, 3, ("n/a",)),
        EntityChanged("n/a", 7),
        Part("1", b":AP8="),
        Credit("1", 5),
        Credit("1", None),
    ],
    ids=lambda message: type(message).__name__,
)
def test_every_message_reads_back_as_it_was_written(message: Message) -> None:
    assert decode(encode(message)) == message


# ── what is particular between shards ───────────────────────────────────────────────────────────────────────────


async def test_acks_go_to_the_shard_that_sent_the_activation(shards: Shards) -> None:
    await joined(shards, 3)
    heard = {number: list[Message]() for number in range(3)}
    for number, bus in shards.buses.items():
        bus.subscribe(topics.ACKS, heard[number].append)
    runs = list[Message]()
    shards.buses[2].subscribe(invoker_topic(2), runs.append)
    shards.buses[1].publish(invoker_topic(2), MESSAGE)
    await until(lambda: runs)
    result = ResultAck(HEAD, b"{}")
    for ack in (result, CompletionAck("1"), CompletionAck("own")):
        shards.buses[2].publish(topics.ACKS, ack)
    await until(lambda: len(heard[1]) == 2)
    assert heard == {0: [], 1: [result, CompletionAck("1")], 2: [CompletionAck("own")]}


async def test_pings_are_heard_everywhere_and_by_who_comes_later(shards: Shards) -> None:
    first, second = await shards.start(0), await shards.start(1)
    heard, near = list[Message](), list[Message]()
    first.subscribe(topics.PINGS, near.append)
    second.subscribe(topics.PINGS, heard.append)
    await shards.links[0].open()
    first.publish(topics.PINGS, Ping(0, 1024, 0, 0))
    await shards.links[1].open()
    await until(lambda: heard)
    first.publish(topics.PINGS, Ping(0, 1024, 256, 0))
    await until(lambda: len(heard) == 2)
    assert heard == near == [Ping(0, 1024, 0, 0), Ping(0, 1024, 256, 0)]


async def test_a_shard_that_is_lost_is_told_of_and_found_again(shards: Shards) -> None:
    await joined(shards)
    lost = list[int]()
    shards.buses[0].when_lost(lost.append)
    shards.buses[1].publish(invoker_topic(0), MESSAGE)
    await until(lambda: shards.buses[0]._guests)
    await shards.end(1)
    await until(lambda: lost == [1])
    assert not shards.buses[0]._guests
    shards.buses[0].publish(invoker_topic(1), MESSAGE)  # whoever waits for it is told too
    await until(lambda: lost == [1, 1])
    again = await shards.start(1)
    heard = list[Message]()
    again.subscribe(invoker_topic(1), heard.append)
    await shards.links[1].open()
    await until(lambda: shards.links[0].up() == (1,))
    shards.buses[0].publish(invoker_topic(1), MESSAGE)
    await until(lambda: heard == [MESSAGE])


async def test_a_peer_that_does_not_read_is_taken_for_down(shards: Shards) -> None:
    await joined(shards)
    lost = list[int]()
    shards.buses[0].when_lost(lost.append)
    big = Detached("x" * (1 << 20))
    for _ in range(80):  # the other's loop does not turn meanwhile
        shards.buses[0].publish(invoker_topic(1), big)
    await until(lambda: lost)
    assert set(lost) == {1}
    await until(lambda: shards.links[0].up() == (1,))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="another user's process is started by uid 0")
async def test_another_user_s_process_is_not_listened_to() -> None:
    with tempfile.TemporaryDirectory() as folder:  # where others may enter, unlike a data folder
        shards = Shards(Path(folder) / "shards")
        bus = await shards.start(0)
        heard = list[Message]()
        bus.subscribe(invoker_topic(0), heard.append)
        await shards.links[0].open()
        for path in (Path(folder), shards.folder, shards.folder / "0.sock"):
            path.chmod(0o777)
        hello = frame(bytes([0, 1])) + frame(b"\x01\x08invoker0" + encode(Detached("1")))
        program = (
            "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.settimeout(5)\n"
            f"s.connect({str(shards.folder / '0.sock')!r})\n"
            "try:\n  s.sendall(bytes.fromhex(sys.argv[1]))\n  print(s.recv(10))\n"
            "except OSError: print(b'')"
        )
        seen = {}
        for uid in (64_123, 0):
            process = await asyncio.create_subprocess_exec(
                "/usr/bin/python3", "-c", program, hello.hex(), user=uid, stdout=asyncio.subprocess.PIPE
            )
            seen[uid], _ = await process.communicate()
            assert (heard == [Detached("1")]) == (uid == 0)
        await shards.end(0)
    assert seen == {64_123: b"b''\n", 0: b"b'\\x02\\x00\\x00\\x00\\x00\\x00'\n"}


# ── questions ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_questions_are_answered_once_each(shards: Shards) -> None:
    await joined(shards)
    asked, replies = list[bytes](), list[Callable[[bytes | None], None]]()

    def answer(peer: int, body: bytes, reply: Callable[[bytes | None], None]) -> None:
        assert peer == 0
        asked.append(body)
        replies.append(reply)

    async def shout(peer: int, body: bytes) -> bytes:
        return body.upper()

    async def fail(peer: int, body: bytes) -> bytes:
        raise RuntimeError("a bug")

    shards.links[1].answer("held", answer)
    shards.links[1].answer_later("shout", shout)
    shards.links[1].answer_later("fail", fail)
    answers = list[bytes | None]()
    for number in (b"1", b"2"):
        shards.links[0].ask_then(1, "held", number, answers.append)
    assert await shards.links[0].ask(1, "shout", b"a" * 100_000) == b"A" * 100_000
    assert asked == [b"1", b"2"]
    replies[1](b"second")
    replies[0](None)
    await until(lambda: len(answers) == 2)
    assert answers == [b"second", None]
    shards.links[0].ask_then(1, "fail", b"", answers.append)
    shards.links[0].ask_then(1, "nobody", b"", answers.append)
    await until(lambda: len(answers) == 4)
    assert answers[2:] == [None, None]


async def test_a_question_to_who_is_down_or_goes_has_no_answer(shards: Shards) -> None:
    await joined(shards)
    shards.links[1].answer("never", lambda peer, body, reply: None)
    answers = list[bytes | None]()
    shards.links[0].ask_then(1, "never", b"", answers.append)
    shards.links[0].ask_then(1, "never", b"", answers.append, within_s=0.01)
    await until(lambda: answers == [None])
    await shards.end(1)
    await until(lambda: answers == [None, None])
    shards.links[0].ask_then(1, "never", b"", answers.append)
    assert len(answers) == 2
    await until(lambda: answers == [None] * 3)
