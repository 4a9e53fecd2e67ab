"""An invocation whose answer is server-sent events: the parts of the result as they come, and the record at the end.

`activation` comes first, with the id: from then on the run is accepted work. Then `part` with a JSON value (a string is
text) or `bytes` with their base64, for each part, and `record`. A reader that reads slowly slows the run down; one that
is gone does not end it. What composes others has no parts.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgspec

from visp.api.activations import when_there
from visp.api.errors import render as render_error
from visp.api.events import HEARTBEAT, EventStream, event
from visp.controller.primitive import Finished, Refused, answer_of
from visp.controller.streams import Reader
from visp.entity.activation import render

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from visp.api.context import Call
    from visp.controller.invoke import Invocation
    from visp.controller.primitive import Answer

BASE64 = b":"


async def streamed(call: Call, invocation: Invocation) -> EventStream:
    """Begins the run. Raises what `Invoke.start` raises, and why it was not accepted."""
    services = call.services
    reader = Reader()
    accepted: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def settle(answer: Answer) -> None:
        if not accepted.done():
            accepted.set_result(answer)

    given = msgspec.structs.replace(invocation, wait_s=None, on_result=reader.on_result)
    id = services.invoke.start(given, settle)
    stack = contextlib.ExitStack()
    stack.enter_context(services.streams.reading(id, reader))

    async def close() -> None:
        stack.close()

    try:
        answer = await accepted
        if isinstance(answer, Refused):
            raise answer.error
    except BaseException:
        stack.close()
        raise
    has_parts = services.invoke.has_parts(invocation.action)
    return EventStream(_events(call, id, reader if has_parts else None), close)


async def _events(call: Call, id: str, reader: Reader | None) -> AsyncGenerator[bytes, None]:
    yield event("activation", b'{"activationId":"%b"}' % id.encode())
    heartbeat_s = call.services.settings.waits.heartbeat_s
    parts: list[bytes] | None = []
    while reader is not None and parts is not None:
        try:
            async with asyncio.timeout(heartbeat_s):
                parts = await reader.next()
        except TimeoutError:
            yield HEARTBEAT
            continue
        if parts is not None:
            yield b"".join(map(_part, parts))
            call.services.streams.taken(id, sum(map(len, parts)))
    if reader is None or reader.ack is None:  # it is not heard of here: its record tells
        async for chunk in when_there(call, id, lambda record: render(record.head, record.result, record.logs)):
            yield chunk
        return
    answer = answer_of(reader.ack)
    if isinstance(answer, Finished):
        yield event("record", render(answer.head, answer.result), id)
    elif isinstance(answer, Refused):
        yield event("error", render_error(answer.error, call.transid).body)


def _part(part: bytes) -> bytes:
    return event("bytes", part[1:]) if part[:1] == BASE64 else event("part", part)
