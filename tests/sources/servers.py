"""Servers that sources read from, started for the tests on free ports, and what stands between to be cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

HERE = Path(__file__).parent
POUCHDB = HERE / "node_modules" / ".bin" / "pouchdb-server"
MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
PATIENCE_S = 30.0


def why_no_couch() -> str | None:
    if shutil.which("node") is None:
        return "node is not installed: apt-get install nodejs"
    return None if POUCHDB.exists() else "pouchdb-server is missing: npm ci --prefix tests/sources"


def why_no_mosquitto() -> str | None:
    return None if MOSQUITTO else "mosquitto is not installed: apt-get install mosquitto"


@contextlib.contextmanager
def program(command: list[str], folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Runs in a folder for the block, from when its port is open."""
    with (folder / f"output-{port}").open("ab") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        until = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            said = (folder / f"output-{port}").read_text()
            assert process.poll() is None, said
            assert time.monotonic() < until, said
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait(10)


class Wire:
    """A port that leads to another, and can be cut."""

    def __init__(self, to: int) -> None:
        self.port = 0
        self.connections = 0
        self._to = to
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def join(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there = None
        try:
            from_there, there = await asyncio.open_connection("127.0.0.1", self._to)
            self._open |= {writer, there}
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, there))
                group.create_task(_copy(from_there, writer))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in filter(None, (writer, there)):
                self._open.discard(each)
                each.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while part := await reader.read(65536):
        writer.write(part)
        await writer.drain()
    raise ConnectionResetError


@contextlib.asynccontextmanager
async def wire(to: int) -> AsyncIterator[Wire]:
    made = Wire(to)
    await made.join()
    try:
        yield made
    finally:
        await made.cut()
