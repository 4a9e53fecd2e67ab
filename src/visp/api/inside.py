"""How containers reach what is theirs to reach: each through doors of its own.

A door is a socket that listens in a container's own network; so it is known of every connection which container it
comes from, and for whom that runs. One leads to the platform: whoever answers for the server answers there too. Others
lead to services that an operator lets some namespaces use.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from visp.telemetry import log

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from visp.entity.relay import Relay
    from visp.entity.subject import Identity

    Answer = Callable[[socket.socket, "Inside"], Awaitable[asyncio.Server]]

INSIDE = "inside"
"""Where the state of a connection says that it came through a container's door."""
CONNECTIONS = 32
"""Of one container at once."""
CONNECT_S = 10.0
PIECE_BYTES = 64 * 1024


class Inside:
    """Whoever connects through one container's doors. `namespace` says for whom it runs; None: for nobody yet."""

    def __init__(self, namespace: Callable[[], str | None]) -> None:
        self.namespace = namespace
        self.connections = 0

    def may_use(self, identity: Identity) -> bool:
        """Whether the well-known key may be used: by its own namespace's containers."""
        return self.namespace() == identity.namespace


class Doors:
    """Doors come when containers do; until someone answers, those who knock wait."""

    def __init__(self, relays: Mapping[int, Relay]) -> None:
        self._relays = relays
        self._answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()

    def answered_by(self, answer: Answer) -> None:
        """`answer` gives what answers at a door to the platform until it is closed."""
        if not self._answer.done():
            self._answer.set_result(answer)

    def open(
        self, doors: Sequence[socket.socket], until: asyncio.Future[Any], namespace: Callable[[], str | None]
    ) -> None:
        """Has a container's doors answered until it has ended."""
        if doors:
            task = asyncio.ensure_future(self._serve(doors, until, Inside(namespace)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, doors: Sequence[socket.socket], until: asyncio.Future[Any], inside: Inside) -> None:
        answer = await asyncio.shield(self._answer)
        try:
            for door in doors:
                relay = self._relays.get(door.getsockname()[1])
                if relay is None:
                    server = await answer(door, inside)
                else:
                    server = await asyncio.start_server(partial(_relay, relay, inside), sock=door.dup())
                until.add_done_callback(partial(_close, server))
        except OSError as error:
            if not until.done():
                log.error("doors.not_answered", reason=str(error))

    def close(self) -> None:
        """Nobody will answer at doors that still wait."""
        for task in self._tasks:
            task.cancel()


def _close(server: asyncio.Server, _: object) -> None:
    server.close()


async def _relay(relay: Relay, inside: Inside, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carries one connection on to where it leads, if it may be."""
    with contextlib.closing(writer):
        namespace = inside.namespace()
        if namespace not in relay.namespaces or inside.connections >= CONNECTIONS:
            return
        inside.connections += 1
        try:
            async with asyncio.timeout(CONNECT_S):
                there, back = await asyncio.open_connection(relay.host, relay.port)
        except (OSError, TimeoutError) as error:
            log.warning("doors.not_relayed", namespace=namespace, to=f"{relay.host}:{relay.port}", reason=repr(error))
            inside.connections -= 1
            return
        with contextlib.closing(back):
            try:
                await asyncio.gather(_carry(reader, back), _carry(there, writer))
            except OSError:
                pass  # either side has left
            finally:
                inside.connections -= 1


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Everything that comes, as fast as it is taken."""
    while piece := await reader.read(PIECE_BYTES):
        writer.write(piece)
        await writer.drain()
    writer.write_eof()
