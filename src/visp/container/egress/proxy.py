"""A forward proxy for containers, which checks where every connection leads when it is made.

It listens at a door of each container's own, so it is known for whom a connection is. A name is looked up once, each
of its addresses is checked, and what is connected with is the address that was checked: a name that means something
else the second time gains nothing. Bytes are carried as they come; nothing of them is kept or looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import weakref
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import msgspec

from visp import wording
from visp.container.egress import surroundings
from visp.container.egress.request import HEAD_BYTES, Asked, Malformed, closing, parse
from visp.entity.network import Address, Policy, is_opened
from visp.telemetry import log
from visp.telemetry.metrics import Family, Tally

if TYPE_CHECKING:
    from visp.entity.network import Opening
    from visp.settings import Network

CONNECTIONS = "visp_egress_connections_total"
OPEN = "visp_egress_connections"
BYTES = "visp_egress_bytes_total"

HEAD_S = 10.0
LOOKUP_S = 10.0
CONNECT_S = 10.0
LINGER_S = 1.0
LOOKUPS, LOOKUP_THREADS = 4, 16
"""Names that one container has looked up at once, and all of them."""
ADDRESSES = 4
"""Of one name, so many are tried."""
PIECE_BYTES = 64 * 1024

Lookup = Callable[[str, int], Sequence[Address]]


class Guest(Protocol):
    """Whose container it is: None for nobody's yet; and what its action asks for itself."""

    @property
    def namespace(self) -> Callable[[], str | None]: ...

    @property
    def policy(self) -> Callable[[], Policy]: ...


class Refused(Exception):
    """No connection: `status` and sentence for the client, `reason` for the count."""

    def __init__(self, status: int, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason


class Proxy:
    """One for all containers. `policy_of` says what a namespace may reach."""

    def __init__(
        self,
        limits: Network,
        openings: Sequence[Opening],
        policy_of: Callable[[str], Awaitable[Policy]],
        look_up: Lookup | None = None,
        is_open: Callable[[Address], bool] | None = None,
    ) -> None:
        self._limits = limits
        self._openings = openings
        self._policy_of = policy_of
        self._look_up = look_up or look_up_here
        self._is_open = is_open or surroundings.is_open
        self._threads = ThreadPoolExecutor(LOOKUP_THREADS, "egress")
        self._ways: weakref.WeakSet[Way] = weakref.WeakSet()
        self._outcomes = Tally()
        self._bytes = {"out": 0, "in": 0}
        self.open = 0

    def __repr__(self) -> str:
        return f"<Proxy open={self.open} bytes={self._bytes}>"

    async def answer(self, door: socket.socket, guest: Guest) -> Way:
        """Answers at a container's door until what is returned is closed."""
        way = Way(self, guest)
        self._ways.add(way)
        way.server = await asyncio.start_server(way.serve, sock=door.dup(), limit=HEAD_BYTES)
        return way

    def close(self) -> None:
        for way in list(self._ways):
            way.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def measured(self) -> list[Family]:
        """What was counted, for a scrape."""
        return [
            Family(
                CONNECTIONS,
                "Connections that actions asked the proxy for: allowed, or why not (busy, malformed, policy, closed, "
                "unknown, unreachable).",
                "counter",
                self._outcomes.samples(),
                ("result",),
            ),
            Family(OPEN, "Connections of actions through the proxy.", "gauge", {(): self.open}),
            Family(
                BYTES,
                "Bytes that the proxy carried, out of containers and in.",
                "counter",
                {(direction,): count for direction, count in self._bytes.items()},
                ("direction",),
            ),
        ]

    # ── for its ways ────────────────────────────────────────────────────────────────────────────────────────────

    def count(self, result: str) -> None:
        self._outcomes.add(result)

    def carried(self, direction: str, count: int) -> None:
        self._bytes[direction] += count

    @property
    def limits(self) -> Network:
        return self._limits

    async def connect(self, asked: Asked, guest: Guest, turn: asyncio.Semaphore) -> socket.socket:
        """A connection with what was asked for, if the guest may have it; raises `Refused`."""
        namespace = guest.namespace()
        if namespace is None:
            raise Refused(403, "policy", wording.not_permitted(asked.target, "none"))
        for policy in (guest.policy(), await self._policy_of(namespace)):
            if not policy.permits(asked.host, asked.port):
                raise Refused(403, "policy", wording.not_permitted(asked.target, str(policy)))
        addresses = await self._addresses(asked, namespace, turn)
        problem: Exception | None = None
        for address in addresses[:ADDRESSES]:
            try:
                return await _connected(address, asked.port)
            except (OSError, TimeoutError) as error:
                problem = error
        raise Refused(502, "unreachable", wording.no_way_to(asked.target, _words(problem)))

    async def _addresses(self, asked: Asked, namespace: str, turn: asyncio.Semaphore) -> list[Address]:
        """Those that may be connected with: each was checked, whatever it is called."""
        loop = asyncio.get_running_loop()
        try:
            async with turn, asyncio.timeout(LOOKUP_S):
                opened = await loop.run_in_executor(self._threads, self._find, asked, namespace)
        except (OSError, UnicodeError, TimeoutError):
            raise Refused(502, "unknown", wording.not_found_out(asked.target)) from None
        if not opened:
            raise Refused(403, "closed", wording.network_closed(asked.target))
        return opened

    def _find(self, asked: Asked, namespace: str) -> list[Address]:
        """In a thread."""
        found = self._look_up(asked.host, asked.port) if isinstance(asked.host, str) else (asked.host,)
        return [
            address
            for address in dict.fromkeys(found)
            if is_opened(address, asked.port, namespace, self._openings) or self._is_open(address)
        ]


class Way:
    """One container's way out: its connections end with it."""

    def __init__(self, proxy: Proxy, guest: Guest) -> None:
        self.server: asyncio.Server | None = None
        self._proxy = proxy
        self._guest = guest
        self._turn = asyncio.Semaphore(LOOKUPS)
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        if self.server is not None:
            self.server.close()
        for task in list(self._tasks):
            task.cancel()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its head to its end."""
        task, proxy = asyncio.current_task(), self._proxy
        assert task is not None
        self._tasks.add(task)
        proxy.open += 1
        try:
            if len(self._tasks) <= 2 * proxy.limits.connections:  # those beyond are not even told
                await self._conduct(reader, writer)
        except Refused as refused:
            proxy.count(refused.reason)
            with contextlib.suppress(OSError, TimeoutError):
                await _tell(refused, reader, writer)
        except (OSError, TimeoutError, EOFError):
            pass  # either side has left, or has nothing to say
        except asyncio.CancelledError:
            writer.transport.abort()  # the container has ended
        except Exception as error:  # whatever goes wrong with one connection is its own
            log.error("egress.failed", namespace=self._guest.namespace(), reason=repr(error))
        finally:
            proxy.open -= 1
            self._tasks.discard(task)
            writer.close()

    async def _conduct(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy, limits = self._proxy, self._proxy.limits
        limit = limits.connections if len(self._tasks) > limits.connections else limits.all_connections
        if len(self._tasks) > limits.connections or proxy.open > limits.all_connections:
            raise Refused(503, "busy", wording.too_many_ways(limit))
        try:
            async with asyncio.timeout(HEAD_S):
                asked = parse(await reader.readuntil(b"\r\n\r\n"))
        except Malformed as error:
            raise Refused(400, "malformed", str(error)) from None
        except asyncio.LimitOverrunError:
            raise Refused(431, "malformed", f"the head is longer than {HEAD_BYTES} bytes") from None
        sock = await proxy.connect(asked, self._guest, self._turn)
        proxy.count("allowed")
        there, back = await asyncio.open_connection(sock=sock, limit=PIECE_BYTES)
        try:
            if asked.head is None:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                back.write(asked.head)
            async with _Patience(limits.idle_s) as patience, asyncio.TaskGroup() as tasks:
                tasks.create_task(self._carry(reader, back, "out", patience))
                tasks.create_task(self._carry(there, writer, "in", patience, is_answer=asked.head is not None))
        except* (OSError, TimeoutError, EOFError, Malformed, asyncio.LimitOverrunError):
            pass
        finally:
            back.transport.abort() if writer.is_closing() else back.close()

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        direction: str,
        patience: _Patience,
        *,
        is_answer: bool = False,
    ) -> None:
        """Everything that comes, as fast as it is taken."""
        status = 0 if is_answer else 200
        while status < 200:  # an origin says that it goes on, perhaps more than once
            status, head = closing(await reader.readuntil(b"\r\n\r\n"))
            writer.write(head)
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
            self._proxy.carried(direction, len(piece))
            patience.renew()
        if is_answer:
            raise EOFError  # the answer is over, and with it the connection
        writer.write_eof()


class _Patience:
    """A block that ends with `TimeoutError` once nothing has come for so long."""

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        self._timeout = asyncio.timeout(idle_s)

    def renew(self) -> None:
        self._timeout.reschedule(asyncio.get_running_loop().time() + self._idle_s)

    async def __aenter__(self) -> _Patience:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._timeout.__aexit__(*exc)  # type: ignore[arg-type]


def look_up_here(host: str, port: int) -> Sequence[Address]:
    """What the host's resolver says. Blocks; raises `OSError`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in found]


async def _connected(address: Address, port: int) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(CONNECT_S):
            await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
    except BaseException:
        sock.close()
        raise
    return sock


async def _tell(refused: Refused, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What is closed with something unread is reset, and the answer lost: so what still comes is read for a while."""
    writer.write(_answer(refused))
    writer.write_eof()
    async with asyncio.timeout(LINGER_S):
        while await reader.read(PIECE_BYTES):
            pass


def _words(error: Exception | None) -> str:
    return (isinstance(error, OSError) and error.strerror) or f"no answer within {CONNECT_S:g} s"


def _answer(refused: Refused) -> bytes:
    body = msgspec.json.encode({"error": str(refused)})
    reason = {400: "Bad Request", 403: "Forbidden", 431: "Request Header Fields Too Large", 502: "Bad Gateway"}
    head = (
        f"HTTP/1.1 {refused.status} {reason.get(refused.status, 'Service Unavailable')}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
