"""The port of a server: sockets that listen, connections that come and go, and their end in order.

Of the server library only the protocol of a connection is used, and what it shares. Its server would close what
listens, and idle connections, at a moment of its own; here neither is closed before it is known who has them next.

Nothing that a client sent may be lost when a server ends. Where a successor is there, it is given the sockets
themselves, and what is sent meanwhile waits in the kernel. Where none is, every answer says that it is the last
(`Connection: close`), and an idle connection is answered once more if a request comes soon (`ending.LINGER_S`). What is
sent later than that crosses our close on its way, as with any server: HTTP lets clients repeat it where they may.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from visp.api.door import bound
from visp.api.inside import INSIDE
from visp.api.socket import MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from visp.api.gate import Connection, Gate
    from visp.api.inside import Inside
    from visp.api.routes import Site
    from visp.edge.tls import Certificates, Entrance

BACKLOG = 4096
FLUSH_S = 0.005


class Listening:
    """What a server has to do with its clients' connections; nothing of it before `begin`."""

    def __init__(self, gate: Gate, site: Site, certificates: Certificates | None = None) -> None:
        """With `certificates` whoever connects has to speak TLS, but for containers at their doors."""
        protocol: Any = bound(gate)
        self._gate = gate
        self._config = Config(
            site,
            http=protocol,
            ws="none",  # the door loads what speaks it when somebody asks
            ws_max_size=MESSAGE_BYTES,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        self._config.load()
        self._protocol = protocol
        self._state = ServerState()
        self._loop = asyncio.get_running_loop()
        self._servers: list[asyncio.Server] = []
        self._inside: set[asyncio.Server] = set()
        self._dating: asyncio.TimerHandle | None = None
        self._entrance: Entrance | None = None
        if certificates is not None:
            from visp.edge.tls import Entrance

            self._entrance = Entrance(certificates, self._make_chosen, gate.has_room, gate.http.head_timeout_s)
            gate.services.metrics.add(certificates.measured)

    async def begin(self, listeners: Iterable[socket.socket], connections: Iterable[socket.socket] = ()) -> None:
        """Accepts on these sockets, which stay their owner's, and takes over these connections."""
        self._gate.is_ending = False
        self._gate.on_idle = None
        if self._dating is None:
            self._date()
        for listener in listeners:
            if self._entrance is not None:
                self._entrance.open(listener.dup(), BACKLOG)
            else:
                self._servers.append(await self._loop.create_server(self._make, sock=listener.dup(), backlog=BACKLOG))
        for connection in connections:
            await self._adopt(connection)

    def _make(self, inside: Inside | None = None) -> asyncio.Protocol:
        state = {} if inside is None else {INSIDE: inside}
        made: asyncio.Protocol = self._protocol(self._config, self._state, state, self._loop)
        return made

    def _make_chosen(self, chosen: str | None) -> asyncio.Protocol:
        from visp.edge.tls import HTTP2

        if chosen != HTTP2:
            return self._make()
        from visp.api.http2 import Http2  # for the first who speaks it

        return Http2(self._gate, self._config, self._state, self._loop)

    async def answer_inside(self, door: socket.socket, inside: Inside | None) -> asyncio.Server:
        """Answers at a door, which stays its owner's, until what is returned is closed; None: it is no container's."""
        server = await self._loop.create_server(lambda: self._make(inside), sock=door.dup())
        self._inside.add(server)
        self._inside = {each for each in self._inside if each.is_serving()}
        return server

    async def _adopt(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, connection)
        except OSError:  # the client has left meanwhile
            connection.close()

    def _date(self) -> None:
        """The headers that every answer has: renewed each second, not for each answer."""
        now = formatdate(time.time(), usegmt=True).encode()
        self._state.default_headers = [(b"date", now), *self._config.encoded_headers]
        self._dating = self._loop.call_later(1.0, self._date)

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def requests(self) -> int:
        """How many connections have a request under way."""
        return sum(not door.is_idle for door in self._gate.doors)

    @property
    def connections(self) -> int:
        known = len(self._gate.doors) + len(self._gate.sockets)
        return known + (0 if self._entrance is None else self._entrance.shaking)

    @property
    def is_sealed(self) -> bool:
        """Whether connections are encrypted: what only this process knows of them cannot be given away."""
        return self._entrance is not None

    def pause(self) -> None:
        """Accepts nothing any more; what listens is still there, and new connections wait in its queue."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._entrance is not None:
            self._entrance.pause()

    async def accept_rest(self, listeners: Iterable[socket.socket]) -> None:
        """Takes who is in the queues of sockets that will be closed: closing would turn them away."""
        for listener in listeners:
            listener.setblocking(False)
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    break
                connection.setblocking(False)
                if self._entrance is not None:
                    self._entrance.take(connection)
                else:
                    await self._adopt(connection)

    def end_connections(self) -> None:
        """From now on each connection's next answer is its last; who speaks WebSocket is told to come again."""
        self._gate.is_ending = True
        for door in self._gate.doors:
            door.end_after_answer()
        for framing in list(self._gate.sockets):
            framing.shutdown()

    def close_idle(self) -> None:
        for door in [door for door in self._gate.doors if door.is_idle]:
            door.end_idle()

    def give(self, to: Callable[[socket.socket], None]) -> None:
        """Each connection goes to `to` as soon as nothing is under way on it; so do those that are idle now.

        Encrypted ones stay: each ends with its next answer.
        """

        def release(door: Connection) -> None:
            transport = door.transport
            if transport.is_closing() or door.inside is not None:  # containers end with this server
                return
            if door.is_sealed:
                return
            transport.pause_reading()  # what comes from now on is for whoever has the connection next
            if transport.get_write_buffer_size():
                self._loop.call_later(FLUSH_S, release, door)
                return
            connection = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
            transport.close()
            to(connection)

        self._gate.on_idle = release
        if self.is_sealed:
            self.end_connections()
        for door in [door for door in self._gate.doors if door.is_idle]:
            release(door)

    def cut(self) -> None:
        """Ends what is still under way: its client sees the connection closed, and no half answer as a whole one."""
        if self._entrance is not None:
            self._entrance.cut()
        for task in list(self._state.tasks):
            task.cancel()
        for door in list(self._gate.doors):
            door.transport.close()

    def close(self) -> None:
        """Nothing of it is left, but what `cut` has to say."""
        self.pause()
        for server in self._inside:
            server.close()
        self._inside.clear()
        if self._dating is not None:
            self._dating.cancel()
            self._dating = None
