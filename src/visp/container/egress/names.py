"""Answers containers that ask what names mean: the host's own servers are asked, and what is closed is not told.

Source: RFC 1035 for messages, RFC 7766 for those over TCP.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import socket
import struct
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from visp.entity.network import Address

RESOLVERS = Path("/etc/resolv.conf")
PORT = 53
FREEBIND = 15
ANSWER_S = 5.0
TRIES = 2
MESSAGE_BYTES = 4096
NAME_LENGTH = 255
AT_ONCE, OF_ONE = 512, 32
"""Questions under way, of all containers and of one."""
HEAD = struct.Struct(">6H")
RECORD = struct.Struct(">HHIH")
ANSWER, RECURSIVE = 0x8000, 0x0080
FAILED, REFUSED = 2, 5
SIZES = {1: 4, 28: 16}
"""Types of records that are addresses."""


class Malformed(ValueError):
    """No message of this protocol."""


def asked_name(message: bytes) -> str:
    """What a question is about, in lower case; raises `Malformed`."""
    if len(message) < HEAD.size or HEAD.unpack_from(message)[1] & ANSWER or HEAD.unpack_from(message)[2] != 1:
        raise Malformed("not one question")
    labels: list[bytes] = []
    at = HEAD.size
    while True:
        size = _byte(message, at)
        if size == 0:
            return b".".join(labels).decode("latin-1").lower()
        if size > 63 or at > HEAD.size + NAME_LENGTH:
            raise Malformed("no name")
        labels.append(message[at + 1 : at + 1 + size])
        at += 1 + size


def addresses(message: bytes) -> Iterator[Address]:
    """Every address that an answer has; raises `Malformed`."""
    if len(message) < HEAD.size:
        raise Malformed("too short")
    _, _, questions, *records = HEAD.unpack_from(message)
    at = HEAD.size
    for _ in range(questions):
        at = _after_name(message, at) + 4
    for _ in range(sum(records)):
        at = _after_name(message, at)
        if at + RECORD.size > len(message):
            raise Malformed("too short")
        kind, _, _, size = RECORD.unpack_from(message, at)
        at += RECORD.size
        content = message[at : at + size]
        if len(content) != size or SIZES.get(kind, size) != size:
            raise Malformed("too short")
        if kind in SIZES:
            yield ipaddress.ip_address(content)
        at += size


def _after_name(message: bytes, at: int) -> int:
    while True:
        size = _byte(message, at)
        if size >= 0xC0:
            return at + 2
        at += 1 + size
        if size == 0:
            return at


def _byte(message: bytes, at: int) -> int:
    if at >= len(message):
        raise Malformed("too short")
    return message[at]


def refusal(question: bytes, code: int) -> bytes:
    """The question again, with a code in place of an answer."""
    id, flags, *_ = HEAD.unpack_from(question)
    end = _after_name(question, HEAD.size) + 4
    return HEAD.pack(id, ANSWER | RECURSIVE | (flags & 0x7900) | code, 1, 0, 0, 0) + question[HEAD.size : end]


def parse_servers(text: str) -> list[str]:
    """Of `resolv.conf`."""
    words = [line.split() for line in text.splitlines()]
    return [line[1].partition("%")[0] for line in words if len(line) > 1 and line[0] == "nameserver"]


class Names(asyncio.DatagramProtocol):
    """Listens at one address. `may_ask` decides by the container's address and the name, `may_tell` what is told."""

    def __init__(self, may_ask: Callable[[str, str], bool], may_tell: Callable[[str, Address], bool]) -> None:
        self._may_ask = may_ask
        self._may_tell = may_tell
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way: Counter[str] = Counter()

    async def listen(self, address: str, port: int = PORT) -> None:
        """The address need not be there yet. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            packets, stream = (
                stack.enter_context(socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK))
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
            )
            for sock in (packets, stream):
                sock.setsockopt(socket.IPPROTO_IP, FREEBIND, 1)
                sock.bind((address, port))
            self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=packets.dup())
            self._server = await asyncio.start_server(self._serve, sock=stream.dup())

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if len(self._tasks) < AT_ONCE and self._under_way[addr[0]] < OF_ONE:
            self._begin(self._answer_packet(data, addr), addr[0])

    def _begin(self, work: object, host: str) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        self._under_way[host] += 1

        def end(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._under_way[host] -= 1
            if not self._under_way[host]:
                del self._under_way[host]

        task.add_done_callback(end)

    async def _answer_packet(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = await self._answer(data, addr[0], ask_by_packet)
        if answer is not None and self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(answer, addr)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = writer.get_extra_info("peername")[0]
        with contextlib.closing(writer), contextlib.suppress(OSError, EOFError, TimeoutError):
            if len(self._tasks) >= AT_ONCE or self._under_way[host] >= OF_ONE:
                return
            self._under_way[host] += 1
            try:
                async with asyncio.timeout(3 * ANSWER_S):
                    answer = await self._answer(await _whole(reader), host, ask_by_stream)
                    if answer is not None:
                        writer.write(len(answer).to_bytes(2, "big") + answer)
                        await writer.drain()
            finally:
                self._under_way[host] -= 1

    async def _answer(self, question: bytes, host: str, ask: Callable[..., object]) -> bytes | None:
        """None for what is no question."""
        try:
            name = asked_name(question)
            if not self._may_ask(host, name):
                return refusal(question, REFUSED)
            servers = parse_servers(await asyncio.to_thread(RESOLVERS.read_text))
            answer = await _ask_all(servers, question, ask)
            if answer is None:
                return refusal(question, FAILED)
            if all(self._may_tell(host, address) for address in addresses(answer)):
                return answer
            return refusal(question, REFUSED)
        except Malformed:
            return None
        except OSError as error:
            log.warning("egress.names", reason=str(error))
            return refusal(question, FAILED)


async def _ask_all(servers: Sequence[str], question: bytes, ask: Callable[..., object]) -> bytes | None:
    """The first answer; None if none comes. Asked under another number, which only the server asked can know."""
    number = secrets.token_bytes(2)
    for server in [*servers] * TRIES:
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(ANSWER_S / TRIES):
                answer: bytes = await ask(server, number + question[2:])  # type: ignore[misc]
            if answer[:2] == number and len(answer) >= HEAD.size:
                return question[:2] + answer[2:]
    return None


async def ask_by_packet(server: str, question: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect((server, PORT))
        await loop.sock_sendall(sock, question)
        while True:
            answer = await loop.sock_recv(sock, MESSAGE_BYTES)
            if answer[:2] == question[:2]:
                return answer


async def ask_by_stream(server: str, question: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server, PORT)
    with contextlib.closing(writer):
        writer.write(len(question).to_bytes(2, "big") + question)
        return await _whole(reader)


async def _whole(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
