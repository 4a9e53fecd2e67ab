"""The connection to one action container, over either wire.

`PipeClient` is on the warm path: a run is one write, its reply one read, and both are plain callbacks. All descriptors
are non-blocking and belong to the container; this module only reads and writes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
from typing import TYPE_CHECKING, cast

from visp.runtime import actionloop, http
from visp.runtime.base import STDERR, STDOUT, Gone, Reply
from visp.runtime.lanes import PipeLanes

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from visp.runtime.base import Lanes, OnOutput, OnPart, OnPrint, Then

READ_BYTES = 64 * 1024
"""Room for one read is allocated each time: more than this comes from the kernel, page by page."""
PIPE_BYTES = 1024 * 1024
REST = b'{"rest":true}\n'
DRAIN_LIMIT_BYTES = 32 * 1024 * 1024
"""No more than this is taken from a log pipe after a reply: a process that was left behind may write for ever."""
CONNECT_EVERY_S = 0.05
F_SETPIPE_SZ = 1031


class PipeClient:
    """JSON lines over pipes: ActionLoop, with an init line first."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        descriptors: tuple[int, int, int, int],
        on_output: OnOutput,
        family: str,
        result_limit_bytes: int,
    ) -> None:
        """`descriptors`: to standard input, from replies, from standard output, from standard error."""
        self._loop = loop
        self._stdin, self._replies, self._stdout, self._stderr = descriptors
        self._on_output = on_output
        self._family = family
        self._result_limit_bytes = result_limit_bytes
        self._reader = actionloop.ReplyReader(result_limit_bytes)
        self._then: Then | None = None
        self._lanes: PipeLanes | None = None
        self._on_part: OnPart | None = None
        self._is_in_parts = False
        """Parts of the result under way have come: what comes now is looked at line by line."""
        self._is_init = False
        self._unsent = memoryview(b"")
        self._is_gone = False
        self._is_refused = False
        self._is_closed = False
        for descriptor in (self._stdin, self._replies):
            with contextlib.suppress(OSError):  # beyond the user's bound of pipe memory: the default size serves too
                fcntl.fcntl(descriptor, F_SETPIPE_SZ, PIPE_BYTES)
        self._outputs = select.poll()
        self._outputs.register(self._stdout, select.POLLIN)
        self._outputs.register(self._stderr, select.POLLIN)
        loop.add_reader(self._replies, self._on_reply)
        loop.add_reader(self._stdout, self._on_log, self._stdout, STDOUT)
        loop.add_reader(self._stderr, self._on_log, self._stderr, STDERR)

    def init(self, payload: bytes, then: Then) -> None:
        self._is_init = True
        self._send(payload, then)

    def run(self, payload: bytes, then: Then) -> None:
        self._is_init = False
        self._send(payload, then)

    def stream(self, on_part: OnPart) -> None:
        self._on_part = on_part

    def grant(self, count_bytes: int) -> None:
        if not self._is_in_parts or self._is_gone:
            return
        line = b"+%d\n" % count_bytes
        if self._unsent:
            self._unsent = memoryview(bytes(self._unsent) + line)
            return
        try:
            sent = os.write(self._stdin, line)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # its end is read from the other pipe
        if sent < len(line):
            self._unsent = memoryview(line)[sent:]
            self._loop.add_writer(self._stdin, self._send_rest)

    def share(self, on_print: OnPrint) -> Lanes:
        lanes = self._lanes = PipeLanes(
            self._loop, self._stdin, self._family, self._result_limit_bytes, self._end, on_print, self._on_part
        )
        if self._is_gone or self._unsent:  # whatever answered has not read what it answers
            lanes.lose()
        else:
            self._loop.add_reader(self._replies, self._on_tagged, lanes)  # in place of the other reader
        return lanes

    def rest(self) -> None:
        if not (self._is_gone or self._unsent):
            with contextlib.suppress(OSError):  # it was only a hint
                os.write(self._stdin, REST)

    def cancel(self) -> None:
        self._then = None
        self._is_in_parts = False

    def give_up(self) -> None:
        self._lose()

    def drain(self) -> bool:
        if self._is_closed:
            return True  # the descriptors may be another container's by now
        taken = 0
        while taken < DRAIN_LIMIT_BYTES and (ready := self._outputs.poll(0)):  # one call for both, mostly in vain
            for descriptor, _ in ready:
                data = _read(descriptor)
                if data:
                    taken += len(data)
                    self._on_output(STDOUT if descriptor == self._stdout else STDERR, data)
                else:
                    self._outputs.unregister(descriptor)
        return True

    def close(self) -> None:
        self._then = None
        self._is_in_parts = False
        self._is_gone = self._is_closed = True
        if self._lanes is not None:
            self._lanes.close()
        for descriptor in (self._replies, self._stdout, self._stderr):
            self._loop.remove_reader(descriptor)
        if self._unsent:
            self._loop.remove_writer(self._stdin)
            self._unsent = memoryview(b"")

    # ── sending ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _send(self, payload: bytes, then: Then) -> None:
        self._then = then
        if self._is_gone:
            self._refuse(then)
            return
        try:
            sent = os.writev(self._stdin, (payload, b"\n"))
        except BlockingIOError:
            sent = 0
        except OSError:
            self._is_gone = True
            self._refuse(then)
            return
        if sent <= len(payload):
            self._unsent = memoryview(payload + b"\n")[sent:]
            self._loop.add_writer(self._stdin, self._send_rest)

    def _refuse(self, then: Then) -> None:
        """Nothing was sent: whatever is noticed of the end before this is answered must not say otherwise."""
        self._is_refused = True
        self._loop.call_soon(self._answer_gone, then, False)

    def _send_rest(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._stdin, self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self._unsent = memoryview(b"")
        if not self._unsent:
            self._loop.remove_writer(self._stdin)

    # ── receiving ───────────────────────────────────────────────────────────────────────────────────────────────

    def _on_reply(self) -> None:
        try:
            data = os.read(self._replies, READ_BYTES)
            if len(data) == READ_BYTES:  # a large one: what is there of it is taken at once
                data += _read(self._replies, PIPE_BYTES) or b""
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or self._reader.is_endless:
            self._end()
            return
        if (data[:1] == actionloop.PART or self._is_in_parts) and self._takes_parts():
            complete = self._feed_parts(data)
        else:
            complete = self._reader.feed(data)
        then = self._then
        if complete is None or then is None:
            return
        self._then = None
        line, size_bytes = complete
        if self._is_init:
            then(actionloop.init_reply(line, size_bytes))
        else:
            then(actionloop.run_reply(line, size_bytes, self._family))

    def _takes_parts(self) -> bool:
        """Whether what has come is a part, or may follow one: not the middle of a reply that looks like it."""
        if self._on_part is None or self._is_init or self._then is None:
            return False
        return self._is_in_parts or self._reader.is_between

    def _feed_parts(self, data: bytes) -> tuple[bytes, int] | None:
        """Parts of the result under way; its reply, when it comes: what follows that is dropped."""
        assert self._on_part is not None
        self._is_in_parts = True
        at = 0
        while end := data.find(b"\n", at) + 1:
            complete = self._reader.feed(data[at:end])
            assert complete is not None
            line, size_bytes = complete
            at = end
            if line[:1] != actionloop.PART:
                self._is_in_parts = False
                return complete
            if size_bytes > self._result_limit_bytes or not self._on_part("", line[1:]):
                self._end()
                return None
            if not self._is_in_parts:
                return None  # the run is over: nobody asks any more
        if at < len(data):
            self._reader.feed(data[at:])
        return None

    def _on_tagged(self, lanes: PipeLanes) -> None:
        data = _read(self._replies)
        if data:
            lanes.feed(data)
        elif data is not None:
            self._end()

    def _on_log(self, descriptor: int, stream: int) -> None:
        """One read for each turn of the loop: a flood of output must not keep others waiting."""
        data = _read(descriptor)
        if data is None:
            return
        if data:
            self._on_output(stream, data)
        else:
            self._loop.remove_reader(descriptor)

    def _end(self) -> None:
        """Nothing comes any more, or nothing that could be trusted."""
        self._loop.remove_reader(self._replies)
        self._lose()

    def _lose(self) -> None:
        self._is_gone = True
        if self._lanes is not None:
            self._lanes.lose()
        then = self._then
        if then is not None:
            self._answer_gone(then, not self._is_refused)

    def _answer_gone(self, then: Then, was_sent: bool) -> None:
        if self._then is then:
            self._then = None
            then(actionloop.gone(self._family, is_init=self._is_init, was_sent=was_sent))


def _read(descriptor: int, limit_bytes: int = READ_BYTES) -> bytes | None:
    """What a pipe holds; empty at its end, None when there is nothing now."""
    try:
        return os.read(descriptor, limit_bytes)
    except BlockingIOError:
        return None
    except OSError:
        return b""


class HttpClient:
    """`/init` and `/run` over one keep-alive connection: containers that are images.

    Their output comes beside the connection: whoever follows it for the driver hands it to `feed`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        host: str,
        port: int,
        on_output: OnOutput,
        result_limit_bytes: int,
        connect: Callable[[], Awaitable[socket.socket]] | None = None,
    ) -> None:
        """`connect`: how a connection is made, if `host` is not an address of this machine's network."""
        self._loop = loop
        self._connect = connect
        self._is_gone = False
        self._host = host
        self._port = port
        self._on_output = on_output
        self._limit_bytes = result_limit_bytes
        self._is_closed = False
        self._wire: _HttpWire | None = None
        self._task: asyncio.Task[None] | None = None
        self._then: Then | None = None

    def init(self, payload: bytes, then: Then) -> None:
        self._call("/init", payload, then, retry=True)

    def run(self, payload: bytes, then: Then) -> None:
        self._then = then
        wire = self._wire
        if wire is not None and wire.is_open:
            wire.request(http.render("/run", self._host, self._port, payload), lambda reply: self._settle(then, reply))
        else:
            self._call("/run", payload, then, retry=False)

    def stream(self, on_part: OnPart) -> None:
        """Its answers come whole."""

    def grant(self, count_bytes: int) -> None:
        """Nothing waits for it."""

    def share(self, on_print: OnPrint) -> None:
        return None

    def rest(self) -> None:
        """An image is not told."""

    def cancel(self) -> None:
        self._then = None
        if self._task is not None:
            self._task.cancel()

    def give_up(self) -> None:
        self._is_gone = True
        if self._then is not None:
            self._settle(self._then, Gone())

    def drain(self) -> bool:
        return False

    def feed(self, stream: int, data: bytes) -> None:
        """Output of the container, sentinels included."""
        if not self._is_closed:
            self._on_output(stream, data)

    def close(self) -> None:
        self._is_closed = True
        self.cancel()
        if self._wire is not None:
            self._wire.close()

    def _call(self, path: str, payload: bytes, then: Then, *, retry: bool) -> None:
        """Connects first. The task is this client's own and ends with it."""
        self._then = then
        if self._is_gone:  # an image that ends at once, before it was asked
            self._loop.call_soon(self._settle, then, Gone())
            return
        self._task = self._loop.create_task(self._connect_and_call(path, payload, then, retry=retry))

    async def _connect_and_call(self, path: str, payload: bytes, then: Then, *, retry: bool) -> None:
        while not self._is_gone:
            try:
                self._wire = await self._open_wire()
                break
            except OSError:
                if not retry:
                    self._settle(then, Gone(was_sent=False))
                    return
                await asyncio.sleep(CONNECT_EVERY_S)
        else:
            return
        request = http.render(path, self._host, self._port, payload)
        self._wire.request(request, lambda reply: self._settle(then, reply))

    async def _open_wire(self) -> _HttpWire:
        def make() -> _HttpWire:
            return _HttpWire(self._limit_bytes)

        if self._connect is None:
            _, wire = await self._loop.create_connection(make, self._host, self._port)
        else:
            _, wire = await self._loop.create_connection(make, sock=await self._connect())
        return wire

    def _settle(self, then: Then, reply: Reply | Gone) -> None:
        if self._then is then:
            self._then = None
            then(reply)


class _HttpWire(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, limit_bytes: int) -> None:
        self._reader = http.ResponseReader(limit_bytes)
        self._transport: asyncio.Transport | None = None
        self._then: Callable[[Reply | Gone], None] | None = None
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by name
        self.is_open = True

    def request(self, data: bytes, then: Callable[[Reply | Gone], None]) -> None:
        assert self._transport is not None
        self._then = then
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self._then is None:
            self.close()  # what nobody asked for would be taken for the next answer
            return
        reply = self._reader.feed(data)
        if reply is None:
            return
        then, self._then = self._then, None
        if isinstance(reply, Gone) or not self._reader.keeps_alive:
            self.close()
        if then is not None:
            then(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        then, self._then = self._then, None
        if then is not None:
            then(Gone())

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.close()
