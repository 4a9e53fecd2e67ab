"""The connections between the shards of one machine: framed Unix sockets, one for each pair.

Each shard listens below the data folder, which only the server's user can enter, and takes no one of another uid; the
shard with the higher number connects, and goes on trying for as long as it lives. A link carries messages in the order
in which they were sent, and questions with their answers. What one turn of the event loop sends on a link leaves by one
write.

A peer that leaves `OUTBOX_BYTES` unread is taken for down: its link is closed, and what waited for it is told so.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from struct import Struct, error
from typing import TYPE_CHECKING

from visp.bus.frames import BadFrame, Unframer, frame
from visp.errors import Overloaded, StoreUnavailable
from visp.telemetry import log

if TYPE_CHECKING:
    from pathlib import Path

    from visp.clock import Clock

OUTBOX_BYTES = 64 * 1024 * 1024
QUESTIONS_LIMIT = 20_000
"""Questions that may be unanswered; one more is refused."""
UP_S = 2.0
"""How long a question waits for a peer that is down: a restart takes less."""
ANSWER_S = 30.0
HEARD_S = 5.0
"""A peer that has not heard of a change by then is taken for down."""
RETRY_S = 0.02
LAST_RETRY_S = 0.25

HELLO, MESSAGE, QUESTION, ANSWER, FAILED = range(5)

_CREDENTIALS = Struct("3i")
_NUMBER = Struct("<Q")

Reply = Callable[[bytes | None], None]
Answerer = Callable[[int, bytes, Reply], None]
"""Hears the peer's number, the question and where the answer goes, once, at once or later; None: there is none."""
OnAnswer = Callable[[bytes | None], None]
"""Called once, never from inside the call that asked: the answer, or None when there will be none."""


class _Link(asyncio.Protocol):
    """One connection; `peer` is known once it has said hello."""

    def __init__(self, links: Links, *, is_caller: bool) -> None:
        self._links = links
        self._is_caller = is_caller
        self._unframer = Unframer()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._transport: asyncio.Transport | None = None
        self.peer: int | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        if not is_own_uid(transport.get_extra_info("socket")):
            log.error("link.refused", reason="another user's process")
            transport.abort()
        elif self._is_caller:
            self._hello()

    def _hello(self) -> None:
        self.send(bytes([HELLO, self._links.own]))

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._unframer.feed(data):
                self._take(body)
        except (BadFrame, IndexError, ValueError, error) as reason:
            log.error("link.unreadable", peer=self.peer, reason=str(reason))
            self.abort()

    def _take(self, body: bytes) -> None:
        if self.peer is not None:
            self._links.heard(self, self.peer, body)
            return
        kind, peer = body
        if kind != HELLO or not self._links.is_peer(peer):
            raise BadFrame("no hello")
        self.peer = peer
        if not self._is_caller:
            self._hello()  # the caller is told that it was heard: from then on both know the link
        self._links.joined(self, peer)

    def send(self, body: bytes) -> None:
        """Sends at the end of this turn of the loop; raises `Overloaded` when too much is unread."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise Overloaded()
        if self._out_bytes + transport.get_write_buffer_size() > OUTBOX_BYTES:
            raise Overloaded()
        data = frame(body)
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(data)
        self._out_bytes += len(data)

    def _flush(self) -> None:
        out, self._out, self._out_bytes = self._out, [], 0
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._links.left(self)
        if not self.closed.done():
            self.closed.set_result(None)


class _Question:
    __slots__ = ("peer", "then", "timer")

    def __init__(self, peer: int, then: OnAnswer, timer: asyncio.TimerHandle) -> None:
        self.peer = peer
        self.then = then
        self.timer = timer


class Links:
    """This shard's links to all others. `open` once everything that answers and listens is in place."""

    def __init__(self, own: int, count: int, folder: Path, clock: Clock) -> None:
        self.own = own
        self.count = count
        self._folder = folder
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._links: dict[int, _Link] = {}
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}
        self._answerers: dict[bytes, Answerer] = {}
        self._questions: dict[int, _Question] = {}
        self._asked = 0
        self._on_message: list[Callable[[int, bytes], None]] = []
        self._on_up: list[Callable[[int], None]] = []
        self._on_down: list[Callable[[int], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.AbstractServer | None = None

    # ── start and stop ──────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        """Listens, and begins to connect."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _Short(self._folder, self.own) as path:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            listener.bind(path)
        listener.setblocking(False)
        self._server = await self._loop.create_unix_server(lambda: _Link(self, is_caller=False), sock=listener)
        for peer in range(self.own):
            self._start(self._keep(peer))

    async def close(self) -> None:
        """Ends every link; nobody is called any more."""
        self._on_down.clear()
        self._on_up.clear()
        self._on_message.clear()
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for link in list(self._links.values()):
            link.abort()

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        assert isinstance(task, asyncio.Task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self, peer: int) -> None:
        """Connects to a peer again and again."""
        wait_s = RETRY_S
        while True:
            link = await self._connect(peer)
            if link is not None:
                await link.closed
                wait_s = RETRY_S
            await self._clock.sleep(wait_s)
            wait_s = min(2 * wait_s, LAST_RETRY_S)

    async def _connect(self, peer: int) -> _Link | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            with _Short(self._folder, peer) as path:
                connection.connect(path)  # to a local socket it is done at once, or refused
            _, link = await self._loop.create_unix_connection(lambda: _Link(self, is_caller=True), sock=connection)
        except OSError:
            connection.close()
            return None
        return link

    # ── who is there ────────────────────────────────────────────────────────────────────────────────────────────

    def is_peer(self, number: int) -> bool:
        return number != self.own and 0 <= number < self.count

    def up(self) -> tuple[int, ...]:
        """The peers that there is a link to."""
        return tuple(self._links)

    def when_up(self, then: Callable[[int], None]) -> None:
        """`then` hears of each peer that is there from now on."""
        self._on_up.append(then)

    def when_down(self, then: Callable[[int], None]) -> None:
        """`then` hears of each peer that is gone; what was sent to it may or may not have been read."""
        self._on_down.append(then)

    async def wait_for(self, peer: int, within_s: float = UP_S) -> bool:
        """Whether the peer is there in time."""
        if peer in self._links:
            return True
        waiter: asyncio.Future[None] = self._loop.create_future()
        waiters = self._waiters.setdefault(peer, [])
        waiters.append(waiter)
        await asyncio.wait([waiter], timeout=within_s)
        if not waiter.done():
            waiters.remove(waiter)
        return peer in self._links

    def joined(self, link: _Link, peer: int) -> None:
        """A link is complete. An older one to the same peer is a dead process's."""
        earlier = self._links.get(peer)
        if earlier is not None:
            earlier.abort()
            self.left(earlier)
        self._links[peer] = link
        log.debug("link.up", peer=peer)
        for then in self._on_up:
            then(peer)
        for waiter in self._waiters.pop(peer, ()):
            if not waiter.done():
                waiter.set_result(None)

    def left(self, link: _Link) -> None:
        """A link has ended."""
        peer = link.peer
        if peer is None or self._links.get(peer) is not link:
            return
        del self._links[peer]
        log.debug("link.down", peer=peer)
        for number, question in list(self._questions.items()):
            if question.peer == peer:
                self._settle(number, None)
        for then in self._on_down:
            then(peer)

    def drop(self, peer: int) -> None:
        """Ends the link to a peer that does not do its part; it is told as if the peer were gone, soon."""
        link = self._links.get(peer)
        if link is not None:
            log.error("link.dropped", peer=peer)
            link.abort()

    # ── messages ────────────────────────────────────────────────────────────────────────────────────────────────

    def when_message(self, then: Callable[[int, bytes], None]) -> None:
        """`then` hears every message: the peer's number, and what it sent."""
        self._on_message.append(then)

    def send(self, peer: int, message: bytes) -> bool:
        """Sends a message; false when the peer is down, also because of this."""
        link = self._links.get(peer)
        if link is None:
            return False
        try:
            link.send(b"%c%b" % (MESSAGE, message))
        except (Overloaded, BadFrame):
            self.drop(peer)
            return False
        return True

    # ── questions ───────────────────────────────────────────────────────────────────────────────────────────────

    def answer(self, what: str, answerer: Answerer) -> None:
        """`answerer` answers the questions of this name."""
        self._answerers[what.encode()] = answerer

    def answer_later(self, what: str, answerer: Callable[[int, bytes], Awaitable[bytes]]) -> None:
        """The same by a coroutine; one that raises is a question without an answer."""

        def begin(peer: int, body: bytes, reply: Reply) -> None:
            self._start(self._answer_later(what, answerer(peer, body), reply))

        self.answer(what, begin)

    async def _answer_later(self, what: str, answering: Awaitable[bytes], reply: Reply) -> None:
        try:
            answer = await answering
        except Exception as reason:  # the peer hears that there is no answer; why is ours
            log.error("link.not_answered", question=what, reason=repr(reason))
            reply(None)
        else:
            reply(answer)

    def ask_then(self, peer: int, what: str, body: bytes, then: OnAnswer, within_s: float = ANSWER_S) -> None:
        """Asks a peer; raises `Overloaded` when too many questions are open."""
        if len(self._questions) >= QUESTIONS_LIMIT:
            raise Overloaded()
        self._asked += 1
        number = self._asked
        timer = self._loop.call_later(within_s, self._settle, number, None)
        self._questions[number] = _Question(peer, then, timer)
        link = self._links.get(peer)
        name = what.encode()
        try:
            if link is None:
                raise Overloaded()
            link.send(b"%c%b%c%b%b" % (QUESTION, _NUMBER.pack(number), len(name), name, body))
        except (Overloaded, BadFrame):
            self.drop(peer)
            self._loop.call_soon(self._settle, number, None)

    async def tell_all(self, what: str, body: bytes) -> None:
        """Asks every peer that is there, and waits until each has answered, or is down: then it knows nothing more."""
        await asyncio.gather(*(self._tell(peer, what, body) for peer in self.up()))

    async def _tell(self, peer: int, what: str, body: bytes) -> None:
        heard: asyncio.Future[bytes | None] = self._loop.create_future()
        try:
            self.ask_then(peer, what, body, heard.set_result, HEARD_S)
        except Overloaded:
            self.drop(peer)
        else:
            if await heard is None:
                self.drop(peer)

    async def ask(self, peer: int, what: str, body: bytes, *, up_within_s: float = UP_S) -> bytes:
        """A peer's answer; a peer that is down is waited for. Raises `StoreUnavailable` when there is none."""
        if not await self.wait_for(peer, up_within_s):
            raise StoreUnavailable()
        answered: asyncio.Future[bytes | None] = self._loop.create_future()
        self.ask_then(peer, what, body, lambda answer: None if answered.done() else answered.set_result(answer))
        answer = await answered
        if answer is None:
            raise StoreUnavailable()
        return answer

    def _settle(self, number: int, answer: bytes | None) -> None:
        question = self._questions.pop(number, None)
        if question is not None:
            question.timer.cancel()
            question.then(answer)

    # ── what comes ──────────────────────────────────────────────────────────────────────────────────────────────

    def heard(self, link: _Link, peer: int, body: bytes) -> None:
        """One frame of a complete link. Raises `BadFrame`, `IndexError` and `struct.error` for what is none."""
        kind = body[0]
        if kind == MESSAGE:
            for then in self._on_message:
                then(peer, body[1:])
        elif kind == QUESTION:
            (number,) = _NUMBER.unpack_from(body, 1)
            at = 2 + _NUMBER.size
            end = at + body[at - 1]
            self._answer(link, peer, number, body[at:end], body[end:])
        elif kind in (ANSWER, FAILED):
            (number,) = _NUMBER.unpack_from(body, 1)
            self._settle(number, body[1 + _NUMBER.size :] if kind == ANSWER else None)
        else:
            raise BadFrame(f"kind {kind}")

    def _answer(self, link: _Link, peer: int, number: int, what: bytes, body: bytes) -> None:
        head = _NUMBER.pack(number)

        def reply(answer: bytes | None) -> None:
            try:
                link.send(b"%c%b%b" % (FAILED if answer is None else ANSWER, head, answer or b""))
            except (Overloaded, BadFrame) as reason:  # unless the link is gone, the peer hears that there is none
                log.error("link.answer_not_sent", peer=peer, reason=repr(reason))
                link.abort()

        answerer = self._answerers.get(what)
        try:
            if answerer is None:
                raise BadFrame(f"nobody answers {what!r}")
            answerer(peer, body, reply)
        except Exception as reason:  # an answerer never raises into the link
            log.error("link.not_answered", question=what.decode("latin-1"), reason=repr(reason))
            reply(None)


class _Short:
    """A short path to a shard's socket: the address of a Unix socket has room for about a hundred characters."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self._name = f"{number}.sock"
        self._descriptor = -1

    def __enter__(self) -> str:
        self._descriptor = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._descriptor}/{self._name}"

    def __exit__(self, *exc: object) -> None:
        os.close(self._descriptor)


def is_own_uid(connection: socket.socket) -> bool:
    """Whether the other end of a Unix socket belongs to a process of this user."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    return bool(uid == os.geteuid())
