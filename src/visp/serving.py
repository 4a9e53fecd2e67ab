"""Runs a server from its settings to its end: listens, announces itself, and stops in order, or gives way to another.

The port listens as soon as the stores are open; what containers need goes on beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
from typing import TYPE_CHECKING, Any

from visp import handover, premises
from visp.ending import Signals, settle
from visp.errors import VispError
from visp.handover import Inheritance, Leaver, Line, Message
from visp.listening import Listening
from visp.roles import assembly
from visp.settings import Tls
from visp.telemetry import log

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
    from pathlib import Path

    from visp.edge.tls import Certificates
    from visp.roles.assembly import Parts
    from visp.settings import Loaded, Settings

GC_THRESHOLDS = (10_000, 20, 50)
"""Hardly anything on the warm path makes circles; looking for them each 700 objects costs more than it finds."""

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Names of glibc's `mallopt`."""
LARGE_BYTES = 4 * 1024 * 1024
"""From here on an allocation lies on pages of its own, which grow without a copy and go back at once. Left alone, glibc
takes up to 32 MiB from its heap once as much was freed: there a body that grows stands twice.
"""


def serve(loaded: Loaded, *, is_takeover: bool = False) -> int:
    """Runs the server until SIGTERM or SIGINT; the exit status. What keeps it from serving goes to stderr."""
    settings = loaded.settings
    return run(settings, lambda: _serve(settings, is_takeover))


def serve_shard(settings: Settings, number: int, listeners: Sequence[socket.socket], control: socket.socket) -> int:
    """The same for one shard of several, whose parent has the data folder's lock, the port, and the say."""
    return run(settings, lambda: _serve_shard(settings, number, listeners, control))


def run(settings: Settings, serving: Callable[[], Coroutine[None, None, None]]) -> int:
    """Runs it on a loop of the fast kind; the exit status."""
    import uvloop

    log.set_level(settings.log_level)
    try:
        uvloop.run(serving())
    except VispError as error:
        if str(error):
            print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(settings: Settings, is_takeover: bool) -> None:
    data_dir = premises.prepare_data_dir(settings)
    certificates = certificates_of(settings)
    with redirect_port(settings, is_takeover=is_takeover) as redirect:
        inheritance = inherited(settings, data_dir, is_takeover=is_takeover)
        await _live(settings, data_dir, inheritance, certificates, redirect)


async def _live(
    settings: Settings,
    data_dir: Path,
    inheritance: Inheritance,
    certificates: Certificates | None,
    redirect: socket.socket | None,
) -> None:
    """One life, or several: when a new server that was given way to has not come up."""
    signals = Signals()
    with contextlib.ExitStack() as stack:
        if not inheritance.listeners:
            inheritance.listeners.append(stack.enter_context(premises.listening(settings)))
        listeners = inheritance.listeners
        settings = premises.settings_at(settings, listeners[0])
        while True:
            with premises.locked(data_dir):
                async with redirecting(redirect, settings):
                    leaver = await _Life(settings, data_dir, inheritance, signals, certificates).live()
            if leaver is None or await leaver.is_succeeded(signals.stop):
                return
            gc.unfreeze()
            inheritance = Inheritance(listeners, leaver.kept, is_kept=inheritance.is_kept, is_return=True)


def certificates_of(settings: Settings) -> Certificates | None:
    """None for a server without TLS, which imports nothing of it. Raises `CannotStart`."""
    if settings.tls == Tls():
        return None
    from visp.edge import tls

    return tls.certificates_of(settings)


@contextlib.contextmanager
def redirect_port(settings: Settings, *, is_takeover: bool) -> Iterator[socket.socket | None]:
    """The port for plain http beside the encrypted one, if there is to be one. Raises `CannotStart`."""
    if not settings.tls.redirect_port:
        yield None
        return
    from visp.edge import redirect

    with redirect.bound(settings, is_takeover=is_takeover) as listener:
        yield listener


@contextlib.asynccontextmanager
async def redirecting(listener: socket.socket | None, settings: Settings) -> AsyncIterator[None]:
    """Whoever comes there is sent to https, for the block."""
    if listener is None:
        yield
        return
    from visp.edge import redirect

    async with redirect.redirecting(listener, settings.port):
        yield


def inherited(settings: Settings, data_dir: Path, *, is_takeover: bool) -> Inheritance:
    """What there is to begin with: the service manager's sockets, or with `is_takeover` those of the running server.

    By then that one has ended. Whatever is wrong with this server and can be known before is known before.
    Raises `VispError`.
    """
    given = premises.activated(os.environ)
    predecessor = handover.Predecessor.find(data_dir) if is_takeover else None
    if predecessor is None:
        return Inheritance(given, is_kept=bool(given))
    try:
        premises.check_address(settings, predecessor.addresses)
        assembly.rehearse(settings, data_dir)
    except BaseException:
        predecessor.leave()
        raise
    for each in given:
        each.close()  # the same ones, by another way
    log.info("handover.begun", from_pid=predecessor.pid)
    return predecessor.take(is_kept=bool(given))


class _Life:
    """A server in this process, from the opening of its stores until they are closed."""

    def __init__(
        self,
        settings: Settings,
        data_dir: Path,
        inheritance: Inheritance,
        signals: Signals,
        certificates: Certificates | None,
    ) -> None:
        self._settings = settings
        self._data_dir = data_dir
        self._inheritance = inheritance
        self._signals = signals
        self._certificates = certificates
        self._url = premises.url_of(inheritance.listeners[0], settings)

    async def live(self) -> Leaver | None:
        """Until a signal, or until it has given way to the server that is returned. Raises `VispError`."""
        listeners = self._inheritance.listeners
        async with assembly.assembled(self._settings, self._data_dir, self._url) as parts:
            listening = Listening(parts.gate, parts.site, self._certificates)
            parts.doors.answered_by(listening.answer_inside)
            await listening.begin(listeners, self._inheritance.connections)
            sweeping = asyncio.ensure_future(parts.gate.sweep())
            watching = asyncio.ensure_future(watch(self._certificates))
            booting = asyncio.ensure_future(boot(parts, self._url, self._data_dir, self._inheritance))
            try:
                while True:
                    leaver = await self._until_over(parts, booting)
                    if leaver is None:
                        await stop(parts, listening, self._inheritance, self._settings, self._signals.hurry)
                        return None
                    if await self._give_way(parts, listening, leaver):
                        return leaver
            finally:
                listening.close()
                for task in (booting, sweeping, watching):
                    task.cancel()
                await asyncio.gather(booting, sweeping, watching, return_exceptions=True)

    async def _until_over(self, parts: Parts, booting: asyncio.Future[None]) -> Leaver | None:
        """Waits for a signal, or for who is given way to. Raises what kept containers from being possible."""

        def greet() -> Message:
            return handover.hello(self._inheritance.listeners, parts.unready)

        stopping = asyncio.ensure_future(self._signals.stop.wait())
        async with handover.offered(self._data_dir, greet) as asked:
            try:
                awaited: set[asyncio.Future[Any]] = {stopping, asked, booting}
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                if booting.done():
                    booting.result()
                    await asyncio.wait(awaited - {booting}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopping.cancel()
            return Leaver(asked.result()) if asked.done() else None

    async def _give_way(self, parts: Parts, listening: Listening, leaver: Leaver) -> bool:
        """Whether everything is given away; else the new one is gone, and all is as it was."""
        within_s = self._settings.http.shutdown_s
        parts.unready = "it gives way to a new server"
        listening.pause()
        await leaver.begin(self._inheritance.listeners, within_s)
        async with leaver.sending():
            listening.give(leaver.take)
            await settle(parts, listening, within_s, hurry=self._signals.hurry, is_off=leaver.is_off)
        if not leaver.is_off.is_set():
            return True
        leaver.give_up()
        await listening.begin(self._inheritance.listeners, leaver.kept)
        parts.go_on()
        parts.unready = None
        return False


async def watch(certificates: Certificates | None) -> None:
    """Looks after the certificate's files, if there are any, until it is cancelled."""
    if certificates is not None:
        await certificates.watch()


async def boot(parts: Parts, url: str, data_dir: Path, inheritance: Inheritance) -> None:
    """Makes containers possible, then says where the server is: text on a terminal, else one JSON line."""
    await parts.boot()
    gc.collect()
    gc.freeze()  # what is there now stays: it need not be looked through again
    _set_allocator()
    gc.set_threshold(*GC_THRESHOLDS)
    parts.unready = None
    inheritance.confirm()
    if inheritance.is_return:  # who started this server has been told
        log.info("handover.back", url=url)
    else:
        premises.announce(url, data_dir)


async def stop(
    parts: Parts, listening: Listening, inheritance: Inheritance, settings: Settings, hurry: asyncio.Event
) -> None:
    """Ends the port and what is under way, in order."""
    within_s = settings.http.shutdown_s
    log.info("stop.begun", at_most_s=within_s)
    parts.unready = "stopping"
    listening.pause()
    if not inheritance.is_kept:  # whoever is in the queue is ours: nobody accepts there after us
        await listening.accept_rest(inheritance.listeners)
    for each in inheritance.listeners:
        each.close()
    listening.end_connections()
    await settle(parts, listening, within_s, hurry=hurry)


# ── one shard of several ────────────────────────────────────────────────────────────────────────────────────────


async def _serve_shard(
    settings: Settings, number: int, listeners: Sequence[socket.socket], control: socket.socket
) -> None:
    signals = Signals()
    data_dir = premises.prepare_data_dir(settings)
    inheritance = Inheritance(listeners)
    url = premises.url_of(listeners[0], settings)
    certificates = certificates_of(settings)
    async with assembly.assembled(settings, data_dir, url, number) as parts:
        listening = Listening(parts.gate, parts.site, certificates)
        parts.doors.answered_by(listening.answer_inside)
        await listening.begin(listeners)
        sweeping = asyncio.ensure_future(parts.gate.sweep())
        watching = asyncio.ensure_future(watch(certificates))
        booting = asyncio.ensure_future(boot(parts, url, data_dir, inheritance))
        shard = _Shard(settings, parts, listening, inheritance, Line(control), signals, certificates)
        told = asyncio.ensure_future(shard.obey())
        stopping = asyncio.ensure_future(signals.stop.wait())
        try:
            awaited: set[asyncio.Future[Any]] = {told, stopping, booting}
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            if booting.done():
                booting.result()
                await asyncio.wait(awaited - {booting}, return_when=asyncio.FIRST_COMPLETED)
            if not told.done():  # the signal was for this process alone
                await stop(parts, listening, inheritance, settings, signals.hurry)
        finally:
            listening.close()
            tasks = (booting, sweeping, watching, told, stopping)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class _Shard:
    """Does what the parent says: leaves, goes on, or takes what another shard or server has left."""

    def __init__(
        self,
        settings: Settings,
        parts: Parts,
        listening: Listening,
        inheritance: Inheritance,
        line: Line,
        signals: Signals,
        certificates: Certificates | None,
    ) -> None:
        self._settings = settings
        self._certificates = certificates
        self._parts = parts
        self._listening = listening
        self._inheritance = inheritance
        self._line = line
        self._hurry = signals.hurry
        self._is_off = asyncio.Event()
        self._leaving: asyncio.Task[None] | None = None

    async def obey(self) -> None:
        """Until the parent says that all shards are settled, and this one may close."""
        try:
            while (received := await self._line.receive()) is not None:
                message, sockets = received
                match message.what:
                    case "listeners" | "connections":
                        await self._take(message, sockets)
                    case "leave":
                        self._leaving = asyncio.create_task(self._leave(message.is_handover))
                    case "hurry":
                        self._hurry.set()
                    case "stay":
                        await self._stay()
                    case "reload":
                        if self._certificates is not None:
                            self._certificates.ask()
                    case _:
                        return
        finally:
            if self._leaving is not None:
                self._leaving.cancel()

    async def _take(self, message: Message, sockets: list[socket.socket]) -> None:
        is_listening = message.what == "listeners"
        if is_listening:
            self._inheritance.listeners += sockets
        if self._leaving is None:
            await self._listening.begin(sockets if is_listening else (), () if is_listening else sockets)

    async def _leave(self, is_handover: bool) -> None:
        if is_handover:
            self._parts.unready = "it gives way to a new server"
            self._listening.pause()
            leaver = Leaver(self._line)
            async with leaver.sending(is_watched=False):
                self._listening.give(leaver.take)
                within_s = self._settings.http.shutdown_s
                await settle(self._parts, self._listening, within_s, hurry=self._hurry, is_off=self._is_off)
            for each in leaver.kept:
                each.close()  # the parent keeps them
        else:
            await stop(self._parts, self._listening, self._inheritance, self._settings, self._hurry)
        if not self._is_off.is_set():
            await self._line.send(Message(what="idle"))

    async def _stay(self) -> None:
        """The new server is gone."""
        self._is_off.set()
        if self._leaving is not None:
            await self._leaving
            self._leaving = None
        self._is_off.clear()
        await self._listening.begin(self._inheritance.listeners)
        self._parts.go_on()
        self._parts.unready = None


def _set_allocator() -> None:
    """Where the C library has no such choice, nothing."""
    import ctypes

    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for name in (MMAP_THRESHOLD, TRIM_THRESHOLD):
            library.mallopt(name, LARGE_BYTES)
