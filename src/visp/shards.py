"""A server of several shards: the process that starts them, watches them, and starts again what has ended.

It has no hot work: it keeps the data folder's lock and the port, hands them on, and says when all are ready. The shards
die with it. Shard 0 is started first, for it makes what is made once: keys, tables, the sandbox's verdict.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING

import msgspec

from visp import premises
from visp.errors import VispError
from visp.premises import CannotStart
from visp.settings import Settings
from visp.telemetry import log

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from visp.settings import Loaded

CALM_S = 10.0
"""A shard that lived for this long is started again at once; one that keeps ending sooner waits, longer each time."""
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
BURY_S = 0.5
PR_SET_PDEATHSIG = 1


class Task(msgspec.Struct, frozen=True):
    """What a shard is told: its settings (its share of them), and who its parent is."""

    parent: int
    settings: Settings


def serve(loaded: Loaded) -> int:
    """Runs the server until SIGTERM or SIGINT; the exit status. What keeps it from serving goes to stderr."""
    log.set_level(loaded.settings.log_level)
    try:
        asyncio.run(_serve(loaded.settings))
    except VispError as error:
        if str(error):
            print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(settings: Settings) -> None:
    data_dir = premises.prepare_data_dir(settings)
    with premises.locked(data_dir) as lock, _port(settings) as reserved:
        host, port = reserved.getsockname()[:2]
        share = msgspec.structs.replace(premises.share_of(settings), host=host, port=port, data_dir=str(data_dir))
        await Parent(share, lock, premises.url_of(reserved), data_dir).run()


@contextlib.contextmanager
def _port(settings: Settings) -> Iterator[socket.socket]:
    """The port, bound and not listened on, so that it stays this server's; raises `CannotStart`.

    It is bound alone before it is bound to be shared: another server's shared port would let itself be shared.
    """
    with premises.listening(settings) as alone:
        port = alone.getsockname()[1]
    with premises.listening(msgspec.structs.replace(settings, port=port), is_shared=True) as shared:
        yield shared


class NotServing(CannotStart):
    """A shard ended before it was ready; it said why."""


class Parent:
    """Starts the shards and keeps them running."""

    def __init__(self, settings: Settings, lock: int, url: str, data_dir: Path) -> None:
        self._settings = settings
        self._lock = lock
        self._url = url
        self._data_dir = data_dir
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._ready = [asyncio.Event() for _ in range(settings.workers)]
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until a signal has stopped it and all shards have ended. Raises `NotServing`."""
        loop = asyncio.get_running_loop()
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, self._stop)
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(self._settings.workers):
                    tasks.create_task(self._keep(number))
                tasks.create_task(self._announce())
                if os.getpid() == 1:
                    tasks.create_task(self._bury())
        except* NotServing as group:
            raise group.exceptions[0] from None

    def _stop(self) -> None:
        """The first signal is handed on; after a second one the shards die with this process."""
        if self._stopping.is_set():
            os._exit(130)
        self._stopping.set()
        for process in self._processes.values():
            process.terminate()

    async def _announce(self) -> None:
        for ready in self._ready:
            await self._wait(ready)
        if not self._stopping.is_set():
            premises.announce(self._url, self._data_dir)

    async def _bury(self) -> None:
        while not self._stopping.is_set():
            await self._wait(asyncio.Event(), BURY_S)
            bury_orphans({process.pid for process in self._processes.values()})

    async def _wait(self, event: asyncio.Event, within_s: float | None = None) -> None:
        """Until the event, the stop, or the end of the time."""
        waiting = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._stopping.wait())]
        await asyncio.wait(waiting, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        for waiter in waiting:
            waiter.cancel()

    async def _keep(self, number: int) -> None:
        """Starts a shard, again and again."""
        if number:
            await self._wait(self._ready[0])
        loop, wait_s, restarts = asyncio.get_running_loop(), 0.0, 0
        while not self._stopping.is_set():
            began_s = loop.time()
            status = await self._run_once(number)
            if self._stopping.is_set():
                return
            if not self._ready[number].is_set():
                self._stop()
                raise NotServing("")
            restarts += 1
            wait_s = next_wait_s(wait_s, loop.time() - began_s, restarts)
            log.error("shard.ended", shard=number, status=status, restarts=restarts, next_start_s=wait_s)
            await self._wait(asyncio.Event(), wait_s)

    async def _run_once(self, number: int) -> int:
        """One life of a shard; its exit status."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "visp.shards",
            str(number),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=(self._lock,),
            start_new_session=True,  # a terminal's Ctrl-C is for the parent alone
        )
        self._processes[number] = process
        try:
            if self._stopping.is_set():
                process.terminate()
            assert process.stdin is not None
            assert process.stdout is not None
            task = Task(os.getpid(), self._settings)
            with contextlib.suppress(ConnectionError):
                process.stdin.write(msgspec.json.encode(task))
                await process.stdin.drain()
                process.stdin.close()
            if await process.stdout.readline():
                self._ready[number].set()
            return await process.wait()
        finally:
            del self._processes[number]


def next_wait_s(before_s: float, lived_s: float, restarts: int) -> float:
    """How long a shard's next start waits, by the wait before it, how long the shard lived, and how often it ended."""
    if restarts == 1 or lived_s >= CALM_S:
        return 0.0
    return min(max(FIRST_WAIT_S, 2 * before_s), LONGEST_WAIT_S)


def bury_orphans(own: set[int]) -> None:
    """The first process of a container becomes the parent of every orphan: those that ended are waited for."""
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/children") as file:
            for pid in set(map(int, file.read().split())) - own:
                os.waitpid(pid, os.WNOHANG)


def main(number: int) -> int:
    """One shard; what it is told it reads from standard input."""
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != task.parent:  # it ended before we asked to die with it
        return 1
    from visp import serving

    return serving.serve_shard(task.settings, number)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
