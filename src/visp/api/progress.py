"""An answer that takes its time, as lines of JSON: `{"progress": "…"}` as often as there is something to tell.

The last line is the answer itself, `{"status": …, "body": …}`, whatever its status; `"build": "failed"` is in it where
code could not be built. A reader that goes away calls off what is not done yet.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgspec

from visp.api.errors import HttpAnswer, render
from visp.api.events import EventStream
from visp.errors import BuildRefused

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from visp.api.context import Call

    Work = Callable[[Callable[[str], None]], Awaitable[HttpAnswer]]

MEDIA_TYPE = "application/x-ndjson"


def stream(call: Call, work: Work) -> EventStream:
    """`work` is given whom to tell of its progress, which it must bound, and gives the answer or raises."""
    return EventStream(_lines(call, work), media_type=MEDIA_TYPE, greeting=b"")


async def _lines(call: Call, work: Work) -> AsyncGenerator[bytes, None]:
    said: asyncio.Queue[str | None] = asyncio.Queue()
    task = asyncio.ensure_future(work(said.put_nowait))
    task.add_done_callback(lambda _: said.put_nowait(None))
    is_refused = False
    heartbeat_s = call.services.settings.waits.heartbeat_s
    try:
        while True:
            try:
                async with asyncio.timeout(heartbeat_s):
                    line = await said.get()
            except TimeoutError:
                line = ""  # so that neither end takes the other for gone
            if line is None:
                break
            yield msgspec.json.encode({"progress": line}) + b"\n"
        try:
            answer = task.result()
        except Exception as error:  # as at the top of any request
            answer = render(error, call.transid)
            is_refused = isinstance(error, BuildRefused)
        tail = b',"build":"failed"' if is_refused else b""
        yield b'{"status":%d,"body":%b%b}\n' % (answer.status, answer.body or b"null", tail)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
