"""Starts host processes for containers: exactly the descriptors that are named, nothing else inherited.

From the main thread only: a sandbox that dies with its parent follows the thread that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import threading
from typing import TYPE_CHECKING

from visp.container.base import Exit
from visp.errors import StartFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIRST_PRIVATE = 64
"""Descriptors to be passed are moved above this, so that none is overwritten while they take their places."""

_started: set[int] = set()
"""Processes of `start` not yet waited for; `_starting` is held while one is begun, or others are looked for."""
_starting = threading.Lock()


class Process:
    """A child of this process; `exited` is done once it has ended. Raises `ProcessLookupError` for none."""

    __slots__ = ("exited", "handle", "pid")

    def __init__(self, pid: int) -> None:
        self.handle = os.pidfd_open(pid)
        """A descriptor of it; -1 once it has ended."""
        _started.add(pid)
        self.pid = pid
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(self.handle, self._ended)

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self.handle)
        os.close(self.handle)
        self.handle = -1
        _, status = os.waitpid(self.pid, 0)
        _started.discard(self.pid)
        if not self.exited.done():
            self.exited.set_result(Exit(os.waitstatus_to_exitcode(status)))

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self.handle >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.handle, signal.SIGKILL)


def start(argv: Sequence[str], env: Mapping[str, str], descriptors: Mapping[int, int]) -> Process:
    """Runs `argv` (its first word a path) in a session of its own; `descriptors` maps its numbers to ours.

    Raises `StartFailed` when it cannot be run.
    """
    moved = {number: fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, FIRST_PRIVATE) for number, ours in descriptors.items()}
    try:
        with _starting:
            pid = os.posix_spawn(
                argv[0],
                list(argv),
                dict(env),
                file_actions=[(os.POSIX_SPAWN_DUP2, ours, number) for number, ours in moved.items()],
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM),
            )
            _started.add(pid)  # before another thread may look for orphans
    except OSError as error:
        raise StartFailed(f"{argv[0]} cannot be started: {error.strerror}") from None
    finally:
        for ours in moved.values():
            os.close(ours)
    return Process(pid)


def wait_for_orphans() -> None:
    """Where this is the first process, what dead containers leave is its own to wait for: else they stay as zombies.

    They are told from children that someone here waits for by their session: every container has another than ours.
    """
    if os.getpid() != 1:
        return
    with _starting:
        for task in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/children") as file:
                for pid in map(int, file.read().split()):
                    if pid not in _started and os.getsid(pid) != os.getsid(0):
                        os.waitpid(pid, os.WNOHANG)


def end_of(pid: int) -> asyncio.Future[None]:
    """Done once a process, whoever its parent is, has ended; at once for one that is gone."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        ended.set_result(None)
        return ended

    def end() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(descriptor, end)
    return ended


def close_on_exec() -> None:
    """Marks every descriptor that this process was started with: what it inherited must not be passed on."""
    for entry in os.listdir("/proc/self/fd"):
        if int(entry) > 2:
            with contextlib.suppress(OSError):
                os.set_inheritable(int(entry), False)


def memory_file(content: bytes) -> int:
    """A descriptor from which `content` can be read; the caller closes it."""
    descriptor = os.memfd_create("visp")
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
