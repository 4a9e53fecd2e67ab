"""A connection that speaks WebSocket: the server library's protocol, counted by the gate as any other connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

if TYPE_CHECKING:
    import asyncio

    from visp.api.door import Gate
    from visp.api.inside import Inside


class Framing(WebSocketsSansIOProtocol):
    """One connection, from the handshake on."""

    def __init__(self, *given: Any, gate: Gate, inside: Inside | None, **named: Any) -> None:
        super().__init__(*given, **named)
        self._gate = gate
        self._inside = inside

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._gate.sockets.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gate.sockets.discard(self)
        if self._inside is not None:
            self._inside.connections -= 1
            self._gate.inside -= 1
        super().connection_lost(exc)
