"""The front door: the hot routes answered on the bare protocol, everything else passed on to the application.

An ASGI cycle costs three times what this does, and on the warm path nothing may cost that. What is decided here is
decided at the head of a request: POST of an action or trigger whose caller and entity are in memory, with a body of a
known and allowed length. It is then collected and handed to the same controller functions that the application's
handlers call.

On one connection answers leave in order: while one is in flight, later pipelined requests go the other way, which
queues them and stops reading. The time-outs of head and body are kept here for all requests; the server library has
none. So are the checks of a head that no two servers may read differently (request smuggling): whatever the parser
refuses, or leaves to its caller, ends the connection after 400. An answer that is still owed to an earlier request on
the connection goes first.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import httptools

from visp import wording
from visp.api import warm, warmweb
from visp.api.answering import Answering
from visp.api.errors import error_answer
from visp.api.gate import LINGER_S
from visp.api.heads import HEAD_LIMIT_BYTES, HeadRefused, check_head, check_head_size
from visp.api.hot import CallTarget, Head, Target, WebTarget, parse_head
from visp.api.inside import CONNECTIONS, INSIDE
from visp.api.origin import is_among, placed
from visp.controller import webaction
from visp.entity.gateway import domain_of
from visp.entity.network import is_loopback
from visp.telemetry import log, transid

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from visp.api.gate import Gate
    from visp.api.inside import Inside
    from visp.api.origin import Origin
    from visp.api.warm import Caller, Warm

KEPT_METHODS = (b"POST ", b"GET ")
KEPT_HEAD_BYTES = 2048
"""Longer heads are parsed each time: the table of known ones stays small."""

_HEAD_END = b"\r\n\r\n"


class Door(Answering):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.late_at_s = 0.0
        self._hot: Warm | None = None
        self._head_bytes = 0
        self._raw_head = b""
        """The head at the beginning of what was received last, if it may be worth remembering."""
        self.is_local_peer = False
        self._held_bytes = 0
        self.stuck_at_s = 0.0
        self._unsent_bytes = 0
        """When it was last looked whether the client takes anything."""
        self._is_proxied = False
        self._heads = self.gate.heads
        self._origin: Origin | None = None
        self.inside: Inside | None = None
        self._is_in_message = False
        self._is_in_head = False
        self._refusal: tuple[int, str] | None = None
        self._is_socket = False

    # ── the connection ──────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        gate = self.gate
        inside: Inside | None = self.app_state.get(INSIDE)
        if inside is not None and inside.connections < CONNECTIONS:
            inside.connections += 1
            gate.inside += 1
        elif inside is not None or not gate.has_room():
            transport.close()
            return
        gate.doors.add(self)
        self.inside = inside
        if inside is None and self.client is not None:
            self._is_proxied = is_among(self.client[0], gate.trusted)
            self.is_local_peer = is_loopback(self.client[0]) and not self._is_proxied
            self._heads = gate.proxied_heads if self._is_proxied else gate.heads
        self.late_at_s = gate.services.clock.monotonic_s() + gate.http.head_timeout_s

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()
        self.gate.doors.discard(self)
        if self.inside is not None:
            self.inside.connections -= 1
            self.gate.inside -= 1
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        if not self._is_in_message:
            self.late_at_s = 0.0
            self._head_bytes = 0
            if self._take_known(data):
                return
        if self._is_in_head or not self._is_in_message:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._is_socket:
                self._become_socket()
                return
            # no other protocol is offered: the request is answered as it stands, and ends the connection
        except httptools.HttpParserError as error:
            self._refuse_for(error)
            return
        if not self._is_in_message or self.parser is None:
            return
        if not self.late_at_s:  # the rest of the request is still to come
            gate = self.gate
            wait_s = gate.http.head_timeout_s if self._is_in_head else gate.http.body_timeout_s
            self.late_at_s = gate.services.clock.monotonic_s() + wait_s
        if self._is_in_head and self._head_bytes > HEAD_LIMIT_BYTES:
            self._refuse(431, wording.head_too_large(HEAD_LIMIT_BYTES))

    def _take_known(self, data: bytes) -> bool:
        """Begins a request whose head is known, byte for byte, and whose body came with it; false for any other.

        It never meets the parser, which stands between two messages and stays there.
        """
        self._raw_head = b""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            return False
        end = data.find(_HEAD_END) + len(_HEAD_END)
        if end > KEPT_HEAD_BYTES or not data.startswith(KEPT_METHODS):
            return False
        raw = data[:end]
        head = self._heads.known.get(raw)
        if head is None:
            self._raw_head = raw
            return False
        if len(data) - end != head.body_bytes:
            return False
        hot = _ADMIT[type(head.target)](self, head, True)
        if hot is None:
            return False
        self.cycle = hot  # type: ignore[assignment]
        self._begin(hot, data[end:])
        return True

    def give_up(self) -> None:
        """The client is too slow: the connection ends, once what was sent before is taken."""
        self.late_at_s = 0.0
        if self._is_in_message and self._refusal is None:
            self._refuse(408, wording.TOO_SLOW)
        elif self.transport is not None:
            self.transport.close()
            self._watch_sending()

    # ── a client that takes what it is sent ─────────────────────────────────────────────────────────────────────

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_sending()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self.stuck_at_s = 0.0

    def _watch_sending(self) -> None:
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self.stuck_at_s = self.gate.services.clock.monotonic_s() + self.gate.http.send_timeout_s

    def cut_if_stuck(self) -> None:
        """Ends the connection at once, unless something was taken since it was looked at last."""
        if self.transport.get_write_buffer_size() >= self._unsent_bytes:
            self.stuck_at_s = 0.0
            self.transport.abort()
        else:
            self._watch_sending()

    def _refuse_for(self, error: httptools.HttpParserError) -> None:
        """Refuses what the parser could not take, or what a callback of ours raised inside of it."""
        cause = error.__context__
        if isinstance(cause, HeadRefused):
            self._refuse(cause.status, cause.sentence)
        elif isinstance(error, httptools.HttpParserCallbackError):
            log.error("door.failed", reason=repr(cause))
            self._refuse(500, wording.INTERNAL)
        else:
            self._refuse(400, wording.NOT_HTTP)

    def _refuse(self, status: int, sentence: str) -> None:
        """Ends the connection with an error, after what is owed to earlier requests; nothing more is read."""
        if self.transport is None or self.transport.is_closing() or self._refusal is not None:
            return
        self._refusal = status, sentence
        self.late_at_s = 0.0
        cycle = self.cycle
        if self._is_in_message and not self._is_in_head:  # the cycle is this request's own
            if self.pipeline:
                self.pipeline.popleft()  # it has not begun: an earlier request is in flight
                return
            if cycle.response_complete or getattr(cycle, "response_started", False):
                self.transport.close()
                return
            self._hot = None
            cycle.disconnected = True
            cycle.message_event.set()
        elif cycle is not None and not cycle.response_complete:
            return  # an answer is in flight: on_response_complete comes back to the refusal
        self._send_refusal()

    def _send_refusal(self) -> None:
        assert self._refusal is not None
        id = transid.new()
        self.send(error_answer(*self._refusal, id, is_routed=False), id, keep_alive=False)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.late_at_s = self.gate.services.clock.monotonic_s() + LINGER_S
        else:
            self.transport.close()

    # ── the head ────────────────────────────────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._is_in_message = self._is_in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:  # else it is a trailer, which nobody asked for
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.transport.is_closing():  # the request before this one asked for the end of the connection
            raise HeadRefused(400, wording.NOT_HTTP)
        if self._head_bytes > HEAD_LIMIT_BYTES:  # counted by what was received, so perhaps not the head's alone
            check_head_size(self.url, self.headers)
        if self._is_proxied or self.gate.domain:
            self._place()
        hot = self._decide()
        if hot is None:
            check_head(self.url, self.headers, self.parser.get_http_version())
        self._is_in_head = False
        if self.late_at_s:  # the head came in pieces, in time: the body has its own time
            gate = self.gate
            self.late_at_s = gate.services.clock.monotonic_s() + gate.http.body_timeout_s
        if hot is not None:
            self.cycle = hot  # type: ignore[assignment]
            self._hot = hot
            return
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.headers.extend(headers)
        if self._origin is not None:
            client = self._origin.client
            self.scope["client"] = None if client is None else (client, 0)
            self.scope["scheme"] = self._origin.scheme
        self.expect_100_continue = any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in headers
        )
        self._is_socket = self._wants_socket()
        super().on_headers_complete()
        if self._is_socket:
            return
        if self.parser.should_upgrade() or self.gate.is_ending:
            self.cycle.keep_alive = False

    def _should_upgrade(self) -> bool:
        return self._is_socket

    def _wants_socket(self) -> bool:
        """Whether the request asks for a WebSocket where there may be one, and nothing is owed before it."""
        return (
            self.parser.should_upgrade()
            and self._get_upgrade() == b"websocket"
            and self.parser.get_method() == b"GET"
            and self.url.startswith(_WEB)
            and not self._domain()
            and (self.cycle is None or self.cycle.response_complete)
            and not self.gate.is_ending
        )

    def _become_socket(self) -> None:
        """From now on another protocol has the connection; it counts as before."""
        from visp.api.framing import Framing  # most servers never need it

        gate = self.gate
        self.ws_protocol_class = cast("Any", partial(Framing, gate=gate, inside=self.inside, origin=self._origin))
        gate.doors.discard(self)
        self.late_at_s = 0.0
        self.handle_websocket_upgrade()

    def _place(self) -> None:
        """Takes a request for what a trusted proxy says it was, and for what its namespace's own host means."""
        gate = self.gate
        self.url, self.headers, self._origin = placed(
            self.url,
            self.headers,
            self.scheme or "http",
            gate.trusted if self._is_proxied else None,
            gate.domain if self.inside is None else "",
        )

    def _domain(self) -> str:
        """The domain of an API that it came to, which has nothing but that API; empty where it is none's."""
        domains = self.gate.services.domains
        if not domains:
            return ""
        hosts = (domain_of(value.decode("latin-1")) for name, value in self.headers if name == b"host")
        return next((host for host in hosts if host in domains), "")

    def _decide(self) -> Warm | None:
        """The hot request that begins, or None: then it is the application's."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            return None  # an answer is in flight on this connection
        if self.parser.get_http_version() != "1.1":
            return None
        raw, self._raw_head = self._raw_head, b""
        domain = self._domain()
        if domain and self.inside is not None:  # it means another thing outside, and is not remembered
            domain, raw = "", b""
        method, wait_ms = self.parser.get_method(), self.gate.longest_wait_ms
        head = parse_head(method, self.url, self.headers, wait_ms, domain)
        hot = None if head is None else _ADMIT[type(head.target)](self, head, self.parser.should_keep_alive())
        if hot is None or head is None or not hot.keep_alive or head.request_id is not None:
            return hot
        if raw.count(b"\r\n") == len(self.headers) + 2:  # it is this request's head, and nothing else
            self._heads.remember(raw, head)
        return hot

    # ── the body ────────────────────────────────────────────────────────────────────────────────────────────────

    def on_body(self, body: bytes) -> None:
        gate, size = self.gate, len(body)
        if gate.held_bytes + size > gate.http.bodies_bytes:
            raise HeadRefused(503, wording.TOO_MANY_BODIES)
        gate.held_bytes += size
        self._held_bytes += size
        if self._hot is not None:
            self._hot.body.append(body)
        else:
            super().on_body(body)

    def _let_go(self) -> None:
        """What was received is somebody else's to count, or gone."""
        self.gate.held_bytes -= self._held_bytes
        self._held_bytes = 0

    def on_message_complete(self) -> None:
        self._is_in_message = False
        self.late_at_s = 0.0
        hot, self._hot = self._hot, None
        if hot is None:
            super().on_message_complete()
            return
        if self._held_bytes:
            self._let_go()
        parts = hot.body
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        hot.body = []
        self._begin(hot, body)

    def _begin(self, hot: Warm, body: bytes, *, is_turn: bool = False) -> None:
        """Begins a complete request when it is its caller's turn: at once, unless others wait for theirs."""
        turns, namespace = self.gate.turns, hot.namespace
        if namespace != turns.latest:
            turns.meet(namespace)
        if not is_turn and turns.is_shared and not turns.may_begin(namespace):
            turns.wait(namespace, partial(self._begin, hot, body, is_turn=True))
            return
        try:
            hot.run(body)
        except Exception as error:  # the top of a request: what nobody foresaw is a 500 with a log line
            self.finish(hot, hot.told(error))

    # ── the answer ──────────────────────────────────────────────────────────────────────────────────────────────

    def on_response_complete(self) -> None:
        if self._held_bytes:
            self._let_go()
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._refusal is not None:
            self._send_refusal()
        elif not self._is_in_message:  # the sweep closes an idle connection: no timer for each request
            self.late_at_s = self.gate.services.clock.monotonic_s() + self.gate.http.keep_alive_s
            if self.gate.on_idle is not None:
                self.gate.on_idle(self)

    # ── the end of the server ───────────────────────────────────────────────────────────────────────────────────

    @property
    def peer(self) -> str:
        """The client's address, as far as it is known."""
        client = self.client[0] if self._origin is None and self.client is not None else None
        return (client if self._origin is None else self._origin.client) or ""

    @property
    def shown_scheme(self) -> str:
        """How the client asked: a trusted proxy may have told."""
        return (self.scheme or "http") if self._origin is None else self._origin.scheme

    @property
    def is_sealed(self) -> bool:
        return self.scheme == "https"

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way: no part of a request has been read, and no answer is owed."""
        cycle = self.cycle
        return (
            not self._is_in_message
            and not self.pipeline
            and self._refusal is None
            and (cycle is None or cycle.response_complete)
        )

    def end_idle(self) -> None:
        self.transport.close()

    def end_after_answer(self) -> None:
        """The answer that is owed, if one is, is the last."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False


_WEB = webaction.PREFIX.encode()
_ADMIT: dict[type, Callable[[Caller, Head, bool], Warm | None]] = {
    Target: warm.admit,
    WebTarget: warmweb.admit,
    CallTarget: warmweb.admit_call,
}


def bound(gate: Gate) -> type[Door]:
    """The protocol class for a server, bound to its gate."""
    return type("BoundDoor", (Door,), {"gate": gate})
