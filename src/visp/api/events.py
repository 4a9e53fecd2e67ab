"""Server-sent events: an answer that goes on for as long as there is something to tell and somebody to read it.

Source of the format: the WHATWG's HTML standard, "Server-sent events".
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from visp.api.errors import HttpAnswer
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from starlette.types import Receive, Send

MEDIA_TYPE = "text/event-stream"
SEND_S = 60.0
"""A reader that takes nothing for this long is sent away."""

GREETING = b"retry: 1000\n\n"
"""A reader whose stream ended comes again after a second."""
HEARTBEAT = b":\n\n"


class EventStream:
    """An answer of events, each as `event` makes it, or of another type. `close` is called once, also when nothing was
    sent; `greeting` comes first, `head` takes the place of the usual one.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        close: Callable[[], Awaitable[None]] | None = None,
        *,
        media_type: str = MEDIA_TYPE,
        greeting: bytes = GREETING,
        head: HttpAnswer | None = None,
    ) -> None:
        self.events = events
        self.close = close
        self.greeting = greeting
        self.head = head or HttpAnswer(200, content_type=media_type, headers=(("Cache-Control", "no-store"),))


def event(name: str, data: bytes, id: str | None = None) -> bytes:
    """One event; `id` is what a reader that comes again names as the last it has seen."""
    lines = [b"data: %b\n" % line for line in data.splitlines()]
    head = b"" if id is None else b"id: %b\n" % id.encode()
    return b"%bevent: %b\n%b\n" % (head, name.encode(), b"".join(lines))


def is_asked_for(accept: str | None, media_type: str = MEDIA_TYPE) -> bool:
    """Whether `Accept` names the type of a stream itself: ranges that include it ask for what there always was."""
    return any(part.partition(";")[0].strip().lower() == media_type for part in (accept or "").split(","))


async def until_gone(receive: Receive) -> None:
    """Returns when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def respond(stream: EventStream, id: str, receive: Receive, send: Send) -> None:
    """Sends a stream until it ends or its reader is gone."""
    sending = asyncio.ensure_future(_send_all(stream, id, send))
    gone = asyncio.ensure_future(until_gone(receive))
    try:
        await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, gone):
            task.cancel()
        await asyncio.gather(sending, gone, return_exceptions=True)
        await stream.events.aclose()
        if stream.close is not None:
            await stream.close()
    if not sending.cancelled() and (error := sending.exception()) is not None:
        raise error


async def _send_all(stream: EventStream, id: str, send: Send) -> None:
    headers = stream.head.all_headers(id)
    encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": stream.head.status, "headers": encoded})
    with contextlib.suppress(TimeoutError):
        async with contextlib.aclosing(stream.events) as events:
            if stream.greeting:
                await _send(send, stream.greeting)
            async for chunk in events:
                await _send(send, chunk)
        await _send(send, b"", is_last=True)
        return
    log.info("events.reader_stuck", transid=id)


async def _send(send: Send, chunk: bytes, *, is_last: bool = False) -> None:
    async with asyncio.timeout(SEND_S):
        await send({"type": "http.response.body", "body": chunk, "more_body": not is_last})
