"""The plane alone, in this process: what a server does for warm calls, without the kernel's part of it.

Everything is real (front door, controller, bus, pool, invoker, ledger) but for five things: connections are objects
that take what is written, a container's wire answers at once with the bytes that a real one would carry, the ledger's
`write` only counts, of what a clock begins there are only pings (the index rests), and cores are never busy, so that
each connection comes to have a container. What is left is visp's own Python.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import msgspec
import uvicorn
from uvicorn.server import ServerState

from bench.load import Broken
from visp.api.door import bound
from visp.client.credentials import GUEST_AUTH
from visp.clock import SystemClock
from visp.entity.limits import RESULT_LIMIT_BYTES
from visp.invoker.cores import Cores
from visp.invoker.invoker import PING_S
from visp.roles import invoker
from visp.roles.assembly import assembled
from visp.runtime import actionloop
from visp.settings import Catalog, Ledger, Limits, Pool, Settings
from visp.store import segments

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from visp.container.base import Container
    from visp.roles.assembly import Parts
    from visp.runtime.base import OnOutput, Then
    from visp.store.segments import Segment

CONNECTIONS = 32
NEVER_S = 86_400.0
ROOM = 10_000_000
WAIT_MS = 10_000
"""A plane that does not answer is noticed by then."""
ACTION_MB = 128
WARM_ROUNDS = 5
_PATH = "/api/v1/namespaces/_/actions/noop"
_REPLY = b"{}\n"


class Wire(asyncio.Transport):
    """A connection's far end: `answers` counts what was written to it, `last` is the newest of that."""

    def __init__(self, wrote: Callable[[], None]) -> None:
        super().__init__()
        self._wrote = wrote
        self.last = b""

    def write(self, data: Any) -> None:
        self.last = data
        self._wrote()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        raise Broken("the plane closed a connection")

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Start:
    """Holds the first answers until every connection has a run under way, so that each has a container of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._held: list[Callable[[], None]] | None = []

    def answer(self, answer: Callable[[], None]) -> None:
        """Answers in the next turn of the loop."""
        if self._held is None:
            self._loop.call_soon(answer)
            return
        self._held.append(answer)
        if len(self._held) == CONNECTIONS:
            for held in self._held:
                held()
            self._held = None


class InstantClient:
    """A container's wire that answers in the next turn of the loop."""

    def __init__(self, start: Start, family: str) -> None:
        self._start = start
        self._family = family
        self._reader = actionloop.ReplyReader(RESULT_LIMIT_BYTES)

    def init(self, payload: bytes, then: Then) -> None:
        asyncio.get_running_loop().call_soon(then, actionloop.init_reply(b'{"ok":true}', 11))

    def run(self, payload: bytes, then: Then) -> None:
        self._start.answer(partial(self._answer, then))

    def _answer(self, then: Then) -> None:
        complete = self._reader.feed(_REPLY)
        assert complete is not None
        then(actionloop.run_reply(*complete, self._family))

    def cancel(self) -> None:
        pass

    def give_up(self) -> None:
        pass

    def drain(self) -> bool:
        return True

    def close(self) -> None:
        pass


class Plane:
    """Connections to the plane, each with one request in flight at most."""

    def __init__(self, parts: Parts) -> None:
        self._due = 0
        self._answered = asyncio.Event()
        protocol: Any = bound(parts.gate)
        config = uvicorn.Config(parts.site, http=protocol, ws="none", lifespan="off", log_config=None)
        config.load()
        state = ServerState()
        state.default_headers = [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")]
        self._wires = [Wire(self._wrote) for _ in range(CONNECTIONS)]
        self._doors = [protocol(config, state, {}) for _ in self._wires]
        for door, wire in zip(self._doors, self._wires, strict=True):
            door.connection_made(wire)
        self._invoke = _request("POST", f"{_PATH}?blocking=true", b"{}")

    def _wrote(self) -> None:
        self._due -= 1
        if self._due == 0:
            self._answered.set()

    async def prepare(self) -> None:
        """Makes the action, and a warm container of it for each connection."""
        action = {"exec": {"kind": "nodejs:20", "code": "{}"}, "limits": {"memory": ACTION_MB}}
        self._due = 1
        self._answered.clear()
        self._doors[0].data_received(_request("PUT", _PATH, msgspec.json.encode(action)))
        await self._answered.wait()
        await asyncio.sleep(0)
        for _ in range(WARM_ROUNDS):
            await self.round()
        self.check()

    async def round(self) -> None:
        """One invocation on every connection; returns when all are answered."""
        self._due = CONNECTIONS
        self._answered.clear()
        invoke = self._invoke
        for door in self._doors:
            door.data_received(invoke)
        await self._answered.wait()

    def check(self) -> None:
        """Raises `Broken` unless every connection's last answer was a record."""
        for wire in self._wires:
            head, _, body = bytes(wire.last).partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200") or b'"success":true' not in body:
                raise Broken(f"the plane answered {bytes(wire.last)[:500]!r}")


@contextlib.asynccontextmanager
async def plane() -> AsyncIterator[Plane]:
    """A prepared plane, for the block."""
    settings = Settings(
        driver="visp.container.fake:FakeDriver",
        log_level="error",
        pool=Pool(memory_mb=2 * CONNECTIONS * ACTION_MB, stem_cells=0, pause_grace_s=NEVER_S),
        limits=Limits(blocking_wait_ms=WAIT_MS),
        catalog=Catalog(packages=""),
        ledger=Ledger(unindexed_records=ROOM, unindexed_bytes=1 << 40),
    )
    with _stubbed(), tempfile.TemporaryDirectory(prefix="visp-bench-") as folder:
        async with assembled(settings, Path(folder), "http://127.0.0.1") as parts:
            await parts.boot()
            parts.unready = None
            plane = Plane(parts)
            await plane.prepare()
            yield plane


@contextlib.contextmanager
def _stubbed() -> Iterator[None]:
    start = Start(asyncio.get_running_loop())

    def connect(_: Container, kind: str, __: OnOutput) -> InstantClient:
        return InstantClient(start, kind.partition(":")[0])

    def write(segment: Segment, data: bytes) -> None:
        segment.used += len(data)

    async def sleep(_: SystemClock, seconds: float) -> None:
        await asyncio.sleep(seconds if seconds == PING_S else NEVER_S)

    with (
        patch.object(invoker, "_connect", connect),
        patch.object(segments.Segment, "write", write),
        patch.object(SystemClock, "sleep", sleep),
        patch.object(Cores, "are_busy", lambda _: False),
    ):
        yield


def _request(method: str, path: str, body: bytes) -> bytes:
    key = base64.b64encode(GUEST_AUTH.encode()).decode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:3233\r\nContent-Type: application/json\r\n"
        f"Authorization: Basic {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
