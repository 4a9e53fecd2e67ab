"""What all connections of a server share: services, known heads, the beginnings of answers, and the sweep."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from visp.api.errors import CORS
from visp.api.hot import Target
from visp.api.turns import Turns
from visp.entity.network import parse_networks

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.api.context import Services
    from visp.api.errors import HttpAnswer
    from visp.api.framing import Framing
    from visp.api.hot import Head
    from visp.api.inside import Inside

HEADS_LIMIT = 10_000
OPEN_HEADS_LIMIT = 1_000
"""Of requests that anybody may make, with any query: what is known of such a head is several times longer."""
STARTS_LIMIT = 1_000
"""Kinds of answers: web actions may give any content type."""
SWEEP_S = 1.0
LINGER_S = 2.0
"""How long a refused client may go on sending: closing at once could take the answer from under its nose."""

CORS_LINES = b"".join(f"{name}: {value}\r\n".encode() for name, value in CORS)


class Connection(Protocol):
    """One that is counted. What it waits for is late, or stuck, at a time of the clock; 0: it waits for nothing."""

    transport: asyncio.Transport
    inside: Inside | None
    late_at_s: float
    stuck_at_s: float

    @property
    def is_sealed(self) -> bool:
        """Whether it is encrypted."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way: no part of a request has been read, and no answer is owed."""
        ...

    def end_after_answer(self) -> None:
        """The answer that is owed, if one is, is the last."""

    def end_idle(self) -> None:
        """Ends it: nothing is under way."""

    def give_up(self) -> None:
        """The client is too slow: the connection ends, once what was sent before is taken."""

    def cut_if_stuck(self) -> None:
        """Ends the connection at once, unless something was taken since it was looked at last."""


class Heads:
    """Heads as they came, from the request line to the empty line: clients send the same one again and again."""

    def __init__(self) -> None:
        self.known: dict[bytes, Head] = {}
        self._open = 0

    def remember(self, raw: bytes, head: Head) -> None:
        """From now on this head is not parsed again. The table is emptied when it is full."""
        is_open = not isinstance(head.target, Target)
        self._open += is_open
        if len(self.known) >= HEADS_LIMIT or self._open > OPEN_HEADS_LIMIT:
            self.known.clear()
            self._open = int(is_open)
        self.known[raw] = head


class Gate:
    """One for a server."""

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
        self.doors: set[Connection] = set()
        self.sockets: set[Framing] = set()
        """Connections that speak WebSocket by now."""
        self.streams = 0
        """Requests by HTTP/2 that are under way."""
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
        self.on_idle: Callable[[Connection], None] | None = None
        """Hears of each connection on which nothing is under way any more."""

    def has_room(self, more: int = 0) -> bool:
        """Whether there may be another connection, beside so `more` that are not here yet."""
        return len(self.doors) + len(self.sockets) - self.inside + more < self.http.connections

    def has_room_for_stream(self) -> bool:
        """Whether there may be another request by HTTP/2: so many as there may be connections, on however few."""
        return self.streams < self.http.connections

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
                lines.append(CORS_LINES)
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
