"""How containers reach what is theirs to reach: each through doors of its own.

A door is a socket that listens in a container's own network; so it is known of every connection which container it
comes from, and for whom that runs. One leads to the platform: whoever answers for the server answers there too. One
leads to the proxy through which the internet is reached. Others lead to services that an operator lets some namespaces
use.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from visp.entity.network import INTERNET
from visp.entity.relay import PROXY_PORT
from visp.telemetry import log

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from visp.entity.network import Policy
    from visp.entity.relay import Relay
    from visp.entity.subject import Identity

    WayOut = Callable[[socket.socket, "Inside"], Awaitable["Answering"]]
    Answer = Callable[[socket.socket, "Inside | None"], Awaitable["Answering"]]

INSIDE = "inside"
"""Where the state of a connection says that it came through a container's door."""
CONNECTIONS = 32
"""Of one container at once."""
CONNECT_S = 10.0
PIECE_BYTES = 64 * 1024


class Answering(Protocol):
    """What answers at a door until it is closed."""

    def close(self) -> None: ...


class Inside:
    """Whoever connects through one container's doors. `namespace` says for whom it runs; None: for nobody yet.

    `policy` is what its action asks to reach.
    """

    def __init__(self, namespace: Callable[[], str | None], policy: Callable[[], Policy]) -> None:
        self.namespace = namespace
        self.policy = policy
        self.connections = 0

    def may_use(self, identity: Identity) -> bool:
        """Whether the well-known key may be used: by its own namespace's containers."""
        return self.namespace() == identity.namespace


class Doors:
    """Doors come when containers do; until someone answers, those who knock wait."""

    def __init__(self, relays: Mapping[int, Relay]) -> None:
        self._relays = relays
        self._answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._way_out: WayOut | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def answered_by(self, answer: Answer) -> None:
        """`answer` gives what answers at a door to the platform until it is closed."""
        if not self._answer.done():
            self._answer.set_result(answer)

    async def answer_own(self, door: socket.socket) -> Answering:
        """Answers at a socket on loopback by which this process fires triggers.

        Others of this machine reach it too, web pages in its browsers among them: so it is no more than the port is.
        """
        answer = await asyncio.shield(self._answer)
        return await answer(door, None)

    def lead_out(self, way_out: WayOut) -> None:
        """`way_out` gives what answers at a door to the internet; before containers are made."""
        self._way_out = way_out

    def open(
        self,
        doors: Sequence[socket.socket],
        until: asyncio.Future[Any],
        namespace: Callable[[], str | None],
        policy: Callable[[], Policy] = lambda: INTERNET,
    ) -> None:
        """Has a container's doors answered until it has ended. `policy` narrows what its namespace may reach."""
        if doors:
            task = asyncio.ensure_future(self._serve(doors, until, Inside(namespace, policy)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, doors: Sequence[socket.socket], until: asyncio.Future[Any], inside: Inside) -> None:
        answer = await asyncio.shield(self._answer)
        try:
            for door in doors:
                port = door.getsockname()[1]
                relay = self._relays.get(port)
                server: Answering
                if relay is None:
                    server = await (self._way_out if port == PROXY_PORT and self._way_out else answer)(door, inside)
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


def _close(server: Answering, _: object) -> None:
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
