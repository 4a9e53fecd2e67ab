"""Who is connected by WebSocket: connections by id, in whichever shard they end.

A connection is its namespace's, and holds no container: what it says is an activation each time, and what it is told is
said here. An id names the shard that has the connection, as an activation's does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from visp import wording
from visp.entity.activation import keeper_of
from visp.errors import NotFound, Throttled

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.controller.abroad import Links

SAY = "sockets.say"
NAMESPACE_LIMIT = 10_000
"""Connections of one namespace in one shard."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, str, str, bytes]).decode
_YES, _NO = b"\1", b"\0"
TEXT, BYTES, CLOSE = "text", "bytes", "close"


class Socket(Protocol):
    """One connection. Neither call waits: what is too much for its reader ends it."""

    namespace: str

    def say(self, kind: str, data: bytes) -> None: ...


class Sockets:
    """Those of this shard, and the way to the others'."""

    def __init__(self) -> None:
        self._sockets: dict[str, Socket] = {}
        self._counts: dict[str, int] = {}
        self._links: Links | None = None

    def join(self, links: Links) -> None:
        """There are other shards."""
        self._links = links
        links.answer(SAY, self._asked)

    def add(self, id: str, socket: Socket) -> None:
        """Until `drop`. Raises `Throttled`."""
        count = self._counts.get(socket.namespace, 0)
        if count >= NAMESPACE_LIMIT:
            raise Throttled(wording.too_many_sockets(NAMESPACE_LIMIT))
        self._counts[socket.namespace] = count + 1
        self._sockets[id] = socket

    def drop(self, id: str) -> None:
        socket = self._sockets.pop(id, None)
        if socket is not None:
            self._counts[socket.namespace] -= 1
            if not self._counts[socket.namespace]:
                del self._counts[socket.namespace]

    def __len__(self) -> int:
        return len(self._sockets)

    async def say(self, namespace: str, id: str, kind: str, data: bytes) -> None:
        """Raises `NotFound` where the namespace has no such connection (any more), `StoreUnavailable`."""
        links = self._links
        keeper = 0 if links is None else keeper_of(id, links.count)
        if links is None or keeper == links.own:
            said = self._say(namespace, id, kind, data)
        elif keeper in links.up():
            said = await links.ask(keeper, SAY, _encode((namespace, id, kind, data))) == _YES
        else:
            said = False
        if not said:
            raise NotFound(wording.SOCKET_GONE)

    def _say(self, namespace: str, id: str, kind: str, data: bytes) -> bool:
        socket = self._sockets.get(id)
        if socket is None or socket.namespace != namespace:
            return False
        socket.say(kind, data)
        return True

    def _asked(self, _: int, body: bytes, reply: Callable[[bytes | None], None]) -> None:
        reply(_YES if self._say(*_decode(body)) else _NO)
