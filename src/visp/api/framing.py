"""A connection that speaks WebSocket: the server library's protocol, counted by the gate as any other connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

if TYPE_CHECKING:
    import asyncio

    from visp.api.gate import Gate
    from visp.api.inside import Inside
    from visp.api.origin import Origin


class Framing(WebSocketsSansIOProtocol):
    """One connection, from the handshake on."""

    def __init__(self, *given: Any, gate: Gate, inside: Inside | None, origin: Origin | None, **named: Any) -> None:
        """`origin` is what a trusted proxy said of the client, None where none is before it."""
        super().__init__(*given, **named)
        self._gate = gate
        self._inside = inside
        self._origin = origin

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._gate.sockets.add(self)
        super().connection_made(transport)
        if self._origin is not None:
            client = self._origin.client
            self.client = None if client is None else (client, 0)
            self.scheme = "wss" if self._origin.scheme == "https" else "ws"

    def connection_lost(self, exc: Exception | None) -> None:
        self._gate.sockets.discard(self)
        if self._inside is not None:
            self._inside.connections -= 1
            self._gate.inside -= 1
        super().connection_lost(exc)
