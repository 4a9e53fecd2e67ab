"""The port for plain http beside an encrypted one: everything that asks there is sent to https.

What was sent is not looked at beyond its first line and `Host`; nothing of it is logged, for it may hold a key that
should never have come this way.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from visp import premises, wording
from visp.api.heads import HeadRefused, check_head

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Iterator

    from visp.settings import Settings

HEAD_BYTES = 16 * 1024
HEAD_S = 10.0
CONNECTIONS = 1000
"""At once; one more is closed."""
HTTPS_PORT = 443

_LINE = re.compile(rb"[A-Z]{1,16} (\S+) HTTP/(1\.[01])\Z")


def answer(head: bytes, port: int) -> bytes:
    """What a request's head is answered with, `port` being where https is spoken. Pure."""
    first, *lines = head.split(b"\r\n")
    found = _LINE.match(first)
    fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    hosts = [value for name, value in fields if name == b"host"]
    try:
        if found is None or not hosts:
            raise HeadRefused(400, wording.NOT_HTTP)
        check_head(found[1], [(b"host", host) for host in hosts], found[2].decode())
        host = urlsplit(f"//{hosts[0].decode()}").hostname
        if not host:
            raise HeadRefused(400, wording.HOST_NOT_SINGLE)
    except (HeadRefused, ValueError):
        return _made("400 Bad Request")
    shown = f"[{host}]" if ":" in host else host
    at = shown if port == HTTPS_PORT else f"{shown}:{port}"
    return _made("308 Permanent Redirect", f"Location: https://{at}{found[1].decode()}\r\n")


def _made(status: str, more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n".encode()


class _Redirected(asyncio.Protocol):
    """One connection: a head, an answer, the end."""

    def __init__(self, port: int, connections: set[_Redirected]) -> None:
        self._port = port
        self._connections = connections
        self._head = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        if len(self._connections) >= CONNECTIONS:
            transport.close()
            return
        self._connections.add(self)
        self._late = asyncio.get_running_loop().call_later(HEAD_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        self._head += data
        head, end, _ = self._head.partition(b"\r\n\r\n")
        if not end and len(self._head) <= HEAD_BYTES:
            return
        self._transport.write(answer(head, self._port) if end and len(head) <= HEAD_BYTES else _made("400 Bad Request"))
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._connections:
            self._connections.discard(self)
            self._late.cancel()


@contextlib.contextmanager
def bound(settings: Settings, *, is_takeover: bool) -> Iterator[socket.socket | None]:
    """The socket, None where no such port is wanted. Raises `CannotStart`.

    Between two servers it is bound by both for a moment, so that nobody is refused; else by one alone.
    """
    port = settings.tls.redirect_port
    if not port:
        yield None
        return
    at = msgspec.structs.replace(settings, port=port)
    if not is_takeover:
        with premises.listening(at, setting="tls.redirect_port"):
            pass
    with premises.listening(at, is_shared=True, setting="tls.redirect_port") as listener:
        listener.listen()  # who comes before this server serves waits
        yield listener


@contextlib.asynccontextmanager
async def redirecting(listener: socket.socket | None, port: int) -> AsyncIterator[None]:
    """Sends everyone who comes there to https at `port`, for the block."""
    if listener is None:
        yield
        return
    connections: set[_Redirected] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Redirected(port, connections), sock=listener.dup())
    try:
        yield
    finally:
        server.close()
