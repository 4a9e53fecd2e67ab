"""Runs a server from its settings to its end: listens, announces itself, and stops in order.

The port listens as soon as the stores are open; what containers need goes on beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from visp import premises, roles
from visp.errors import VispError
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uvicorn import Server

    from visp.roles import Parts
    from visp.settings import Loaded, Settings

BACKLOG = 4096
GC_THRESHOLDS = (10_000, 20, 50)
"""Hardly anything on the warm path makes circles; looking for them each 700 objects costs more than it finds."""


def serve(loaded: Loaded) -> int:
    """Runs the server until SIGTERM or SIGINT; the exit status. What keeps it from serving goes to stderr."""
    return _run(loaded.settings, None)


def serve_shard(settings: Settings, number: int) -> int:
    """The same for one shard of several, whose parent has the data folder's lock and has chosen the port."""
    return _run(settings, number)


def _run(settings: Settings, shard: int | None) -> int:
    import uvloop

    log.set_level(settings.log_level)
    try:
        uvloop.run(_serve(settings, shard))
    except VispError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(settings: Settings, shard: int | None) -> None:
    stopping = _stop_on_signals()
    data_dir = premises.prepare_data_dir(settings)
    with contextlib.ExitStack() as stack:
        if shard is None:
            stack.enter_context(premises.locked(data_dir))
        listener = stack.enter_context(premises.listening(settings, is_shared=shard is not None))
        url = premises.url_of(listener)
        async with roles.assembled(settings, data_dir, url, shard or 0) as parts:
            server = _server(parts, settings)
            serving = asyncio.ensure_future(server.serve([listener]))
            sweeping = asyncio.ensure_future(parts.gate.sweep())
            booting = asyncio.ensure_future(_boot(parts, url, data_dir))
            stop = asyncio.ensure_future(stopping.wait())
            try:
                await asyncio.wait({serving, stop, booting}, return_when=asyncio.FIRST_COMPLETED)
                if booting.done() and booting.exception() is None:
                    await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                parts.unready = "stopping"
                server.should_exit = True
                await _settle(parts, settings.http.shutdown_s)
                await asyncio.gather(serving, return_exceptions=True)
                for task in (booting, sweeping, stop):
                    task.cancel()
                await asyncio.gather(booting, sweeping, stop, return_exceptions=True)
            if not booting.cancelled() and (error := booting.exception()) is not None:
                raise error


async def _boot(parts: Parts, url: str, data_dir: Path) -> None:
    """Makes containers possible, then says where the server is: text on a terminal, else one JSON line."""
    await parts.boot()
    gc.collect()
    gc.freeze()  # what is there now stays: it need not be looked through again
    gc.set_threshold(*GC_THRESHOLDS)
    parts.unready = None
    premises.announce(url, data_dir)


async def _settle(parts: Parts, within_s: float) -> None:
    """Lets what is in flight finish. What is accepted and has not begun by then runs at the next start."""
    is_empty = asyncio.Event()
    parts.acks.when_empty(is_empty.set)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await is_empty.wait()
            if parts.leave is not None:
                await parts.leave()


def _stop_on_signals() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; a second one ends the process at once."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set():
            os._exit(130)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stopping


def _server(parts: Parts, settings: Settings) -> Server:
    import uvicorn

    class Quiet(uvicorn.Server):
        """Signals are ours."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    protocol: Any = parts.gate.protocol()
    config = uvicorn.Config(
        parts.site,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=max(1, round(settings.http.shutdown_s)),
    )
    return Quiet(config)
