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

import asyncio
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from visp import wording
from visp.api import encoding, timing, web
from visp.api.actions import http_answer
from visp.api.errors import ACTIVATION_ID, CORS, HttpAnswer, error_answer, render
from visp.api.events import SEND_S
from visp.api.heads import HEAD_LIMIT_BYTES, HeadRefused, check_head, check_head_size
from visp.api.hot import Target, WebTarget, parse_head
from visp.api.inside import CONNECTIONS, INSIDE
from visp.api.origin import in_own_host, is_among, told
from visp.api.turns import Turns
from visp.controller import webaction
from visp.controller.fire import Firing
from visp.controller.invoke import Invocation
from visp.controller.primitive import Accepted, Finished
from visp.controller.resolver import must_be_asked
from visp.controller.streams import Reader
from visp.entity.action import Action
from visp.entity.activation import Status
from visp.entity.execs import SequenceExec
from visp.entity.names import CALLERS_NAMESPACE, FullyQualifiedName
from visp.entity.network import is_loopback, parse_networks
from visp.entity.trigger import Trigger
from visp.errors import VispError
from visp.telemetry import log, transid

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from visp.api.context import Services
    from visp.api.framing import Framing
    from visp.api.hot import Head
    from visp.api.inside import Inside
    from visp.api.origin import Origin
    from visp.controller.fire import NothingToDo
    from visp.controller.primitive import Answer
    from visp.controller.resolver import Resolved
    from visp.entity.subject import Identity
    from visp.store.cache import Entity

HEADS_LIMIT = 10_000
WEB_HEADS_LIMIT = 1_000
STARTS_LIMIT = 1_000
"""Kinds of answers: web actions may give any content type."""
KEPT_METHODS = (b"POST ", b"GET ")
KEPT_HEAD_BYTES = 2048
"""Longer heads are parsed each time: the table of known ones stays small."""
LINGER_S = 2.0
"""How long a refused client may go on sending: closing at once could take the answer from under its nose."""
SWEEP_S = 1.0
JOINED_BODY_BYTES = 64 * 1024

_HEAD_END = b"\r\n\r\n"


class Heads:
    """Heads as they came, from the request line to the empty line: clients send the same one again and again."""

    def __init__(self) -> None:
        self.known: dict[bytes, Head] = {}
        self._web = 0

    def remember(self, raw: bytes, head: Head) -> None:
        """From now on this head is not parsed again. The table is emptied when it is full.

        Web actions are for everybody to ask, with any query, and what is known of such a head is several times longer.
        """
        self._web += isinstance(head.target, WebTarget)
        if len(self.known) >= HEADS_LIMIT or self._web > WEB_HEADS_LIMIT:
            self.known.clear()
            self._web = int(isinstance(head.target, WebTarget))
        self.known[raw] = head


class Gate:
    """What all connections share: services, known heads, and the sweep that closes the slow and the idle."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.heads = Heads()
        self.proxied_heads = Heads()
        """Those that trusted proxies sent: they mean more than the same bytes of others would."""
        self.trusted = parse_networks(services.settings.http.trusted_proxies)
        self.domain = services.settings.http.domain
        self.compress_bytes = services.settings.http.compress_bytes or sys.maxsize
        self.timing = services.settings.http.server_timing
        self._dated: list[tuple[bytes, bytes]] | None = None
        self._starts: dict[tuple[int, str | None, bool], bytes] = {}
        self.doors: set[Door] = set()
        self.sockets: set[Framing] = set()
        """Connections that speak WebSocket by now."""
        self.held_bytes = 0
        """Of bodies that are being received."""
        self.inside = 0
        """As many of them lead out of containers: they take nothing of what others may have."""
        self.longest_wait_ms = services.settings.limits.blocking_wait_ms
        self.http = services.settings.http
        self.is_leased = services.invoke.is_leased
        self.turns = Turns(asyncio.get_running_loop())
        self.is_ending = False
        """Every answer is the last one on its connection."""
        self.on_idle: Callable[[Door], None] | None = None
        """Hears of each connection on which nothing is under way any more."""

    def has_room(self, more: int = 0) -> bool:
        """Whether there may be another connection, beside so `more` that are not here yet."""
        return len(self.doors) + len(self.sockets) - self.inside + more < self.http.connections

    def reserve(self, identity: Identity, entity: Action | Trigger) -> bool:
        """Whether what the request will be charged is at hand; it is kept for it then."""
        if isinstance(entity, Trigger):
            return self.services.fire.reserve(identity, entity)
        return self.services.invoke.reserve(identity)

    def start_of(self, answer: HttpAnswer, dated: list[tuple[bytes, bytes]]) -> bytes:
        """An answer's head up to the value of `X-Request-ID`; made again when the server's clock has moved on."""
        if dated is not self._dated:
            self._dated = dated
            self._starts.clear()
        key = (answer.status, answer.content_type, answer.is_routed)
        start = self._starts.get(key)
        if start is None:
            if len(self._starts) >= STARTS_LIMIT:
                self._starts.clear()
            lines = [STATUS_LINE[answer.status], *(b"%b: %b\r\n" % header for header in dated)]
            if answer.is_routed:
                lines.append(_CORS_LINES)
            if answer.content_type is not None:
                lines.append(b"Content-Type: %b\r\n" % answer.content_type.encode())
            start = self._starts[key] = b"".join((*lines, b"X-Request-ID: "))
        return start

    async def sweep(self) -> None:
        """Closes connections whose head or body is late, or whose client takes nothing, as long as the server runs."""
        while True:
            await self.services.clock.sleep(SWEEP_S)
            now_s = self.services.clock.monotonic_s()
            for door in [door for door in self.doors if door.late_at_s and now_s > door.late_at_s]:
                door.give_up()
            for door in [door for door in self.doors if door.stuck_at_s and now_s > door.stuck_at_s]:
                door.cut_if_stuck()

    def protocol(self) -> type[HttpToolsProtocol]:
        """The protocol class for the server, bound to this gate."""
        return type("BoundDoor", (Door,), {"gate": self})


class _Hot:
    """A hot request in flight.

    It stands where the base protocol expects its cycle, so that pipelined requests queue behind it. Identity and entity
    are held from the head on: what is cached may change while the body comes.
    """

    __slots__ = (
        "accepts_gzip",
        "body",
        "disconnected",
        "entity",
        "headers",
        "identity",
        "is_timed",
        "keep_alive",
        "message_event",
        "resolved",
        "response_complete",
        "response_started",
        "target",
        "transid",
        "user",
    )

    def __init__(
        self,
        head: Head,
        identity: Identity,
        entity: Action | Trigger,
        resolved: Resolved | None,
        id: str,
        keep_alive: bool,
        is_timed: bool,
        user: str | None = None,
    ) -> None:
        self.target = head.target
        self.accepts_gzip = head.accepts_gzip
        self.is_timed = is_timed
        self.user = user
        self.identity = identity
        self.entity = entity
        self.resolved = resolved
        self.headers = head.shown
        self.transid = id
        self.keep_alive = keep_alive
        self.body: list[bytes] = []
        self.response_complete = False
        self.response_started = False
        self.disconnected = False
        self.message_event = _NEVER


class _Event:
    """An event nobody waits for."""

    def set(self) -> None:
        pass


_NEVER = _Event()


class Door(HttpToolsProtocol):
    """One connection."""

    gate: Gate

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.late_at_s = 0.0
        self._hot: _Hot | None = None
        self._head_bytes = 0
        self._raw_head = b""
        """The head at the beginning of what was received last, if it may be worth remembering."""
        self._is_local_peer = False
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
            self._is_local_peer = is_loopback(self.client[0]) and not self._is_proxied
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
        hot = self._admit(head, keep_alive=True)
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
        self._send(error_answer(*self._refusal, id, is_routed=False), id, keep_alive=False)
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
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) > 1:
            return  # it is refused
        if self._is_proxied:
            origin = self._origin = told(self.scheme or "http", self.headers, gate.trusted)
            if origin.host is not None and hosts:
                hosts = [origin.host]
                self.headers = [(n, origin.host if n == b"host" else value) for n, value in self.headers]
        if gate.domain and hosts and self.inside is None:
            self.url = in_own_host(self.url, hosts[0], gate.domain) or self.url

    def _decide(self) -> _Hot | None:
        """The hot request that begins, or None: then it is the application's."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            return None  # an answer is in flight on this connection
        if self.parser.get_http_version() != "1.1":
            return None
        gate = self.gate
        raw, self._raw_head = self._raw_head, b""
        head = parse_head(self.parser.get_method(), self.url, self.headers, gate.longest_wait_ms)
        hot = None if head is None else self._admit(head, keep_alive=self.parser.should_keep_alive())
        if hot is None or head is None or not hot.keep_alive or head.request_id is not None:
            return hot
        if raw.count(b"\r\n") == len(self.headers) + 2:  # it is this request's head, and nothing else
            self._heads.remember(raw, head)
        return hot

    def _admit(self, head: Head, *, keep_alive: bool) -> _Hot | None:
        """The request, if its caller and entity are in memory and the caller may ask this way."""
        gate, target = self.gate, head.target
        if isinstance(target, WebTarget):
            return self._admit_web(head, target, keep_alive=keep_alive)
        identity = gate.services.identities.peek(head.authorization)
        if identity is None or head.body_bytes > identity.limits.payload_bytes:
            return None
        if not self._may_use(identity, head):
            return None
        if target.namespace != CALLERS_NAMESPACE and target.namespace != identity.namespace:
            return None
        entity: Entity | None
        resolved = None
        if target.package is None:
            entity = gate.services.entities.peek(f"{identity.namespace}/{target.name}")
        else:
            name = FullyQualifiedName(identity.namespace, target.package, target.name)
            resolved = gate.services.resolver.peek(identity, name)
            if resolved is None:
                return None
            entity = resolved.action
        if target.is_trigger:
            if not isinstance(entity, Trigger) or not gate.services.fire.has_all_in_memory(identity, entity):
                return None
        elif not isinstance(entity, Action) or (isinstance(entity.exec, SequenceExec) and must_be_asked(entity.exec)):
            return None
        if gate.is_leased and not gate.reserve(identity, entity):
            return None
        id = transid.of_request(head.request_id)
        is_timed = gate.timing == "always" or (head.is_timed and gate.timing == "asked")
        return _Hot(head, identity, entity, resolved, id, keep_alive, is_timed)

    def _may_use(self, identity: Identity, head: Head) -> bool:
        """The well-known key is for callers on this machine."""
        if not identity.is_loopback_only:
            return True
        if self.inside is not None:
            return self.inside.may_use(identity)
        return self._is_local_peer and head.is_from_here

    def _admit_web(self, head: Head, target: WebTarget, *, keep_alive: bool) -> _Hot | None:
        """The request for a web action, if all that it needs is in memory and nothing is to be refused."""
        services, name = self.gate.services, target.address.name
        owner = services.identities.peek_owner(name.namespace)
        if owner is None or head.body_bytes > owner.limits.payload_bytes:
            return None
        caller = None
        if head.authorization:
            caller = services.identities.peek(head.authorization)
            if caller is None or not self._may_use(caller, head):
                return None
        resolved = services.resolver.peek(owner, name)
        if resolved is None:
            return None
        action = resolved.action
        if not webaction.is_exported(action) or not webaction.may_enter(action, target.headers, caller):
            return None
        if isinstance(action.exec, SequenceExec) and must_be_asked(action.exec):
            return None
        if self.gate.is_leased and not self.gate.reserve(owner, action):
            return None
        id = transid.of_request(head.request_id)
        user = None if caller is None else caller.namespace
        return _Hot(head, owner, action, resolved, id, keep_alive, self.gate.timing == "always", user)

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

    def _begin(self, hot: _Hot, body: bytes) -> None:
        """Begins a complete request when it is its caller's turn: at once, unless others wait for theirs."""
        turns, namespace = self.gate.turns, hot.identity.namespace
        if namespace != turns.latest:
            turns.meet(namespace)
        if turns.is_shared and not turns.may_begin(namespace):
            turns.wait(namespace, lambda: self._hand_on(hot, body))
        else:
            self._hand_on(hot, body)

    def _hand_on(self, hot: _Hot, body: bytes) -> None:
        """Hands a request to the controller, whose answer comes back once, later."""
        target = hot.target
        if isinstance(target, WebTarget):
            self._run_web(hot, target, body)
            return

        def settle(answer: Answer) -> None:
            try:
                self._finish(hot, http_answer(answer, is_result=target.is_result))
            except VispError as error:
                self._finish(hot, render(error, hot.transid))

        try:
            if target.is_trigger:
                if self._fire(hot, body, settle) is not None:
                    self._finish(hot, HttpAnswer(204))
            else:
                self._invoke(hot, body, settle)
        except Exception as error:  # the top of a request: what nobody foresaw is a 500 with a log line
            self._finish(hot, render(error, hot.transid))

    def _run_web(self, hot: _Hot, target: WebTarget, body: bytes) -> None:
        """Runs a web action; parts of its result are passed on as they come."""
        services, extension = self.gate.services, target.address.extension
        assert isinstance(hot.entity, Action)
        is_custom = webaction.has_custom_options(hot.entity)
        cors = () if is_custom else webaction.cors(target.headers.get("access-control-request-headers"))
        parts = _Parts(self, hot, extension, cors) if extension in web.STREAMED else None

        def settle(answer: Answer) -> None:
            if parts is not None and parts.settle(answer):
                return
            if isinstance(answer, Finished) and len(answer.result) > web.PRETTY_AT_ONCE_BYTES:
                self._go_on(self._finish_long(hot, answer, extension, target.accept, cors))
                return
            try:
                self._finish(hot, web.web_answer(answer, extension, target.accept, cors, hot.transid))
            except Exception as error:  # the top of a request: what nobody foresaw is a 500 with a log line
                self._finish(hot, render(error, hot.transid))

        try:
            services.invoke.charge(hot.identity)
        except VispError as error:
            self._finish(hot, web.told(error, hot.transid))
            return
        given = target.given
        if hot.user is not None:
            given = given | webaction.user_field(hot.user)
        try:
            payload = webaction.argument(hot.entity, given, target.query, target.fields, target.kind, body)
            id = services.invoke.start(
                Invocation(
                    identity=hot.identity,
                    action=hot.entity,
                    resolved=hot.resolved,
                    body=b"",
                    payload=payload,
                    transid=hot.transid,
                    received_ms=services.clock.now_ms(),
                    wait_s=self.gate.longest_wait_ms / 1000,
                    is_streamed=parts is not None,
                ),
                settle,
            )
        except VispError as error:
            self._finish(hot, web.told(error, hot.transid, headers=cors))
        except Exception as error:  # the top of a request: what nobody foresaw is a 500 with a log line
            self._finish(hot, render(error, hot.transid))
        else:
            if parts is not None:
                parts.begin(id)

    async def _finish_long(
        self, hot: _Hot, answer: Finished, extension: str, accept: str | None, cors: tuple[tuple[str, str], ...]
    ) -> None:
        try:
            made = await web.finished(answer, extension, accept, cors, hot.transid)
        except Exception as error:  # the top of a request: what nobody foresaw is a 500 with a log line
            made = render(error, hot.transid)
        self._finish(hot, made)

    def _invoke(self, hot: _Hot, body: bytes, settle: Callable[[Answer], None]) -> None:
        assert isinstance(hot.target, Target)
        services, wait_ms = self.gate.services, hot.target.wait_ms
        assert isinstance(hot.entity, Action)
        services.invoke.charge(hot.identity)
        services.invoke.start(
            Invocation(
                identity=hot.identity,
                action=hot.entity,
                resolved=hot.resolved,
                body=body,
                transid=hot.transid,
                received_ms=services.clock.now_ms(),
                wait_s=None if wait_ms is None else wait_ms / 1000,
            ),
            settle,
        )

    def _fire(self, hot: _Hot, body: bytes, settle: Callable[[Answer], None]) -> NothingToDo | None:
        services = self.gate.services
        assert isinstance(hot.entity, Trigger)
        services.fire.charge(hot.identity)
        firing = Firing(
            identity=hot.identity,
            trigger=hot.entity,
            body=body,
            headers=hot.headers,
            transid=hot.transid,
            received_ms=services.clock.now_ms(),
        )
        return services.fire.start(firing, settle)

    # ── the answer ──────────────────────────────────────────────────────────────────────────────────────────────

    def _finish(self, hot: _Hot, answer: HttpAnswer) -> None:
        """Sends the answer in the form that is asked for."""
        if hot.is_timed:
            answer = timing.timed(answer)
        if len(answer.body) >= self.gate.compress_bytes and encoding.may_vary(answer, 0):
            if not hot.accepts_gzip:
                answer = encoding.plain(answer)
            elif len(answer.body) <= encoding.AT_ONCE_BYTES:
                answer = encoding.compressed(answer)
            else:
                self._go_on(self._finish_compressed(hot, answer))
                return
        self._deliver(hot, answer)

    def _go_on(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _finish_compressed(self, hot: _Hot, answer: HttpAnswer) -> None:
        self._deliver(hot, await asyncio.to_thread(encoding.compressed, answer))

    def _deliver(self, hot: _Hot, answer: HttpAnswer) -> None:
        """Sends the answer, if the client is still there, and lets the connection's next request begin."""
        hot.response_complete = True
        if hot.disconnected or self.transport.is_closing():
            return
        keep_alive = hot.keep_alive and (not self.gate.is_ending or bool(self.pipeline))
        self._send(answer, hot.transid, keep_alive=keep_alive)
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()

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

    async def stream(self, hot: _Hot, parts: _Parts, reader: Reader) -> None:
        """Sends parts as they come, in chunks; an action that fails in the middle ends the connection before."""
        streams = self.gate.services.streams
        taken: list[bytes] | None = await reader.next() or []
        head, left = web.streamed_head(taken or [b'""'], parts.extension, parts.cors, parts.id)
        hot.response_started = True
        self.transport.write(self._head_of(head, hot.transid) + b"\r\nTransfer-Encoding: chunked\r\n\r\n")
        while taken is not None and not (hot.disconnected or self.transport.is_closing()):
            sent = b"".join(map(web.chunk, left))
            if sent:
                self.transport.write(b"%x\r\n%b\r\n" % (len(sent), sent))
                async with asyncio.timeout(SEND_S):
                    await self.flow.drain()
            streams.taken(parts.id, sum(map(len, taken)))
            taken = await reader.next()
            left = taken or []
        if hot.disconnected or self.transport.is_closing():  # nobody reads: that is told, and the run goes on without
            hot.response_complete = True
            return
        outcome = await parts.answered
        hot.response_complete = True
        if hot.disconnected or self.transport.is_closing():
            return
        if not isinstance(outcome, Finished) or outcome.head.status != Status.SUCCESS:
            self.transport.close()
            return
        self.transport.write(b"0\r\n\r\n")
        if not hot.keep_alive:
            self.transport.close()
        self.on_response_complete()

    # ── the end of the server ───────────────────────────────────────────────────────────────────────────────────

    @property
    def is_sealed(self) -> bool:
        """Whether the connection is encrypted."""
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

    def end_after_answer(self) -> None:
        """The answer that is owed, if one is, is the last."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def _send(self, answer: HttpAnswer, id: str, *, keep_alive: bool) -> None:
        """One write: head and body together, unless the body is large enough that a copy would cost more."""
        body = answer.body
        parts = [self._head_of(answer, id)]
        if not keep_alive:
            parts.append(b"\r\nConnection: close")
        if answer.status in (204, 304):
            parts.append(b"\r\n\r\n")
        else:
            parts.append(b"\r\nContent-Length: %d\r\n\r\n" % len(body))
        if len(body) < JOINED_BODY_BYTES:
            parts.append(body)
            self.transport.write(b"".join(parts))
        else:
            self.transport.writelines((b"".join(parts), body))

    def _head_of(self, answer: HttpAnswer, id: str) -> bytes:
        """Without its last line end."""
        parts = [self.gate.start_of(answer, self.server_state.default_headers), id.encode()]
        if answer.activation_id is not None:
            parts += (_ACTIVATION_LINE, answer.activation_id.encode())
        if answer.headers is webaction.USUAL_CORS:
            parts.append(_WEB_CORS_LINES)
        else:
            parts += (f"\r\n{name}: {value}".encode("latin-1") for name, value in answer.headers)
        return b"".join(parts)


class _Parts:
    """Hears the parts of a web action's result; the first one makes its answer a stream."""

    __slots__ = ("_door", "_hot", "_reader", "answered", "cors", "extension", "id")

    def __init__(self, door: Door, hot: _Hot, extension: str, cors: tuple[tuple[str, str], ...]) -> None:
        self._door = door
        self._hot = hot
        self._reader: Reader | None = None
        self.extension = extension
        self.cors = cors
        self.id = ""
        self.answered: asyncio.Future[Answer]

    def begin(self, id: str) -> None:
        """The run has its id; it may be over already."""
        if not self._hot.response_complete:
            self.id = id
            self._door.gate.services.streams.enter(id, self)

    def offer(self, part: bytes) -> None:
        if self._reader is None:
            self._reader = Reader()
            self.answered = self._door.loop.create_future()
            task = self._door.loop.create_task(self._door.stream(self._hot, self, self._reader))
            self._door.tasks.add(task)
            task.add_done_callback(self._ended)
        self._reader.offer(part)

    def close(self) -> None:
        """Nothing more will be told."""
        if self._reader is not None:
            self._reader.close()

    def settle(self, answer: Answer) -> bool:
        """The run is over, or is not waited for any longer; whether the stream tells of it."""
        if self._reader is None:
            self._door.gate.services.streams.leave(self.id, is_over=True)
            return False
        if not isinstance(answer, Accepted):
            if not self.answered.done():
                self.answered.set_result(answer)
            self._reader.close()
        return True

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The stream is over, or its reader gone."""
        door = self._door
        door.tasks.discard(task)
        door.gate.services.streams.leave(self.id, is_over=self.answered.done())
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("door.stream_ended", transid=self._hot.transid, reason=repr(error))
            self._hot.response_complete = True
            door.transport.close()


_CORS_LINES = b"".join(f"{name}: {value}\r\n".encode() for name, value in CORS)
_WEB = webaction.PREFIX.encode()
_WEB_CORS_LINES = b"".join(f"\r\n{name}: {value}".encode() for name, value in webaction.USUAL_CORS)
_ACTIVATION_LINE = f"\r\n{ACTIVATION_ID}: ".encode()
