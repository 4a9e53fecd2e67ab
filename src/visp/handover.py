"""How a running server gives way to a new one: over a Unix socket in the data folder, without a refused connection.

```
new                                       old
connects                                ─▶
                                        ◀─ hello: its pid, where it listens, or why it cannot give way
rehearsed before; goes only if all fits ─▶ go
                                        ◀─ listeners: from now on new connections wait in their queues
                                        ◀─ connections, each as soon as nothing is under way on it
                                           … what is in flight comes to its end …
                                        ◀─ closed: stores and locks are free
opens the stores, serves                ─▶ serving
                                           ends
```

Sockets themselves change hands (`SCM_RIGHTS`), open connections too: what a client sends meanwhile waits in the kernel
and is read by whoever has the connection next. So none is closed, and there is no moment at which a request could be
lost. Whichever process ends before its last word gives everything back: the old one keeps a copy of each socket until
it hears `serving`, and goes on when it hears the end of the line.

Only processes of the server's own user are spoken to, whatever the folder's mode.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from struct import Struct
from typing import TYPE_CHECKING, Literal

import msgspec

from visp.premises import CannotStart
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

SOCKET = "handover.sock"
MODE = 0o600
BATCH = 200
"""Descriptors of one message; the kernel takes 253."""
MESSAGE_BYTES = 64 * 1024
HELLO_S = 10.0
GO_S = 10.0
"""How long a new server may take to decide; all that takes long it has done before it asks."""
SERVING_S = 60.0
"""How long a new server that has everything may take to say that it serves, before the old one goes on."""
CLOSING_S = 30.0
"""How much longer than its own bound the old server may take to close what it has."""

_CREDENTIALS = Struct("3i")


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One word of the conversation. `within_s` says how long its sender may take until the next one that matters."""

    what: Literal[
        "hello", "go", "listeners", "connections", "closed", "serving", "leave", "hurry", "stay", "idle", "reload"
    ]
    pid: int = 0
    addresses: tuple[tuple[str, int], ...] = ()
    refusal: str = ""
    within_s: float = 0.0
    is_handover: bool = False


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Message).decode

Received = tuple[Message, list[socket.socket]]


class Line:
    """One end of a conversation: whole messages, in order, with sockets. Used on the event loop."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._sending = asyncio.Lock()
        self.is_closed = False

    async def send(self, message: Message, sockets: Sequence[socket.socket] = ()) -> bool:
        """Whether the other end is still there. Many sockets go in several messages of the same words."""
        data = _encode(message)
        async with self._sending:
            for first in range(0, max(1, len(sockets)), BATCH):
                batch = [each.fileno() for each in sockets[first : first + BATCH]]
                while not self.is_closed:
                    try:
                        socket.send_fds(self._socket, [data], batch)
                        break
                    except BlockingIOError:
                        await self._until(self._loop.add_writer, self._loop.remove_writer)
                    except OSError:
                        return False
        return not self.is_closed

    async def receive(self) -> Received | None:
        """The next message, with its sockets; None when there will be none."""
        while not self.is_closed:
            try:
                return _receive(self._socket)
            except BlockingIOError:
                await self._until(self._loop.add_reader, self._loop.remove_reader)
        return None

    async def _until(
        self, watch: Callable[[int, Callable[[], None]], object], unwatch: Callable[[int], object]
    ) -> None:
        number = self._socket.fileno()
        ready: asyncio.Future[None] = self._loop.create_future()
        watch(number, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            unwatch(number)

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._socket.close()


def _receive(connection: socket.socket) -> Received | None:
    """One message; None at the end, and for what cannot be understood. Raises `BlockingIOError`."""
    try:
        data, numbers, flags, _ = socket.recv_fds(connection, MESSAGE_BYTES, BATCH, socket.MSG_CMSG_CLOEXEC)
    except (BlockingIOError, TimeoutError):
        raise
    except OSError:
        return None
    sockets = [socket.socket(fileno=number) for number in numbers]
    for each in sockets:
        each.set_inheritable(False)  # Python before 3.12 drops the flag above
    if flags & socket.MSG_CTRUNC:
        log.error("handover.too_many", reason="this process may not open so many files: some connections are lost")
    try:
        return (_decode(data), sockets) if data else None
    except msgspec.DecodeError:
        return None


# ── the old server ──────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def offered(data_dir: Path, greet: Callable[[], Message]) -> AsyncIterator[asyncio.Task[Line]]:
    """For the block, the server can be asked to give way; the task ends with the line to whoever said `go`.

    To be left before the data folder's lock is: the next server makes the same socket.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.setblocking(False)
    with _short(data_dir) as path:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener.bind(path)
        os.chmod(path, MODE)
    listener.listen()
    asking = asyncio.create_task(_asked(listener, greet))
    try:
        yield asking
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        listener.close()
        (data_dir / SOCKET).unlink(missing_ok=True)


async def _asked(listener: socket.socket, greet: Callable[[], Message]) -> Line:
    """One after the other: the first that may ask and goes on to say `go`."""
    loop = asyncio.get_running_loop()
    while True:
        connection, _ = await loop.sock_accept(listener)
        line = Line(connection)
        uid = peer_uid(connection)
        try:
            if uid != os.geteuid():
                log.error("handover.refused", uid=uid)
                await line.send(Message(what="hello", refusal=other_user(os.geteuid())))
            else:
                hello = greet()
                await line.send(hello)
                async with asyncio.timeout(GO_S):
                    answer = None if hello.refusal else await line.receive()
                if answer is not None and answer[0].what == "go":
                    log.info("handover.asked", pid=answer[0].pid)
                    return line
        except TimeoutError:
            pass
        except BaseException:
            line.close()
            raise
        line.close()


def hello(listeners: Sequence[socket.socket], unready: str | None) -> Message:
    """What a server says to whoever may ask: where it listens, or why it cannot give way."""
    where = tuple(dict.fromkeys(each.getsockname()[:2] for each in listeners))
    refusal = (
        "" if unready is None else f"the running server cannot give way now ({unready}): try again when it is ready"
    )
    return Message(what="hello", pid=os.getpid(), addresses=where, refusal=refusal)


def other_user(uid: int) -> str:
    return f"the running server belongs to the user with uid {uid}: take it over as that user"


def peer_uid(connection: socket.socket) -> int:
    """The user of the process at the other end."""
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)


class Leaver:
    """A server that has given everything away, and keeps a copy until the new one serves."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.kept: list[socket.socket] = []
        self.is_off = asyncio.Event()
        """The new one is gone before this one was: it goes on."""
        self._new: list[socket.socket] = []
        self._is_new = asyncio.Event()

    async def begin(self, listeners: Sequence[socket.socket], within_s: float) -> None:
        """Sends what listens; nothing accepts on it here any more."""
        if not await self.line.send(Message(what="listeners", within_s=within_s), listeners):
            self.is_off.set()

    def take(self, connection: socket.socket) -> None:
        """A connection that is to be sent, and kept."""
        self.kept.append(connection)
        self._new.append(connection)
        self._is_new.set()

    def give_up(self) -> None:
        """The new server is gone before this one was."""
        log.error("handover.failed", reason="the new server ended: this one goes on")
        self.line.close()

    @contextlib.asynccontextmanager
    async def sending(self, *, is_watched: bool = True) -> AsyncIterator[None]:
        """While the block lasts connections are sent, and the line may be watched; all are sent when it is left."""
        tasks = [asyncio.ensure_future(self._send_on())]
        if is_watched:
            tasks.append(asyncio.ensure_future(self._watch()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not self.is_off.is_set():
            await self._send()

    async def _send_on(self) -> None:
        while True:
            await self._is_new.wait()
            await asyncio.shield(self._send())

    async def _send(self) -> None:
        self._is_new.clear()
        new, self._new = self._new, []
        if new and not await self.line.send(Message(what="connections"), new):
            self.is_off.set()

    async def _watch(self) -> None:
        await self.line.receive()  # it has nothing to say before it is told that all is closed
        self.is_off.set()

    async def is_succeeded(self, stopping: asyncio.Event) -> bool:
        """Whether the new server serves, once it is told that everything is free. Then nothing is kept."""
        await self.line.send(Message(what="closed"))
        answer = asyncio.ensure_future(self.line.receive())
        stop = asyncio.ensure_future(stopping.wait())
        await asyncio.wait([answer, stop], timeout=SERVING_S, return_when=asyncio.FIRST_COMPLETED)
        received = answer.result() if answer.done() else None
        is_over = stop.done() or (received is not None and received[0].what == "serving")
        for task in (answer, stop):
            task.cancel()
        await asyncio.gather(answer, stop, return_exceptions=True)
        self.line.close()
        if is_over:
            for each in self.kept:
                each.close()
            log.info("handover.done")
        else:
            log.error("handover.failed", reason="the new server ended, or did not serve: this one goes on")
        return is_over


# ── the new server ──────────────────────────────────────────────────────────────────────────────────────────────


class Inheritance:
    """What a server begins with: sockets that listen, and connections that are open; none, for one that binds itself.

    `confirm` once it serves: until then the old server would go on. `is_return` says that this is the old server.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket] = (),
        connections: Sequence[socket.socket] = (),
        line: socket.socket | None = None,
        *,
        is_kept: bool = False,
        is_return: bool = False,
    ) -> None:
        self.is_return = is_return
        self.is_kept = is_kept
        """Whether somebody else keeps what listens: then who waits in its queue is the next server's."""
        self.listeners = list(listeners)
        self.connections = list(connections)
        self._line = line

    def confirm(self) -> None:
        """The old server may end."""
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.send(_encode(Message(what="serving", pid=os.getpid())))
            self._line.close()
            self._line = None


class Predecessor:
    """A running server that has said hello. Blocking: a new server does nothing else meanwhile."""

    def __init__(self, line: socket.socket, hello: Message) -> None:
        self._line = line
        self.pid = hello.pid
        self.addresses = hello.addresses

    @classmethod
    def find(cls, data_dir: Path) -> Predecessor | None:
        """The server of this data folder, if one runs. Raises `CannotStart` when it will not give way."""
        line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        line.settimeout(HELLO_S)
        try:
            with _short(data_dir) as path:
                line.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            line.close()
            return None
        except OSError as error:
            line.close()
            raise CannotStart(f"the running server of {data_dir} cannot be asked to give way: {error}") from None
        if (uid := peer_uid(line)) != os.geteuid():
            line.close()
            raise CannotStart(other_user(uid))
        try:
            received = _receive(line)
        except TimeoutError:
            received = None
        if received is None:
            line.close()
            raise CannotStart(
                f"the running server of {data_dir} does not answer: stop it, and start without --takeover"
            )
        if received[0].refusal:
            line.close()
            raise CannotStart(received[0].refusal)
        return cls(line, received[0])

    def take(self, *, is_kept: bool = False) -> Inheritance:
        """Asks it to go, and waits until the data folder is free. Raises `CannotStart`; then it goes on."""
        line, listeners, connections = self._line, list[socket.socket](), list[socket.socket]()
        try:
            line.send(_encode(Message(what="go", pid=os.getpid())))
            while (received := _receive(line)) is not None:
                message, sockets = received
                if message.what == "listeners":
                    listeners += sockets
                    line.settimeout(message.within_s + CLOSING_S)
                elif message.what == "connections":
                    connections += sockets
                elif message.what == "closed":
                    return Inheritance(listeners, connections, line, is_kept=is_kept)
            reason = "it went on instead; its log says why"
        except (TimeoutError, OSError) as error:
            reason = str(error) or "it took too long"
        line.close()
        for each in (*listeners, *connections):
            each.close()
        raise CannotStart(f"the running server (pid {self.pid}) did not give way: {reason}")

    def leave(self) -> None:
        """It may go on."""
        self._line.close()


@contextlib.contextmanager
def _short(data_dir: Path) -> Iterator[str]:
    """A short path to the socket: the address of a Unix socket has room for about a hundred characters."""
    folder = os.open(data_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET}"
    finally:
        os.close(folder)
