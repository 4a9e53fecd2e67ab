"""HTTP/2 on an encrypted connection, in front of the same application as HTTP/1.1 has.

Each stream is a request of its own to the ASGI application, which decides before it reads a body: who calls, how much
may come, whether it is too often. Bytes of a body are acknowledged when the application takes them, and an answer waits
for the client's window with no more of it in memory than the application gave. Streams take turns, a frame each.

Frames and heads are read by the library `h2`, which does no I/O; what it is given, `frames.py` has bounded. Of time the
same bounds hold as for HTTP/1.1, in the gate's sweep: a head, a body, an answer that is not taken, a connection on
which nothing is under way. There are no priorities, no pushed answers and no WebSocket here: browsers open a connection
of HTTP/1.1 for the latter.

Source: RFC 9113.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings
from hpack import HeaderTuple, NeverIndexedHeaderTuple
from uvicorn.protocols.utils import get_local_addr, get_remote_addr

from visp import wording
from visp.api.errors import error_answer
from visp.api.frames import (
    ANY_STREAM,
    CANCEL,
    ENHANCE_YOUR_CALM,
    FRAME_BYTES,
    INTERNAL_ERROR,
    NO_ERROR,
    REFUSED_STREAM,
    STREAMS,
    Flood,
    Frames,
    goaway,
)
from visp.api.gate import LINGER_S
from visp.api.heads import HEAD_LIMIT_BYTES, HeadRefused, check_head, check_head_size
from visp.api.hot import LENGTH_DIGITS
from visp.api.origin import is_among, placed
from visp.telemetry import log, transid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from h2.events import Event
    from starlette.types import Message, Scope
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from visp.api.gate import Gate
    from visp.api.inside import Inside

STREAM_WINDOW_BYTES = 256 * 1024
"""Of a body, on their way or received and not yet taken by the application."""
CONNECTION_WINDOW_BYTES = 1024 * 1024
"""The same of all bodies of a connection."""
BUFFER_BYTES = 64 * 1024
"""Of answers, written and not yet taken by the client; then streams wait, and nothing more is read either."""
LISTED_BYTES = 2 * HEAD_LIMIT_BYTES
"""Of a head as HPACK counts, which ends the connection; up to here one over `HEAD_LIMIT_BYTES` is answered 431."""
TABLE_BYTES = 4096
"""Of what the encoder keeps, however much more a client offers to."""
CLOSED_KEPT = 1_000
"""How many streams that are over are told from those that never were."""

_METHOD = re.compile(rb"[A-Z]{1,20}\Z")
_TARGET = re.compile(rb"[\x21-\x7e]*\Z")
_NAME = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]+\Z")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_CONNECTION_HEADERS = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_UNINDEXED = frozenset({b"content-length", b"etag", b"set-cookie", b"x-openwhisk-activation-id", b"x-request-id"})
"""Different in each answer, or secret."""
_FAILED = b"Internal Server Error"


class Connection(H2Connection):
    """The library's, which would remember 65,536 streams that are over."""

    MAX_CLOSED_STREAMS = CLOSED_KEPT


class Stream:
    """One request and its answer: what the application is given to receive and to send by."""

    __slots__ = (
        "_is_continue_owed",
        "_news",
        "_taken",
        "at",
        "body_late_at_s",
        "connection",
        "expected_bytes",
        "held_bytes",
        "id",
        "is_bodiless",
        "is_ended",
        "is_gone",
        "is_last",
        "is_running",
        "is_started",
        "is_told",
        "is_whole",
        "outgoing",
        "parts",
        "send_late_at_s",
        "unread_bytes",
    )

    def __init__(self, connection: Http2, id: int) -> None:
        self.connection = connection
        self.id = id
        self.is_running = False
        """The application is at work on it."""
        self.is_gone = False
        """Nobody waits for the answer, or it has been given in the application's place."""
        self.is_ended = False
        """Nothing more will be sent."""

        self.parts: list[bytes] = []
        self.unread_bytes = 0
        """Received and not yet acknowledged, padding counted."""
        self.held_bytes = 0
        """Counted with the bodies of all."""
        self.is_whole = False
        """Nothing more of the body comes."""
        self.expected_bytes: int | None = None
        """By its `Content-Length`: what is still to come."""
        self.is_told = False
        """The application has the end of the body."""
        self.body_late_at_s = 0.0
        self._news = asyncio.Event()
        self._is_continue_owed = False

        self.is_started = False
        self.is_bodiless = False
        self.outgoing = b""
        self.at = 0
        self.is_last = False
        self.send_late_at_s = 0.0
        self._taken: asyncio.Future[None] | None = None

    def expect(self) -> None:
        """The client sends the body when it is told to."""
        self._is_continue_owed = True

    def wake(self) -> None:
        """There is something to receive, or nothing any more."""
        self._news.set()
        if (self.is_ended or not self.is_sending) and self._taken is not None:
            if not self._taken.done():
                self._taken.set_result(None)
            self._taken = None

    @property
    def is_sending(self) -> bool:
        """Whether something of the answer waits."""
        return not self.is_ended and (self.at < len(self.outgoing) or self.is_last)

    async def receive(self) -> Message:
        if self._is_continue_owed and not (self.is_gone or self.is_started or self.parts or self.is_whole):
            self.connection.say_continue(self)
        self._is_continue_owed = False
        while not (self.is_gone or self.is_ended or self.parts or (self.is_whole and not self.is_told)):
            self._news.clear()
            await self._news.wait()
        if self.is_gone or self.is_ended:
            return {"type": "http.disconnect"}
        body = b"".join(self.parts)
        self.parts.clear()
        self.is_told = self.is_whole
        self.connection.acknowledge(self)
        return {"type": "http.request", "body": body, "more_body": not self.is_whole}

    async def send(self, message: Message) -> None:
        if self.is_gone:
            return
        if not self.is_started:
            if message["type"] != "http.response.start":
                raise RuntimeError(f"{message['type']} before http.response.start")
            self.connection.start(self, message["status"], message.get("headers", ()))
            return
        if message["type"] != "http.response.body":
            raise RuntimeError(f"{message['type']} after http.response.start")
        body, is_last = message.get("body", b""), not message.get("more_body", False)
        if self.is_ended and not self.is_bodiless:
            raise RuntimeError("the answer is complete")
        if self.is_ended or self.is_bodiless:
            body = b""
        if self.is_ended or not (body or is_last):
            return
        self.outgoing, self.at, self.is_last = bytes(body), 0, is_last
        self.connection.offer(self)
        if self.is_sending:
            self._taken = asyncio.get_running_loop().create_future()
            await self._taken


class Http2(asyncio.Protocol):
    """One connection whose client chose HTTP/2 when hands were shaken."""

    inside: Inside | None = None
    is_sealed = True

    def __init__(self, gate: Gate, config: Config, state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        self.late_at_s = 0.0
        """The first time at which something may be late."""
        self.stuck_at_s = 0.0
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._gate = gate
        self._app = config.loaded_app
        self._asgi_version = config.asgi_version
        self._state = state
        self._loop = loop
        self._h2 = Connection(
            H2Configuration(client_side=False, validate_outbound_headers=False, normalize_outbound_headers=False)
        )
        self._frames = Frames()
        self._streams: dict[int, Stream] = {}
        self._ready: deque[Stream] = deque()
        """Streams with something to send, for which there may be room."""
        self._is_paused = False
        self._is_flush_due = False
        self._unflushed_bytes = 0
        self._is_over = False
        self._is_told = False
        """The client was told that this server begins nothing more."""
        self._unsent_bytes = 0
        self._head_late_at_s = 0.0
        self._idle_late_at_s = 0.0
        self._server: tuple[str, int | None] | None = None
        self._client: tuple[str, int] | None = None
        self._is_proxied = False

    # ── the connection ──────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        gate = self._gate
        if not gate.has_room():
            self._is_over = True
            self.transport.close()
            return
        gate.doors.add(self)
        self._server, self._client = get_local_addr(self.transport), get_remote_addr(self.transport)
        self._is_proxied = self._client is not None and is_among(self._client[0], gate.trusted)
        self.transport.set_write_buffer_limits(high=BUFFER_BYTES)
        settings = {
            SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
            SettingCodes.MAX_HEADER_LIST_SIZE: HEAD_LIMIT_BYTES,
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
        }
        h2 = self._h2
        h2.local_settings = Settings(client=False, initial_values=settings)
        h2.decoder.max_header_list_size = LISTED_BYTES
        h2.initiate_connection()
        h2.increment_flow_control_window(CONNECTION_WINDOW_BYTES - h2.inbound_flow_control_window)
        self._idle_late_at_s = self._now_s() + gate.http.head_timeout_s
        self._look_at(self._idle_late_at_s)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over = True
        self.late_at_s = self.stuck_at_s = 0.0
        self._gate.doors.discard(self)
        self._drop_all()

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        now_s = self._now_s()
        try:
            for piece in self._frames.pieces(data, now_s):
                for event in self._h2.receive_data(piece):
                    self._hear(event, now_s)
                if self._is_over:
                    return
        except Flood as flood:
            self._end(flood.code, str(flood))
            return
        except ProtocolError as error:  # the library has its own GOAWAY ready
            self._flush()
            self._end(None, type(error).__name__)  # its text may show a header
            return
        except Exception as error:  # the top of a connection: what nobody foresaw ends it
            log.exception("http2.failed", reason=repr(error))
            self._end(INTERNAL_ERROR, "")
            return
        if not self._frames.is_in_head:
            self._head_late_at_s = 0.0
        elif not self._head_late_at_s:
            self._head_late_at_s = now_s + self._gate.http.head_timeout_s
            self._look_at(self._head_late_at_s)
        if self._frames.is_leaving and not self._streams:
            self._end(NO_ERROR)
            return
        self._pump()

    def _hear(self, event: Event, now_s: float) -> None:
        if isinstance(event, DataReceived):
            self._take(event)
        elif isinstance(event, StreamEnded):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                self._complete_body(stream)
        elif isinstance(event, RequestReceived):
            self._begin(event, now_s)
        elif isinstance(event, WindowUpdated):
            self._make_ready(event.stream_id)
        elif isinstance(event, StreamReset):
            stream = self._streams.get(event.stream_id)
            if stream is not None and not stream.is_ended:
                self._drop(stream)
                self._frames.count_reset(now_s)
        elif isinstance(event, RemoteSettingsChanged):
            encoder = self._h2.encoder
            if encoder.header_table_size > TABLE_BYTES:
                encoder.header_table_size = TABLE_BYTES
                told = (min(size, TABLE_BYTES) for size in encoder.table_size_changes)
                encoder.table_size_changes = list(dict.fromkeys(told))
            self._make_ready(0)

    def _now_s(self) -> float:
        return self._gate.services.clock.monotonic_s()

    def _end(self, code: int | None, reason: str = "") -> None:
        """Ends the connection, once what was sent before is taken; None: the client was told already."""
        if self._is_over:
            return
        if reason:
            client = "unknown" if self._client is None else self._client[0]
            log.info("http2.ended", client=client, reason=reason)
        self._flush()
        if code is not None and not self.transport.is_closing():
            self.transport.write(goaway(self._h2.highest_inbound_stream_id, code))
        self._is_over = True
        self.late_at_s = 0.0
        self._drop_all()
        self.transport.close()
        self._watch_sending()

    def _drop_all(self) -> None:
        for stream in list(self._streams.values()):
            self._drop(stream)

    # ── what is late ────────────────────────────────────────────────────────────────────────────────────────────

    def _look_at(self, at_s: float) -> None:
        if not self.late_at_s or at_s < self.late_at_s:
            self.late_at_s = at_s

    def give_up(self) -> None:
        """Something may be late; what is, ends: the connection for its head or for idleness, else a stream."""
        now_s = self._now_s()
        self.late_at_s = 0.0
        if self._is_over:
            return
        if 0.0 < self._head_late_at_s < now_s:
            self._end(ENHANCE_YOUR_CALM, "a head is late")
            return
        if not self._streams and 0.0 < self._idle_late_at_s < now_s:
            self._end(NO_ERROR)
            return
        for stream in list(self._streams.values()):
            if 0.0 < stream.send_late_at_s < now_s:
                self._reset(stream, CANCEL)
            elif 0.0 < stream.body_late_at_s < now_s:
                if stream.is_ended:
                    self._reset(stream, NO_ERROR)
                else:
                    self._refuse(stream, 408, wording.TOO_SLOW)
        times = [self._head_late_at_s, 0.0 if self._streams else self._idle_late_at_s]
        for stream in self._streams.values():
            times += (stream.body_late_at_s, stream.send_late_at_s)
        self.late_at_s = min((at_s for at_s in times if at_s), default=0.0)
        self._pump()

    def pause_writing(self) -> None:
        self._is_paused = True
        self.transport.pause_reading()  # whatever else is asked would be answered into memory
        self._watch_sending()

    def resume_writing(self) -> None:
        self._is_paused = False
        if self._is_over or self.transport.is_closing():
            return
        self.stuck_at_s = 0.0
        self.transport.resume_reading()
        self._pump()

    def _watch_sending(self) -> None:
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self.stuck_at_s = self._now_s() + self._gate.http.send_timeout_s

    def cut_if_stuck(self) -> None:
        """Ends the connection at once, unless something was taken since it was looked at last."""
        if self.transport.get_write_buffer_size() >= self._unsent_bytes:
            self.stuck_at_s = 0.0
            self.transport.abort()
        else:
            self._watch_sending()

    # ── a request ───────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, event: RequestReceived, now_s: float) -> None:
        id = event.stream_id
        gate = self._gate
        if len(self._streams) >= STREAMS or not gate.has_room_for_stream():
            self._h2.reset_stream(id, REFUSED_STREAM)
            self._frames.count_reset(now_s)
            return
        if gate.is_ending:
            self.end_after_answer()
        stream = self._streams[id] = Stream(self, id)
        # the library would end the whole connection where another length comes, as when an upload is broken off
        self._h2.streams[id]._expected_content_length = None
        gate.streams += 1
        self._idle_late_at_s = 0.0
        if event.stream_ended is not None:
            stream.is_whole = True
        else:
            stream.body_late_at_s = now_s + gate.http.body_timeout_s
            self._look_at(stream.body_late_at_s)
        stream.is_bodiless = (b":method", b"HEAD") in event.headers
        try:
            scope = self._scope(event.headers)
        except HeadRefused as refused:
            self._refuse(stream, refused.status, refused.sentence)
            return
        length = next((value for name, value in scope["headers"] if name == b"content-length"), None)
        if length is not None:
            stream.expected_bytes = int(length)
        if stream.is_whole and stream.expected_bytes:
            self._refuse(stream, 400, wording.NOT_HTTP2)
            return
        if any(name == b"expect" and value.lower() == b"100-continue" for name, value in scope["headers"]):
            stream.expect()
        stream.is_running = True
        task = self._loop.create_task(self._run(stream, scope))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _scope(self, given: Iterable[tuple[bytes, bytes]]) -> Scope:
        """Of a head that the library has found well formed. Raises `HeadRefused`."""
        pseudo = {name: value for name, value in given if name[:1] == b":"}
        headers = [(name, value) for name, value in given if name[:1] != b":" and name != b"host"]
        authority = pseudo.get(b":authority")
        if authority is None:
            authority = next(value for name, value in given if name == b"host")
        headers.insert(0, (b"host", authority))
        method, url = pseudo[b":method"], pseudo.get(b":path", b"")
        check_head_size(url, headers)
        if not _METHOD.match(method) or not _TARGET.match(url):
            raise HeadRefused(400, wording.NOT_HTTP2)
        check_head(url, headers, "1.1")
        lengths = [value for name, value in headers if name == b"content-length"]
        if len(lengths) > 1 or any(not each.isdigit() or len(each) > LENGTH_DIGITS for each in lengths):
            raise HeadRefused(400, wording.NOT_HTTP2)
        if any(not _NAME.match(name) or _BAD_VALUE.search(value) for name, value in headers):
            raise HeadRefused(400, wording.NOT_HTTP2)
        gate, client, scheme = self._gate, self._client, "https"
        if self._is_proxied or gate.domain:
            url, headers, origin = placed(url, headers, scheme, gate.trusted if self._is_proxied else None, gate.domain)
            if origin is not None:
                client = None if origin.client is None else (origin.client, 0)
                scheme = origin.scheme
        path, _, query = url.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": self._asgi_version, "spec_version": "2.3"},
            "http_version": "2",
            "server": self._server,
            "client": client,
            "scheme": scheme,
            "method": method.decode("ascii"),
            "root_path": "",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "headers": headers,
            "state": {},
        }

    async def _run(self, stream: Stream, scope: Scope) -> None:
        try:
            await self._app(scope, stream.receive, stream.send)
        except Exception as error:  # the top of a request: what nobody foresaw is a 500 with a log line
            log.info("http2.stream_failed", reason=repr(error))
        finally:
            stream.is_running = False
            if not stream.is_started and not stream.is_gone and not self._is_over:
                self._answer(stream, 500, [(b"content-type", b"text/plain; charset=utf-8")], _FAILED)
            elif not stream.is_ended and not stream.is_gone:
                self._reset(stream, INTERNAL_ERROR)
            self._settle(stream)

    def _take(self, event: DataReceived) -> None:
        """Takes a part of a body in, for the application to receive."""
        id, data, counted = event.stream_id, event.data or b"", event.flow_controlled_length or 0
        stream = self._streams.get(id)
        gate, size = self._gate, len(data)
        if stream is not None and stream.expected_bytes is not None:
            stream.expected_bytes -= size
        if stream is None or stream.is_gone or stream.is_ended or not data:
            self._h2.acknowledge_received_data(counted, id)
        elif stream.expected_bytes is not None and stream.expected_bytes < 0:
            self._h2.acknowledge_received_data(counted, id)
            self._refuse(stream, 400, wording.NOT_HTTP2)
        elif gate.held_bytes + size > gate.http.bodies_bytes:
            self._h2.acknowledge_received_data(counted, id)
            self._refuse(stream, 503, wording.TOO_MANY_BODIES)
        else:
            gate.held_bytes += size
            stream.held_bytes += size
            stream.unread_bytes += counted
            stream.parts.append(bytes(data))
            stream.wake()

    def _complete_body(self, stream: Stream) -> None:
        stream.is_whole = True
        stream.body_late_at_s = 0.0
        if stream.expected_bytes and not (stream.is_gone or stream.is_ended):
            self._refuse(stream, 400, wording.NOT_HTTP2)
            return
        stream.wake()
        self._settle(stream)

    def acknowledge(self, stream: Stream) -> None:
        """What was received is taken: the client may send as much again."""
        taken, stream.unread_bytes = stream.unread_bytes, 0
        if taken and not self._is_over:
            self._h2.acknowledge_received_data(taken, stream.id)
            self._flush_soon()

    # ── an answer ───────────────────────────────────────────────────────────────────────────────────────────────

    def say_continue(self, stream: Stream) -> None:
        self._h2.send_headers(stream.id, [(b":status", b"100")])
        self._flush_soon()

    def start(self, stream: Stream, status: int, given: Iterable[tuple[bytes, bytes]]) -> None:
        """Sends the head of an answer; headers about the connection are left out."""
        headers: list[HeaderTuple] = [HeaderTuple(b":status", b"%d" % status)]
        for name, value in (*self._state.default_headers, *given):
            name = name.lower()
            if not _NAME.match(name) or _BAD_VALUE.search(value):
                raise RuntimeError("a header of an answer cannot be sent")
            if name not in _CONNECTION_HEADERS:
                made = NeverIndexedHeaderTuple if name in _UNINDEXED else HeaderTuple
                headers.append(made(name, value.strip(b" \t")))
        stream.is_started = True
        stream.is_bodiless |= status in (204, 304)
        self._h2.send_headers(stream.id, headers, end_stream=stream.is_bodiless)
        if stream.is_bodiless:
            self._complete(stream)
        self._flush_soon()

    def offer(self, stream: Stream) -> None:
        """Sends what the stream has, as far as there is room for it now; the rest follows by itself."""
        stream.send_late_at_s = self._now_s() + self._gate.http.send_timeout_s
        self._ready.append(stream)
        self._pump()
        if stream.is_sending:
            self._look_at(stream.send_late_at_s)

    def _make_ready(self, id: int) -> None:
        """There is more room: for this stream, or with 0 perhaps for each."""
        if id:
            stream = self._streams.get(id)
            waiting = [] if stream is None else [stream]
        else:
            waiting = list(self._streams.values())
        self._ready.extend(each for each in waiting if each.is_sending and each not in self._ready)

    def _pump(self) -> None:
        """Sends a frame of each stream in turn, until nothing is left, or no room."""
        h2, ready = self._h2, self._ready
        while ready and not self._is_paused and not self._is_over:
            stream = ready[0]
            if not stream.is_sending:
                ready.popleft()
                continue
            left = len(stream.outgoing) - stream.at
            size = min(left, FRAME_BYTES, max(0, h2.local_flow_control_window(stream.id)))
            if left and not size:
                if h2.outbound_flow_control_window <= 0:
                    break
                ready.popleft()  # its own window is closed
                continue
            ready.popleft()
            is_end = stream.is_last and size == left
            h2.send_data(stream.id, stream.outgoing[stream.at : stream.at + size], end_stream=is_end)
            stream.at += size
            self._frames.count_sent(size)
            if is_end:
                self._complete(stream)
            elif size < left:
                stream.send_late_at_s = self._now_s() + self._gate.http.send_timeout_s
                ready.append(stream)
            else:
                stream.send_late_at_s = 0.0
                stream.wake()
            self._unflushed_bytes += size
            if self._unflushed_bytes >= BUFFER_BYTES:
                self._flush()
        self._flush_soon()

    def _flush_soon(self) -> None:
        """What this turn of the loop has to say goes out in one piece."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        self._unflushed_bytes = 0
        if not self._is_over and not self.transport.is_closing():
            data = self._h2.data_to_send()
            if data:
                self.transport.write(data)

    def _answer(self, stream: Stream, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Answers in the application's place."""
        self.start(stream, status, [*headers, (b"content-length", b"%d" % len(body))])
        if not stream.is_ended:
            stream.outgoing, stream.at, stream.is_last = body, 0, True
            self.offer(stream)

    def _refuse(self, stream: Stream, status: int, sentence: str) -> None:
        """Answers with an error, or ends an answer that has begun; the application sees that nobody waits for it."""
        stream.body_late_at_s = 0.0
        if stream.is_started:
            self._reset(stream, CANCEL)
            return
        id = transid.new()
        answer = error_answer(status, sentence, id, is_routed=False)
        headers = [(name.encode(), value.encode("latin-1")) for name, value in answer.all_headers(id)]
        self._answer(stream, status, headers, answer.body)
        stream.is_gone = True
        self._give_back(stream)
        stream.wake()
        self._settle(stream)

    # ── the end of a request ────────────────────────────────────────────────────────────────────────────────────

    def _complete(self, stream: Stream) -> None:
        """The answer is complete. What the client still sends is not wanted; it has a moment to hear so."""
        stream.is_ended = True
        stream.send_late_at_s = 0.0
        if not stream.is_whole:
            stream.body_late_at_s = self._now_s() + LINGER_S
            self._look_at(stream.body_late_at_s)
        self._give_back(stream)
        stream.wake()
        self._settle(stream)

    def _reset(self, stream: Stream, code: int) -> None:
        try:
            self._h2.reset_stream(stream.id, code)
        except StreamClosedError:
            pass  # the client was faster
        self._flush_soon()
        self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        """Nobody waits for the answer any more."""
        stream.is_gone = stream.is_ended = stream.is_whole = True
        stream.body_late_at_s = stream.send_late_at_s = 0.0
        self._give_back(stream)
        stream.wake()
        self._settle(stream)

    def _give_back(self, stream: Stream) -> None:
        """What was received and is not taken never will be."""
        stream.parts.clear()
        self.acknowledge(stream)

    def _settle(self, stream: Stream) -> None:
        """Forgets a request once nobody is at work on it, and nothing of it is left to come or to send."""
        if stream.is_running or not (stream.is_ended and stream.is_whole) or self._streams.pop(stream.id, None) is None:
            return
        gate = self._gate
        gate.streams -= 1
        gate.held_bytes -= stream.held_bytes
        self._state.total_requests += 1
        if self._streams or self._is_over:
            return
        if self._frames.is_leaving:
            self._loop.call_soon(self._end, NO_ERROR)
            return
        self._idle_late_at_s = self._now_s() + gate.http.keep_alive_s
        self._look_at(self._idle_late_at_s)

    # ── the end of the server ───────────────────────────────────────────────────────────────────────────────────

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way: no part of a head has been read, and no answer is owed."""
        return not self._streams and not self._frames.is_in_head

    def end_after_answer(self) -> None:
        """Tells the client to begin what is new elsewhere; what it sent before it hears so is answered."""
        if not self._is_told and not self._is_over and not self.transport.is_closing():
            self._is_told = True
            self._flush()
            self.transport.write(goaway(ANY_STREAM, NO_ERROR))

    def end_idle(self) -> None:
        """Ends it, with the number of the last request that was answered."""
        self._end(NO_ERROR)
