"""How a connection that speaks HTTP/1.1 sends the answers that were made of hot requests: whole, or in parts."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from visp.api import encoding, managed, timing
from visp.api.errors import ACTIVATION_ID, HttpAnswer
from visp.api.events import SEND_S
from visp.controller import webaction
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from visp.api.events import EventStream
    from visp.api.gate import Gate
    from visp.api.warm import Warm

JOINED_BODY_BYTES = 64 * 1024


class Answering(HttpToolsProtocol):
    """The half of a connection that sends; `on_response_complete` hears when an answer is sent."""

    gate: Gate

    def finish(self, hot: Warm, answer: HttpAnswer) -> None:
        """Sends the answer in the form that is asked for."""
        if hot.is_timed:
            answer = timing.timed(answer)
        if len(answer.body) >= self.gate.compress_bytes and encoding.may_vary(answer, 0):
            if not hot.accepts_gzip:
                answer = encoding.plain(answer)
            elif len(answer.body) <= encoding.AT_ONCE_BYTES:
                answer = encoding.compressed(answer)
            else:
                self._go_on(self._finish_compressed(hot, answer))
                return
        self._deliver(hot, answer)

    def _go_on(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def go_on(self, work: Coroutine[Any, Any, None]) -> None:
        """Work for a request that has to wait for something."""
        self._go_on(work)

    async def _finish_compressed(self, hot: Warm, answer: HttpAnswer) -> None:
        self._deliver(hot, await asyncio.to_thread(encoding.compressed, answer))

    def _deliver(self, hot: Warm, answer: HttpAnswer) -> None:
        """Sends the answer, if the client is still there, and lets the connection's next request begin."""
        hot.response_complete = True
        if hot.disconnected or self.transport.is_closing():
            return
        keep_alive = hot.keep_alive and (not self.gate.is_ending or bool(self.pipeline))
        self.send(answer, hot.transid, keep_alive=keep_alive)
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()

    # ── in parts ────────────────────────────────────────────────────────────────────────────────────────────────

    def pass_on(self, hot: Warm, stream: EventStream) -> None:
        """Sends an answer in parts, as they come; the connection ends with one that breaks off."""
        task = self._go_on(self._send_parts(hot, stream))
        task.add_done_callback(partial(self._sent_parts, hot))

    async def _send_parts(self, hot: Warm, stream: EventStream) -> None:
        hot.response_started = True
        try:
            async with contextlib.aclosing(stream.events) as events:
                self.transport.write(self._head_of(stream.head, hot.transid) + _CHUNKED)
                async for piece in events:
                    if self._is_gone(hot):
                        return
                    if piece:
                        self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                        async with asyncio.timeout(SEND_S):
                            await self.flow.drain()
                    if self._is_gone(hot):
                        return
        finally:
            hot.response_complete = True
            if stream.close is not None:
                await stream.close()
        if self._is_gone(hot):
            return
        self.transport.write(b"0\r\n\r\n")
        if not hot.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _is_gone(self, hot: Warm) -> bool:
        return hot.disconnected or self.transport.is_closing()

    def _sent_parts(self, hot: Warm, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("door.stream_ended", transid=hot.transid, reason=repr(error))
            self.transport.close()

    # ── bytes ───────────────────────────────────────────────────────────────────────────────────────────────────

    def send(self, answer: HttpAnswer, id: str, *, keep_alive: bool) -> None:
        """One write: head and body together, unless the body is large enough that a copy would cost more."""
        body = answer.body
        parts = [self._head_of(answer, id)]
        if not keep_alive:
            parts.append(b"\r\nConnection: close")
        if answer.status in (204, 304):
            parts.append(b"\r\n\r\n")
        else:
            parts.append(b"\r\nContent-Length: %d\r\n\r\n" % len(body))
        if len(body) < JOINED_BODY_BYTES:
            parts.append(body)
            self.transport.write(b"".join(parts))
        else:
            self.transport.writelines((b"".join(parts), body))

    def _head_of(self, answer: HttpAnswer, request_id: str) -> bytes:
        """Without its last line end."""
        parts = [self.gate.start_of(answer, self.server_state.default_headers), request_id.encode()]
        if answer.activation_id is not None:
            parts += (_ACTIVATION_LINE, answer.activation_id.encode())
        if answer.headers:
            lines = _USUAL_LINES.get(id(answer.headers))
            if lines is not None:
                parts.append(lines)
            else:
                parts += (f"\r\n{name}: {value}".encode("latin-1") for name, value in answer.headers)
        return b"".join(parts)


_CHUNKED = b"\r\nTransfer-Encoding: chunked\r\n\r\n"
_USUAL_LINES = {
    id(usual): b"".join(f"\r\n{name}: {value}".encode() for name, value in usual)
    for usual in (webaction.USUAL_CORS, managed.FOR_ALL)
}
"""By identity: these live as long as the process."""
_ACTIVATION_LINE = f"\r\n{ACTIVATION_ID}: ".encode()
