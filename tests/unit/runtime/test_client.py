"""The connection to one container: pipes of this process, and an image's server on loopback."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from tests.ports import free_port

from visp.runtime.base import STDERR, STDOUT, Gone, Reply
from visp.runtime.client import PIPE_BYTES, HttpClient, PipeClient

LIMIT = 1000


class Answers:
    """What a client called back with, in order."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Reply | Gone] = asyncio.Queue()

    def then(self, reply: Reply | Gone) -> None:
        self._queue.put_nowait(reply)

    async def next(self) -> Reply | Gone:
        async with asyncio.timeout(5):
            return await self._queue.get()

    @property
    def is_empty(self) -> bool:
        return self._queue.empty()


async def until(is_so: Callable[[], bool]) -> None:
    """Lets the loop turn until something is so."""
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0)


async def turns(count: int = 3) -> None:
    """Lets the loop look at its descriptors."""
    for _ in range(count):
        await asyncio.sleep(0)


# ── pipes ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Inside:
    """The container's ends of the pipes; ours are `descriptors`."""

    def __init__(self) -> None:
        self.stdin, stdin = os.pipe2(os.O_NONBLOCK)
        replies, self.replies = os.pipe2(os.O_NONBLOCK)
        stdout, self.stdout = os.pipe2(os.O_NONBLOCK)
        stderr, self.stderr = os.pipe2(os.O_NONBLOCK)
        self.descriptors = (stdin, replies, stdout, stderr)
        self._own = {self.stdin, self.replies, self.stdout, self.stderr}

    def read(self) -> bytes:
        try:
            return os.read(self.stdin, 1 << 22)
        except BlockingIOError:
            return b""

    def end(self) -> None:
        for descriptor in self._own:
            os.close(descriptor)
        self._own = set()


class Piped:
    """A client over an `Inside`; `output` is what it handed on."""

    def __init__(self, family: str = "python") -> None:
        self.inside = Inside()
        self.output: list[tuple[int, bytes]] = []
        self.answers = Answers()
        loop = asyncio.get_running_loop()
        self.client = PipeClient(
            loop, self.inside.descriptors, lambda stream, data: self.output.append((stream, data)), family, LIMIT
        )


@pytest.fixture
async def piped() -> AsyncIterator[Piped]:
    held = Piped()
    yield held
    held.client.close()
    held.inside.end()
    for descriptor in held.inside.descriptors:
        os.close(descriptor)


async def test_a_line_goes_out_at_once_and_its_reply_comes_back(piped: Piped) -> None:
    piped.client.run(b'{"value":{}}', piped.answers.then)
    assert piped.inside.read() == b'{"value":{}}\n'
    os.write(piped.inside.replies, b'{"a":1}\n')
    assert await piped.answers.next() == Reply(200, b'{"a":1}', 7)


async def test_init_is_answered_as_an_init(piped: Piped) -> None:
    piped.client.init(b"{}", piped.answers.then)
    os.write(piped.inside.replies, b'!{"error":"no"}\n')
    assert await piped.answers.next() == Reply(502, b'{"error":"no"}', 14)


async def test_parts_come_before_the_reply(piped: Piped) -> None:
    parts: list[bytes] = []
    piped.client.stream(lambda _, data: parts.append(data) is None)
    for _ in range(2):
        piped.client.run(b"{}", piped.answers.then)
        os.write(piped.inside.replies, b'+"one"\n+"tw')
        await until(lambda: parts == [b'"one"'])
        piped.client.grant(6)
        assert piped.inside.read() == b"{}\n+6\n"
        os.write(piped.inside.replies, b'o"\n+3\n{"a":1}\n')
        assert await piped.answers.next() == Reply(200, b'{"a":1}', 7)
        assert parts == [b'"one"', b'"two"', b"3"]
        parts.clear()
        piped.client.grant(6)
        assert piped.inside.read() == b"", "what is over needs no credit"


async def test_a_long_reply_may_look_like_parts_in_its_middle(piped: Piped) -> None:
    parts: list[bytes] = []
    piped.client.stream(lambda _, data: parts.append(data) is None)
    piped.client.run(b"{}", piped.answers.then)
    os.write(piped.inside.replies, b'{"a":"')
    await turns()
    os.write(piped.inside.replies, b'+1"}\n')
    assert await piped.answers.next() == Reply(200, b'{"a":"+1"}', 10)
    assert parts == []


@pytest.mark.parametrize("part", [b"refused", b"x" * (LIMIT + 1)])
async def test_a_part_that_may_not_be_is_the_end(piped: Piped, part: bytes) -> None:
    piped.client.stream(lambda _, data: data != b"refused")
    piped.client.run(b"{}", piped.answers.then)
    os.write(piped.inside.replies, b"+" + part + b"\n{}\n")
    assert isinstance(await piped.answers.next(), Gone)


async def test_who_did_not_say_so_has_no_parts(piped: Piped) -> None:
    piped.client.run(b"{}", piped.answers.then)
    os.write(piped.inside.replies, b"+1\n")
    reply = await piped.answers.next()
    assert isinstance(reply, Reply)
    assert reply.status == 502


async def test_a_line_larger_than_the_pipe_is_sent_as_it_is_read(piped: Piped) -> None:
    payload = b"x" * (3 * PIPE_BYTES)
    piped.client.run(payload, piped.answers.then)
    got = bytearray()
    while len(got) <= len(payload):
        got += piped.inside.read()
        await asyncio.sleep(0)
    assert got == payload + b"\n"
    piped.client.run(b"next", piped.answers.then)
    assert piped.inside.read() == b"next\n"


async def test_what_is_in_the_pipes_at_the_reply_is_handed_over_by_drain(piped: Piped) -> None:
    piped.client.run(b"{}", piped.answers.then)
    os.write(piped.inside.stdout, b"one\n")
    os.write(piped.inside.stderr, b"two\n")
    os.write(piped.inside.replies, b"{}\n")
    assert piped.client.drain() is True
    assert piped.output == [(STDOUT, b"one\n"), (STDERR, b"two\n")]


async def test_output_is_read_while_it_runs(piped: Piped) -> None:
    piped.client.run(b"{}", piped.answers.then)
    os.write(piped.inside.stdout, b"early\n")
    await turns()
    assert piped.output == [(STDOUT, b"early\n")]


async def test_a_container_that_ends_during_a_run_is_gone(piped: Piped) -> None:
    piped.client.run(b"{}", piped.answers.then)
    piped.inside.end()
    gone = await piped.answers.next()
    assert isinstance(gone, Gone)
    assert gone.was_sent
    assert gone.reply is not None
    assert gone.reply.status == 400


async def test_one_that_ended_before_was_given_nothing(piped: Piped) -> None:
    piped.inside.end()
    piped.client.run(b"{}", piped.answers.then)
    assert piped.answers.is_empty, "never from inside the call"
    assert await piped.answers.next() == Gone(was_sent=False)
    piped.client.run(b"{}", piped.answers.then)
    assert await piped.answers.next() == Gone(was_sent=False)


async def test_an_end_that_is_noticed_at_once_does_not_make_it_sent(piped: Piped) -> None:
    piped.inside.end()
    piped.client.run(b"{}", piped.answers.then)
    piped.client.give_up()
    assert await piped.answers.next() == Gone(was_sent=False)


async def test_whoever_knows_of_the_end_can_say_so(piped: Piped) -> None:
    piped.client.run(b"{}", piped.answers.then)
    piped.client.give_up()
    gone = await piped.answers.next()
    assert isinstance(gone, Gone)
    assert gone.was_sent


async def test_a_reply_after_cancel_is_dropped(piped: Piped) -> None:
    piped.client.run(b"{}", piped.answers.then)
    piped.client.cancel()
    os.write(piped.inside.replies, b"{}\n")
    await turns()
    assert piped.answers.is_empty


async def test_a_reply_that_nobody_asked_for_is_no_ones_answer(piped: Piped) -> None:
    os.write(piped.inside.replies, b'{"forged":1}\n')
    await turns()
    piped.client.run(b"{}", piped.answers.then)
    os.write(piped.inside.replies, b'{"a":1}\n')
    assert await piped.answers.next() == Reply(200, b'{"a":1}', 7)


async def test_after_close_nothing_is_read(piped: Piped) -> None:
    piped.client.run(b"{}", piped.answers.then)
    piped.client.close()
    os.write(piped.inside.replies, b"{}\n")
    os.write(piped.inside.stdout, b"late\n")
    await turns()
    piped.client.drain()
    assert piped.answers.is_empty
    assert piped.output == []


async def test_of_a_long_reply_the_size_is_known(piped: Piped) -> None:
    piped.client.run(b"{}", piped.answers.then)
    os.write(piped.inside.replies, b'{"' + b"x" * 5000 + b'"}\n')
    reply = await piped.answers.next()
    assert isinstance(reply, Reply)
    assert (len(reply.body), reply.size_bytes) == (LIMIT + 1, 5004)


# ── HTTP ────────────────────────────────────────────────────────────────────────────────────────────────────────

Handler = Callable[[str, bytes, asyncio.StreamWriter], Awaitable[None]]


class Image:
    """A server that reads requests and leaves the answer to `handler`; it keeps `requests` and counts connections."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.requests: list[tuple[str, bytes]] = []
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("Content-L"))
                body = await reader.readexactly(length)
                self.requests.append((head.split(" ")[1], body))
                await self.handler(head.split(" ")[1], body, writer)
        writer.close()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.close()
            await self._server.wait_closed()


def answering(*answers: bytes) -> Handler:
    """One answer after the other; an empty one closes the connection."""
    left: Iterator[bytes] = iter(answers)

    async def handle(_: str, __: bytes, writer: asyncio.StreamWriter) -> None:
        answer = next(left)
        writer.write(answer)
        await writer.drain()
        if not answer.endswith(b"}"):
            writer.close()

    return handle


def ok(body: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n\r\n".encode() + body


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[Image, HttpClient, Answers]]:
    image = Image(handler)
    await image.start()
    client = HttpClient(asyncio.get_running_loop(), "127.0.0.1", image.port, lambda *_: None, LIMIT)
    try:
        yield image, client, Answers()
    finally:
        client.close()
        await turns()
        await image.stop()
        await turns()


async def test_init_and_runs_share_a_connection() -> None:
    async with serving(answering(ok(b'{"ok":1}'), ok(b'{"a":1}'), ok(b'{"a":2}'))) as (image, client, answers):
        client.init(b'{"value":{}}', answers.then)
        assert await answers.next() == Reply(200, b'{"ok":1}', 8)
        for number in (1, 2):
            client.run(b'{"n":%d}' % number, answers.then)
            assert await answers.next() == Reply(200, b'{"a":%d}' % number, 7)
        assert image.requests == [("/init", b'{"value":{}}'), ("/run", b'{"n":1}'), ("/run", b'{"n":2}')]
        assert image.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        ok(b'{"a":', length=7),
        ok(b"{}x", length=2),
        b"",
    ],
    ids=["no length", "chunked", "204", "100 and no more", "half", "too long", "nothing"],
)
async def test_what_is_no_answer_is_gone_though_sent(answer: bytes) -> None:
    async with serving(answering(answer)) as (_, client, answers):
        client.run(b"{}", answers.then)
        assert await answers.next() == Gone(was_sent=True)


async def test_an_error_status_is_an_answer() -> None:
    async with serving(answering(ok(b'{"error":1}', "503 Service Unavailable"))) as (_, client, answers):
        client.run(b"{}", answers.then)
        assert await answers.next() == Reply(503, b'{"error":1}', 11)


async def test_a_result_over_the_limit_is_cut_and_the_next_run_connects_anew() -> None:
    endless = ok(b"x" * 5000 + b"}", length=10_000_000)
    async with serving(answering(endless, ok(b'{"a":1}'))) as (image, client, answers):
        client.run(b"{}", answers.then)
        assert await answers.next() == Reply(200, b"x" * (LIMIT + 1), 10_000_000)
        client.run(b"{}", answers.then)
        assert await answers.next() == Reply(200, b'{"a":1}', 7)
        assert image.connections == 2


async def test_a_connection_that_the_image_closed_is_made_again() -> None:
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    async with serving(answering(closing, ok(b"{}"))) as (image, client, answers):
        for _ in range(2):
            client.run(b"{}", answers.then)
            assert await answers.next() == Reply(200, b"{}", 2)
        assert image.connections == 2


async def test_what_nobody_asked_for_is_no_ones_answer() -> None:
    async with serving(answering(ok(b"{}"), ok(b'{"a":1}'))) as (image, client, answers):
        client.run(b"{}", answers.then)
        await answers.next()
        image._writers[0].write(ok(b'{"forged":1}'))
        await image._writers[0].drain()
        await until(lambda: client._wire is not None and not client._wire.is_open)
        client.run(b"{}", answers.then)
        assert await answers.next() == Reply(200, b'{"a":1}', 7)
        assert image.connections == 2


async def test_init_waits_for_an_image_that_does_not_listen_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visp.runtime.client.CONNECT_EVERY_S", 0.001)
    image, answers = Image(answering(ok(b"{}"))), Answers()
    port = free_port()
    client = HttpClient(asyncio.get_running_loop(), "127.0.0.1", port, lambda *_: None, LIMIT)
    client.init(b"{}", answers.then)
    await turns(20)
    await image.start(port)
    assert await answers.next() == Reply(200, b"{}", 2)
    client.close()
    await image.stop()


async def test_a_run_that_is_refused_was_not_sent() -> None:
    answers = Answers()
    client = HttpClient(asyncio.get_running_loop(), "127.0.0.1", free_port(), lambda *_: None, LIMIT)
    client.run(b"{}", answers.then)
    assert answers.is_empty, "never from inside the call"
    assert await answers.next() == Gone(was_sent=False)
    client.close()


async def test_a_cancelled_init_stops_trying() -> None:
    answers = Answers()
    client = HttpClient(asyncio.get_running_loop(), "127.0.0.1", free_port(), lambda *_: None, LIMIT)
    client.init(b"{}", answers.then)
    await turns()
    client.cancel()
    await turns()
    assert client._task is not None
    assert client._task.cancelled()
    assert answers.is_empty


async def test_an_answer_after_cancel_is_dropped() -> None:
    release = asyncio.Event()

    async def late(_: str, __: bytes, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(ok(b"{}"))

    async with serving(late) as (image, client, answers):
        client.run(b"{}", answers.then)
        await until(lambda: bool(image.requests))
        client.cancel()
        release.set()
        await turns(10)
        assert answers.is_empty


async def test_whoever_knows_of_the_images_end_can_say_so() -> None:
    async def never(_: str, __: bytes, ___: asyncio.StreamWriter) -> None:
        pass

    async with serving(never) as (_, client, answers):
        client.run(b"{}", answers.then)
        client.give_up()
        assert await answers.next() == Gone()


async def test_an_images_output_is_handed_on_until_the_end() -> None:
    output: list[tuple[int, bytes]] = []
    client = HttpClient(
        asyncio.get_running_loop(), "127.0.0.1", 1, lambda stream, data: output.append((stream, data)), LIMIT
    )
    client.feed(STDOUT, b"one\n")
    assert client.drain() is False
    client.close()
    client.feed(STDERR, b"late\n")
    assert output == [(STDOUT, b"one\n")]


async def test_a_connection_is_made_where_the_image_is() -> None:
    image = Image(answering(ok(b'{"ok":1}')))
    await image.start()
    made: list[socket.socket] = []

    async def connect() -> socket.socket:
        if not made:
            made.append(socket.socket())
            raise ConnectionRefusedError  # it does not listen yet
        sock = socket.socket()
        sock.setblocking(False)
        made.append(sock)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", image.port))
        return sock

    client = HttpClient(asyncio.get_running_loop(), "127.0.0.1", 1, lambda *_: None, LIMIT, connect)
    answers = Answers()
    client.init(b"{}", answers.then)
    assert await answers.next() == Reply(200, b'{"ok":1}', 8)
    assert len(made) == 2
    client.close()
    made[0].close()
    await turns()
    await image.stop()
    await turns()


async def test_an_image_that_ended_before_it_was_asked_is_not_waited_for() -> None:
    client = HttpClient(asyncio.get_running_loop(), "127.0.0.1", free_port(), lambda *_: None, LIMIT)
    answers = Answers()
    client.give_up()
    client.init(b"{}", answers.then)
    assert await answers.next() == Gone()
    client.close()
