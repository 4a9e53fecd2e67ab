"""HTTP/2 between a client and an application, without sockets: requests, windows, bounds, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from h2.settings import SettingCodes
from tests.http2 import Answer, Client
from uvicorn.config import Config
from uvicorn.server import ServerState

from visp.api import frames
from visp.api.gate import LINGER_S, Gate
from visp.api.heads import HEAD_LIMIT_BYTES
from visp.api.http2 import BUFFER_BYTES, CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, TABLE_BYTES, Http2
from visp.clock import ManualClock
from visp.settings import Http, Settings

App = Callable[[Any, Any, Any], Awaitable[None]]
TURNS = 30
PIECE = 16 * 1024
NO_ERROR, REFUSED, CANCEL, CALM = frames.NO_ERROR, frames.REFUSED_STREAM, frames.CANCEL, frames.ENHANCE_YOUR_CALM


class Transport(asyncio.Transport):
    """What is written waits in `written` until it is taken; as much as is there counts as the buffer."""

    def __init__(self, peer: str = "127.0.0.1") -> None:
        super().__init__({"peername": (peer, 5), "sockname": ("127.0.0.1", 443), "sslcontext": object()})
        self.written = bytearray()
        self.protocol: Any = None
        self.is_reading = True
        self.is_closed = False
        self.is_aborted = False
        self._high = 1 << 60

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high or 0

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def write(self, data: Any) -> None:
        self.written += data
        if len(self.written) > self._high and self.is_reading:
            self.protocol.pause_writing()

    def take(self) -> bytes:
        data = bytes(self.written)
        self.written.clear()
        if not self.is_reading:
            self.protocol.resume_writing()
        return data

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True


async def pong(scope: Any, receive: Any, send: Any) -> None:
    await say(send, b"pong")


async def say(send: Any, body: bytes, status: int = 200, headers: Any = ()) -> None:
    length = (b"Content-Length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def read(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        body += message["body"]
        if not message["more_body"]:
            return body


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await say(send, await read(receive))


class Pair:
    """A client, a connection of the server, and the wire between the two."""

    def __init__(self, app: App = pong, client: Client | None = None, **http: Any) -> None:
        self.clock = ManualClock()
        settings = Settings(http=Http(**http))
        services = SimpleNamespace(settings=settings, clock=self.clock, invoke=SimpleNamespace(is_leased=False))
        self.gate = Gate(services)  # type: ignore[arg-type]
        self._config = Config(app, log_config=None, lifespan="off", proxy_headers=False, interface="asgi3")
        self._config.load()
        self.state = ServerState()
        self.state.default_headers = [(b"date", b"today")]
        self.client = client or Client()
        self.connect()

    def connect(self, peer: str = "127.0.0.1") -> None:
        self.transport = Transport(peer)
        self.server = Http2(self.gate, self._config, self.state, asyncio.get_running_loop())
        self.transport.protocol = self.server
        self.server.connection_made(self.transport)

    async def go(self) -> None:
        """Until neither side has anything to say."""
        for _ in range(TURNS):
            await self.turn()

    async def turn(self) -> None:
        data = self.client.h2.data_to_send()
        if data and not self.transport.is_closed:
            self.server.data_received(data)
        await asyncio.sleep(0)
        self.client.hear(self.transport.take())

    async def ask(self, *given: Any, **named: Any) -> Answer:
        id = self.client.ask(*given, **named)
        await self.go()
        return self.client.answers[id]

    async def upload(self, id: int, body: bytes) -> None:
        """As the windows let it, until it is sent or nothing moves any more."""
        at = 0
        for _ in range(5000):
            room = self.client.room(id)
            piece = body[at : at + room]
            at += len(piece)
            if piece:
                self.client.h2.send_data(id, piece, end_stream=at == len(body))
            await self.turn()
            if at == len(body) or self.client.answers[id].is_over:
                break
        await self.go()

    def send(self, data: bytes) -> None:
        """Frames that no proper client would send."""
        self.server.data_received(self.client.h2.data_to_send() + data)

    async def passes(self, seconds: float) -> None:
        """What the gate's sweep does when so much time has passed."""
        self.clock.advance(seconds)
        now_s = self.clock.monotonic_s()
        if self.server.late_at_s and now_s > self.server.late_at_s:
            self.server.give_up()
        if self.server.stuck_at_s and now_s > self.server.stuck_at_s:
            self.server.cut_if_stuck()
        await asyncio.sleep(0)


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 1) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


# ── requests and answers ────────────────────────────────────────────────────────────────────────────────────────


async def test_the_application_sees_a_request_as_it_would_see_it_by_http_1() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, await receive()))
        await say(
            send, b"", headers=[(b"X-Given", b"1"), (b"Connection", b"close"), (b"Transfer-Encoding", b"chunked")]
        )

    pair = Pair(app)
    answer = await pair.ask("/a%20b/c?d=e%20f", "PUT", [("cookie", "a=1"), ("cookie", "b=2"), ("x-some", "thing")])
    scope, message = seen[0]
    assert (scope["type"], scope["http_version"], scope["method"], scope["scheme"]) == ("http", "2", "PUT", "https")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a b/c", b"/a%20b/c", b"d=e%20f")
    assert scope["client"] == ("127.0.0.1", 5)
    assert sorted(scope["headers"]) == [(b"cookie", b"a=1; b=2"), (b"host", b"localhost"), (b"x-some", b"thing")]
    assert message == {"type": "http.request", "body": b"", "more_body": False}
    assert answer.status == 200
    assert answer.headers == {"date": "today", "content-length": "0", "x-given": "1"}
    assert answer.is_whole


async def test_a_trusted_proxy_tells_who_the_client_is_and_nobody_else_does() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["client"], scope["scheme"], dict(scope["headers"])[b"host"]))
        await say(send, b"")

    told = [("x-forwarded-for", "9.9.9.9"), ("x-forwarded-proto", "http"), ("x-forwarded-host", "example.com")]
    await Pair(app).ask(headers=told)
    await Pair(app, trusted_proxies="127.0.0.1").ask(headers=told)
    assert seen == [(("127.0.0.1", 5), "https", b"localhost"), (("9.9.9.9", 0), "http", b"example.com")]


@pytest.mark.parametrize(("method", "status", "body"), [("HEAD", 200, b"pong"), ("GET", 204, b""), ("GET", 304, b"")])
async def test_answers_without_a_body_end_with_their_head(method: str, status: int, body: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await say(send, body, status)

    pair = Pair(app)
    answer = await pair.ask(method=method)
    assert (answer.status, answer.body, answer.is_whole) == (status, b"", True)
    assert pair.gate.streams == 0


async def test_requests_are_answered_as_their_answers_come() -> None:
    gates = {"/1": asyncio.Event(), "/2": asyncio.Event()}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await gates[scope["path"]].wait()
        await say(send, scope["path"].encode())

    pair = Pair(app)
    first, second = pair.client.ask("/1"), pair.client.ask("/2")
    await pair.go()
    gates["/2"].set()
    await pair.go()
    assert pair.client.answers[second].body == b"/2"
    assert not pair.client.answers[first].is_whole
    assert pair.gate.streams == 1
    gates["/1"].set()
    await pair.go()
    assert pair.client.answers[first].body == b"/1"


async def test_parts_of_an_answer_leave_when_they_are_made() -> None:
    more = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await more.wait()
        await send({"type": "http.response.body", "body": b"second", "more_body": True})
        await send({"type": "http.response.body"})

    pair = Pair(app)
    answer = await pair.ask()
    assert (answer.body, answer.is_whole) == (b"first", False)
    more.set()
    await pair.go()
    assert (answer.body, answer.is_whole) == (b"firstsecond", True)


async def test_a_client_that_asks_first_is_told_to_go_on_once_the_body_is_wanted() -> None:
    pair = Pair(echo)
    id = pair.client.ask(method="POST", headers=[("expect", "100-continue")], more=True)
    await pair.go()
    assert pair.client.answers[id].interim == [100]
    await pair.upload(id, b"body")
    assert pair.client.answers[id].body == b"body"

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await say(send, b"", 413)

    pair = Pair(refuse)
    id = pair.client.ask(method="POST", headers=[("expect", "100-continue")], more=True)
    await pair.go()
    assert (pair.client.answers[id].interim, pair.client.answers[id].status) == ([], 413)


async def test_trailers_end_a_body_and_are_not_looked_at() -> None:
    pair = Pair(echo)
    id = pair.client.ask(method="POST", more=True)
    pair.client.h2.send_data(id, b"body")
    pair.client.h2.send_headers(id, [("x-trailer", "1")], end_stream=True)
    await pair.go()
    assert pair.client.answers[id].body == b"body"


async def test_an_application_that_fails_is_500_before_its_answer_and_broken_off_within() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/early":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        if scope["path"] != "/silent":
            raise ValueError

    pair = Pair(app)
    early = await pair.ask("/early")
    assert (early.status, early.is_whole) == (500, True)
    for path in ("/late", "/silent"):
        late = await pair.ask(path)
        assert (late.body, late.is_whole, late.code) == (b"half", False, frames.INTERNAL_ERROR)
    assert pair.client.ended is None
    assert pair.gate.streams == 0


@pytest.mark.parametrize("header", [(b"x-a", b"b\r\nx-c: d"), (b"x a", b"b"), (b"x-a", b"\0")])
async def test_headers_of_answers_that_would_be_read_as_others_are_not_sent(header: tuple[bytes, bytes]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await say(send, b"secret", headers=[header])

    answer = await Pair(app).ask()
    assert (answer.status, answer.body) == (500, b"Internal Server Error")


# ── heads ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "method", "headers", "status"),
    [
        ("*", "OPTIONS", [], 400),
        ("http://other/", "GET", [], 400),
        ("/a#b", "GET", [], 400),
        ("/a b", "GET", [], 400),
        ("/\x7f", "GET", [], 400),
        ("/", "ge t", [], 400),
        ("/", "GET", [("x-a", "b\x01")], 400),
        ("/", "GET", [("x(a", "b")], 400),
        ("/", "GET", [("content-length", "5")], 400),
        ("/", "GET", [("content-length", "0"), ("content-length", "0")], 400),
        ("/", "GET", [("x-a", "b" * (HEAD_LIMIT_BYTES - 10))], 431),
    ],
)
async def test_heads_that_no_server_should_take_are_refused_and_the_connection_goes_on(
    path: str, method: str, headers: list[tuple[str, str]], status: int
) -> None:
    pair = Pair()
    answer = await pair.ask(path, method, headers)
    assert (answer.status, answer.is_whole) == (status, True)
    assert answer.headers["content-type"] == "application/json"
    assert (await pair.ask()).body == b"pong"
    assert pair.gate.streams == 0


@pytest.mark.parametrize(
    "header",
    [
        ("connection", "close"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("X-Upper", "1"),
        ("x-a", "b\r\nc: d"),
        ("x-a", "b\0"),
        ("host", "other"),
        ("content-length", "1_0"),
        (":path", "/again"),
        (":other", "1"),
    ],
)
async def test_malformed_heads_end_the_connection(header: tuple[str, str]) -> None:
    pair = Pair()
    answer = await pair.ask(headers=[header])
    assert not answer.status
    assert pair.client.ended == frames.PROTOCOL_ERROR
    assert pair.transport.is_closed


async def test_the_log_says_why_a_connection_ended_and_shows_no_header(capsys: pytest.CaptureFixture[str]) -> None:
    pair = Pair()
    await pair.ask(headers=[("authorization", "Basic secret ")])
    said = capsys.readouterr().err
    assert "http2.ended" in said
    assert "secret" not in said


async def test_no_connection_is_made_through_the_server() -> None:
    pair = Pair()
    id = pair.client.h2.get_next_available_stream_id()
    pair.client.answers[id] = Answer()
    pair.client.h2.send_headers(id, [(":method", "CONNECT"), (":authority", "localhost")], end_stream=True)
    await pair.go()
    assert pair.client.answers[id].status == 400


async def test_a_head_that_unfolds_to_too_much_ends_the_connection() -> None:
    pair = Pair()
    await pair.go()
    pair.client.ask(headers=[("x-a", "b" * 4000)] + [("x-a", "b" * 4000)] * 100)
    sent = pair.client.h2.data_to_send()
    assert len(sent) < 5000
    pair.server.data_received(sent)
    await pair.go()
    assert pair.client.ended == CALM


async def test_the_encoder_keeps_no_more_than_it_would_for_anybody() -> None:
    pair = Pair(client=Client(settings={SettingCodes.HEADER_TABLE_SIZE: 1 << 30}))
    assert (await pair.ask()).body == b"pong"
    assert pair.server._h2.encoder.header_table_size == TABLE_BYTES
    assert (await pair.ask()).body == b"pong"


async def test_what_is_not_http_2_is_closed() -> None:
    pair = Pair()
    pair.server.data_received(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert pair.transport.is_closed


# ── bodies ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_large_bodies_go_both_ways_by_many_windows() -> None:
    body = bytes(range(256)) * (5 * CONNECTION_WINDOW_BYTES // 256)
    pair = Pair(echo)
    id = pair.client.ask(method="POST", headers=[("content-length", str(len(body)))], more=True)
    await pair.upload(id, body)
    for _ in range(1000):
        await pair.turn()
    answer = pair.client.answers[id]
    assert answer.is_whole
    assert answer.body == body
    assert pair.gate.held_bytes == 0


async def test_no_more_of_a_body_comes_than_the_application_takes() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await go_on.wait()
        await echo(scope, receive, send)

    pair = Pair(app)
    id = pair.client.ask(method="POST", more=True)
    sent = 0
    while room := pair.client.room(id):
        pair.client.h2.send_data(id, b"a" * room)
        sent += room
        await pair.turn()
    await pair.go()
    assert begun.is_set()
    assert sent == STREAM_WINDOW_BYTES == pair.gate.held_bytes
    go_on.set()
    await pair.go()
    assert pair.client.room(id)
    pair.client.h2.end_stream(id)
    for _ in range(300):
        await pair.turn()
    assert len(pair.client.answers[id].body) == sent
    assert pair.gate.held_bytes == 0


async def test_what_nobody_took_of_a_body_is_room_for_others() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/refuse":
            await say(send, b"", 413)
        else:
            await echo(scope, receive, send)

    pair = Pair(app)
    for _ in range(CONNECTION_WINDOW_BYTES // STREAM_WINDOW_BYTES * 3):
        id = pair.client.ask("/refuse", "POST", more=True)
        while room := pair.client.room(id):
            pair.client.h2.send_data(id, b"a" * room)
        pair.client.h2.reset_stream(id, CANCEL)
        await pair.go()
    id = pair.client.ask("/", "POST", more=True)
    await pair.upload(id, b"a" * STREAM_WINDOW_BYTES)
    for _ in range(300):
        await pair.turn()
    assert len(pair.client.answers[id].body) == STREAM_WINDOW_BYTES
    assert pair.gate.held_bytes == 0


async def test_an_answer_before_the_body_is_heard_and_the_rest_is_called_off() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await say(send, b"too large", 413)

    pair = Pair(app)
    id = pair.client.ask(method="POST", more=True)
    pair.client.h2.send_data(id, b"a" * 1000)
    await pair.go()
    answer = pair.client.answers[id]
    assert (answer.status, answer.body, answer.is_whole, answer.code) == (413, b"too large", True, None)
    pair.client.h2.send_data(id, b"a" * 1000)
    await pair.passes(LINGER_S + 1)
    await pair.go()
    assert answer.code == NO_ERROR
    assert pair.gate.streams == pair.gate.held_bytes == 0
    assert (await pair.ask()).status == 413


@pytest.mark.parametrize("length", ["5", "500"])
async def test_a_body_of_another_length_than_announced_is_refused(length: str) -> None:
    pair = Pair(echo)
    id = pair.client.ask(method="POST", headers=[("content-length", length)], more=True)
    pair.client.h2.send_data(id, b"a" * 50, end_stream=True)
    await pair.go()
    assert pair.client.answers[id].status == 400
    assert (await pair.ask()).status == 200
    assert pair.gate.streams == pair.gate.held_bytes == 0


async def test_bodies_of_all_are_bounded_together() -> None:
    pair = Pair(echo, bodies_bytes=1000)
    first, second = (pair.client.ask(method="POST", more=True) for _ in range(2))
    pair.client.h2.send_data(first, b"a" * 900)
    pair.client.h2.send_data(second, b"a" * 200)
    await pair.go()
    assert pair.client.answers[second].status == 503
    pair.client.h2.end_stream(first)
    await pair.go()
    assert pair.client.answers[first].status == 200
    assert pair.gate.held_bytes == 0


async def test_an_answer_waits_for_the_windows_of_the_client_and_streams_take_turns() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await say(send, b"a" * (PIECE * 8))

    pair = Pair(app, Client(takes=False, settings={SettingCodes.INITIAL_WINDOW_SIZE: 5 * PIECE}))
    first, second = (pair.client.answers[pair.client.ask()] for _ in range(2))
    await pair.go()
    assert len(first.body) + len(second.body) == 65535  # the window of a connection, at first
    before = len(first.body), len(second.body)
    pair.client.h2.increment_flow_control_window(2 * PIECE)
    await pair.go()
    assert min(len(first.body) - before[0], len(second.body) - before[1]) >= PIECE // 2
    pair.client.h2.increment_flow_control_window(1 << 20)
    await pair.go()
    assert len(first.body) == len(second.body) == 5 * PIECE
    for id in pair.client.answers:
        pair.client.h2.increment_flow_control_window(1 << 20, id)
    await pair.go()
    assert first.is_whole
    assert second.is_whole
    assert pair.gate.streams == 0


async def test_a_client_that_reads_nothing_is_neither_sent_more_nor_read_from() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await say(send, b"a" * (1 << 20))

    pair = Pair(app, Client(settings={SettingCodes.INITIAL_WINDOW_SIZE: 1 << 24}))
    pair.client.h2.increment_flow_control_window(1 << 24)
    for _ in range(5):
        pair.client.ask()
    pair.send(b"")
    for _ in range(TURNS):
        await asyncio.sleep(0)
    assert not pair.transport.is_reading
    assert len(pair.transport.written) < 4 * BUFFER_BYTES
    await pair.passes(pair.gate.http.send_timeout_s + 1)
    assert pair.transport.is_aborted
    pair.server.connection_lost(None)
    for _ in range(TURNS):
        await asyncio.sleep(0)
    assert not pair.gate.doors
    assert pair.gate.streams == 0


# ── cancelled, late, idle ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_request_that_is_given_up_is_told_to_the_application() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            seen.append((await receive())["type"])
            if seen[-1] == "http.disconnect":
                await send({"type": "http.response.start", "status": 200})
                return

    pair = Pair(app)
    id = pair.client.ask()
    await pair.go()
    assert seen == ["http.request"]
    pair.client.h2.reset_stream(id, CANCEL)
    await pair.go()
    assert seen == ["http.request", "http.disconnect"]
    assert pair.gate.streams == 0
    assert pair.client.ended is None


async def test_the_end_of_a_connection_is_told_to_each_of_its_applications() -> None:
    ended: list[str] = []

    async def reading(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(ConnectionError):
            await read(receive)
        ended.append("reading")

    async def sending(scope: Any, receive: Any, send: Any) -> None:
        await say(send, b"a" * (1 << 20))
        ended.append("sending")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (reading if scope["method"] == "POST" else sending)(scope, receive, send)

    pair = Pair(app, Client(takes=False))
    pair.client.ask(method="POST", more=True)
    pair.client.ask()
    await pair.go()
    pair.server.connection_lost(None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sorted(ended) == ["reading", "sending"]
    assert pair.gate.streams == 0


async def test_a_body_that_is_late_is_refused_and_others_go_on() -> None:
    pair = Pair(echo, body_timeout_s=5.0)
    late = pair.client.ask(method="POST", more=True)
    await pair.go()
    await pair.passes(3.0)
    other = pair.client.ask(method="POST", more=True)
    await pair.go()
    await pair.passes(3.0)
    await pair.go()
    assert pair.client.answers[late].status == 408
    await pair.upload(other, b"in time")
    assert pair.client.answers[other].body == b"in time"
    await pair.passes(LINGER_S + 1)
    await pair.go()
    assert pair.gate.streams == 0


async def test_an_answer_that_is_not_taken_is_broken_off_unless_something_is() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await say(send, b"a" * (1 << 20))

    pair = Pair(app, Client(takes=False), send_timeout_s=5.0)
    id = pair.client.ask()
    await pair.go()
    await pair.passes(3.0)
    pair.client.h2.increment_flow_control_window(1000)
    pair.client.h2.increment_flow_control_window(1000, id)
    await pair.go()
    await pair.passes(3.0)
    await pair.go()
    assert not pair.client.answers[id].is_over
    await pair.passes(3.0)
    await pair.go()
    assert pair.client.answers[id].code == CANCEL
    assert pair.gate.streams == 0


async def test_a_head_that_is_late_ends_the_connection() -> None:
    pair = Pair(head_timeout_s=5.0)
    assert (await pair.ask()).status == 200
    pair.send(frame(1, b"\x82", stream=3))
    assert not pair.server.is_idle
    await pair.passes(6.0)
    assert pair.transport.is_closed


async def test_a_connection_without_a_request_ends_early_and_an_idle_one_late() -> None:
    pair = Pair(head_timeout_s=5.0, keep_alive_s=50.0)
    await pair.go()
    await pair.passes(6.0)
    await pair.go()
    assert pair.client.ended == NO_ERROR
    pair = Pair(head_timeout_s=5.0, keep_alive_s=50.0)
    await pair.ask()
    await pair.passes(49.0)
    assert not pair.transport.is_closed
    pair.client.h2.ping(b"a" * 8)  # is no request
    await pair.go()
    await pair.passes(2.0)
    await pair.go()
    assert (pair.client.ended, pair.client.last) == (NO_ERROR, 1)
    assert pair.transport.is_closed


async def test_a_connection_whose_requests_are_worked_on_is_not_idle() -> None:
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await done.wait()
        await say(send, b"at last")

    pair = Pair(app, keep_alive_s=50.0)
    id = pair.client.ask()
    await pair.go()
    await pair.passes(1000.0)
    done.set()
    await pair.go()
    assert pair.client.answers[id].body == b"at last"


# ── floods ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_one_connection_too_many_is_closed_at_once() -> None:
    pair = Pair(connections=1)
    pair.connect()
    assert pair.transport.is_closed
    assert len(pair.gate.doors) == 1


async def test_requests_beyond_those_of_one_connection_are_refused_until_work_on_others_is_over() -> None:
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await done.wait()
        await say(send, b"")

    pair = Pair(app)
    await pair.go()
    assert pair.client.h2.remote_settings.max_concurrent_streams == frames.STREAMS
    for _ in range(frames.STREAMS):
        pair.client.h2.reset_stream(pair.client.ask(), CANCEL)
    await pair.go()
    assert pair.gate.streams == frames.STREAMS  # given up, and still worked on
    assert (await pair.ask()).code == REFUSED
    done.set()
    await pair.go()
    assert (await pair.ask()).status == 200


async def test_requests_of_all_connections_are_bounded_together() -> None:
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await done.wait()
        await say(send, b"")

    pair = Pair(app, connections=2)
    first, second, third = (pair.client.ask() for _ in range(3))
    await pair.go()
    assert pair.client.answers[third].code == REFUSED
    done.set()
    await pair.go()
    assert [pair.client.answers[id].status for id in (first, second)] == [200, 200]
    assert (await pair.ask()).status == 200


async def test_more_streams_than_were_announced_end_the_connection() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()

    pair = Pair(app)
    for _ in range(frames.STREAMS + 1):
        pair.client.ask()
    await pair.go()
    assert pair.client.ended is not None
    assert pair.gate.streams == 0


async def test_rapid_resets_end_the_connection() -> None:
    begun = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal begun
        begun += 1
        await read(receive)

    pair = Pair(app)
    for _ in range(1000):
        pair.client.h2.reset_stream(pair.client.ask(), CANCEL)
    await pair.turn()
    await pair.go()
    assert pair.client.ended == CALM
    assert begun <= frames.STREAMS
    assert pair.gate.streams == 0


async def test_resets_that_the_server_is_made_to_send_end_the_connection() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"

    pair = Pair(app)
    await pair.go()
    for _ in range(frames.RESETS + 1):
        id = pair.client.ask()
        pair.send(frame(8, b"\x7f\xff\xff\xff", stream=id))
        await pair.go()
    assert pair.client.ended == CALM
    assert pair.gate.streams == 0


@pytest.mark.parametrize("flood", [frame(6, b"a" * 8, stream=0), frame(4, stream=0), frame(0), frame(2, b"a" * 5)])
async def test_floods_end_the_connection_and_are_answered_within_bounds(flood: bytes) -> None:
    pair = Pair(echo)
    pair.client.ask(method="POST", more=True)
    pair.send(flood * 100_000)
    assert pair.transport.is_closed
    assert len(pair.transport.written) < BUFFER_BYTES
    assert bytes(pair.transport.written).endswith(CALM.to_bytes(4, "big"))


async def test_nothing_is_read_after_the_end() -> None:
    pair = Pair()
    pair.send(frame(4, stream=0) * 1000)
    written = len(pair.transport.written)
    pair.server.data_received(frame(6, b"a" * 8, stream=0) * 10)
    assert len(pair.transport.written) == written


# ── the end of the server ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_server_that_ends_answers_what_was_asked_and_says_how_far_it_looked() -> None:
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await done.wait()
        await say(send, b"answered")

    pair = Pair(app)
    first = pair.client.ask()
    await pair.go()
    pair.gate.is_ending = True
    second = pair.client.ask()  # crosses what the server says
    pair.server.data_received(pair.client.h2.data_to_send())
    pair.server.end_after_answer()
    done.set()
    for _ in range(TURNS):
        await asyncio.sleep(0)
    assert pair.server.is_idle
    pair.server.end_idle()
    said = pair.transport.take()
    assert said.count(frames.goaway(frames.ANY_STREAM, NO_ERROR)) == 1
    assert said.endswith(frames.goaway(second, NO_ERROR))
    pair.client.hear(said)
    assert pair.client.is_told
    assert [pair.client.answers[id].body for id in (first, second)] == [b"answered"] * 2
    assert pair.transport.is_closed


async def test_a_client_that_leaves_is_answered_and_the_connection_ends() -> None:
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await done.wait()
        await say(send, b"answered")

    pair = Pair(app)
    id = pair.client.ask()
    pair.send(frames.goaway(0, NO_ERROR))
    done.set()
    await pair.go()
    assert pair.client.answers[id].body == b"answered"
    assert pair.transport.is_closed
