"""Runs one program in a container from start to end: bytes in, bytes out, and it is gone."""

from __future__ import annotations

import asyncio
import os
import selectors
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from visp.container.base import Pipes
from visp.errors import ContainerGone

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.container.base import Container, ContainerSpec, Maker

READ_BYTES = 256 * 1024
SAID_BYTES = 64 * 1024
LAST_S = 1.0
"""So long its last words are waited for, once its reply channel is closed: what it has left behind may never end."""


class Ended(msgspec.Struct, frozen=True):
    """`status` as `Exit`; `said` is the beginning of what it printed."""

    status: int
    said: str
    is_out_of_memory: bool


class Overdue(ContainerGone):
    """The time is over."""


async def run(
    driver: Maker,
    spec: ContainerSpec,
    given: bytes | bytearray,
    take: Callable[[bytes], None],
    timeout_s: float,
    *,
    hear: Callable[[bytes], None] | None = None,
    opened: Callable[[Container], None] | None = None,
) -> Ended:
    """Writes `given` to its standard input, which stays open; `take` gets what it writes to descriptor 3, in a thread.

    `hear` gets what it prints, in the same thread; `opened` the container, once there is one. What `take` raises ends
    the program and is raised here. Raises `Overdue`.
    """
    container = await driver.create(spec)
    is_over = threading.Event()
    try:
        if opened is not None:
            opened(container)
        wire = container.wire
        assert isinstance(wire, Pipes)
        exchange = asyncio.ensure_future(asyncio.to_thread(_exchange, wire, given, take, hear, timeout_s, is_over))
        try:
            said = await asyncio.shield(exchange)
        except asyncio.CancelledError:  # the thread must have let go of the descriptors before they are closed
            is_over.set()
            await asyncio.gather(exchange, return_exceptions=True)
            raise
        done, _ = await asyncio.wait([container.exited], timeout=timeout_s)
        if not done:
            raise Overdue(f"no end within {timeout_s} s")
        end = container.exited.result()
        return Ended(end.status, said, end.is_out_of_memory)
    finally:
        await container.destroy()


def _exchange(
    wire: Pipes,
    given: bytes | bytearray,
    take: Callable[[bytes], None],
    hear: Callable[[bytes], None] | None,
    timeout_s: float,
    is_over: threading.Event,
) -> str:
    """Until the program has closed its reply channel and, soon after, its others; what it printed."""
    until = time.monotonic() + timeout_s
    last = float("inf")
    said, left = bytearray(), memoryview(given)
    with selectors.DefaultSelector() as selector:
        outputs = {wire.replies, wire.stdout, wire.stderr}
        for descriptor in outputs:
            selector.register(descriptor, selectors.EVENT_READ)
        if left:
            selector.register(wire.stdin, selectors.EVENT_WRITE)
        while not outputs.isdisjoint(selector.get_map()) and time.monotonic() < last:
            if is_over.is_set() or time.monotonic() > until:
                raise Overdue(f"no end within {timeout_s} s")
            for key, _ in selector.select(0.1):
                if key.fd == wire.stdin:
                    left = _write(wire.stdin, left)
                    if not left:
                        selector.unregister(wire.stdin)
                    continue
                data = _read(key.fd)
                if data is None:
                    continue
                if not data:
                    selector.unregister(key.fd)
                    if key.fd == wire.replies:
                        last = time.monotonic() + LAST_S
                elif key.fd == wire.replies:
                    take(data)
                else:
                    if hear is not None:
                        hear(data)
                    if len(said) < SAID_BYTES:
                        said += data
    return said.decode("utf-8", "replace")


def _read(descriptor: int) -> bytes | None:
    try:
        return os.read(descriptor, READ_BYTES)
    except BlockingIOError:
        return None


def _write(descriptor: int, left: memoryview) -> memoryview:
    try:
        return left[os.write(descriptor, left) :]
    except BlockingIOError:
        return left
    except BrokenPipeError:
        return left[:0]
