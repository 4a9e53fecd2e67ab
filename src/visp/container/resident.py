"""A container's first process where another program of this machine made the container, and visp is root.

Its end is seen at once, it is killed, frozen and spoken to directly: by the kernel, without asking whoever made it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NEW_NETWORK = 0x40000000
UP_AND_RUNNING, SET_FLAGS = 0x41, 0x8914
LOOPBACK = "127.0.0.1"
BACKLOG = 16
ROOT = Path("/sys/fs/cgroup")
FREEZE_S = 0.5
CHECK_S = 0.002

_libc = ctypes.CDLL(None, use_errno=True)


class Resident:
    """One process, held by descriptors: its number may be another's after its end. `close` it."""

    def __init__(self, pid: int, groups: dict[str, Path]) -> None:
        """Raises `OSError` for a process that is gone."""
        self.pid = pid
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.was_out_of_memory = False
        self._groups = groups
        self._process = os.pidfd_open(pid)
        try:
            self._network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(self._process)
            raise
        asyncio.get_running_loop().add_reader(self._process, self._end)

    @classmethod
    def find(cls, pid: int, mark: str) -> Resident | None:
        """The process with this number, if it is in a control group named after `mark`.

        Whoever made the container may count processes in another namespace than ours, or on another machine: then
        the number is a stranger's. None too where visp may not enter other namespaces.
        """
        if os.geteuid() != 0 or pid <= 0:
            return None
        try:
            groups = _groups_of(pid, mark)
            return cls(pid, groups) if groups else None
        except OSError:
            return None

    def _end(self) -> None:
        self.was_out_of_memory = self._has_run_out_of_memory()  # before whoever made the group removes it
        asyncio.get_running_loop().remove_reader(self._process)
        if not self.ended.done():
            self.ended.set_result(None)

    def kill(self) -> None:
        """SIGKILL; the kernel ends all others of its process namespace with it."""
        if not self.ended.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def close(self) -> None:
        """Nothing is told from now on."""
        if self._process < 0:
            return
        asyncio.get_running_loop().remove_reader(self._process)
        os.close(self._process)
        os.close(self._network)
        self._process = self._network = -1

    # ── its control groups ──────────────────────────────────────────────────────────────────────────────────────

    async def freeze(self, is_frozen: bool) -> bool:
        """Whether that was done: not where no group of its own can be frozen."""
        file, words, looked_at = self._freezer()
        if file is None:
            return False
        try:
            file.write_text(words[is_frozen])
            async with asyncio.timeout(FREEZE_S):
                while not looked_at(is_frozen):  # noqa: ASYNC110 - the kernel has no other way to tell
                    await asyncio.sleep(CHECK_S)
        except (OSError, TimeoutError):
            with contextlib.suppress(OSError):
                file.write_text(words[False])
            return False
        return True

    def thaw(self) -> None:
        """At once, frozen or not: what is frozen cannot end."""
        file, words, _ = self._freezer()
        if file is not None:
            with contextlib.suppress(OSError):
                file.write_text(words[False])

    def _freezer(self) -> tuple[Path | None, dict[bool, str], Callable[[bool], bool]]:
        """The file that freezes, what is written to it, and how it is seen that it was obeyed."""
        one, two = self._groups.get("freezer"), self._groups.get("")
        if one is not None:
            file, words = one / "freezer.state", {True: "FROZEN", False: "THAWED"}
            return file, words, lambda is_frozen: file.read_text().strip() == words[is_frozen]
        if two is not None:
            events = two / "cgroup.events"
            return (
                two / "cgroup.freeze",
                {True: "1", False: "0"},
                lambda is_frozen: f"frozen {int(is_frozen)}" in events.read_text(),
            )
        return None, {}, bool

    def _has_run_out_of_memory(self) -> bool:
        for hierarchy, name in (("memory", "memory.oom_control"), ("", "memory.events")):
            group = self._groups.get(hierarchy)
            if group is None:
                continue
            try:
                lines = (group / name).read_text().splitlines()
            except OSError:
                continue
            if any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in lines):
                return True
        return False

    # ── its network ─────────────────────────────────────────────────────────────────────────────────────────────

    async def connect(self, port: int) -> socket.socket:
        """A connection to a port of its loopback address; raises `OSError`."""
        if self._process < 0:
            raise ConnectionRefusedError("the container is gone")
        (sock,) = await self._inside(lambda: (_endpoint(),))
        try:
            await asyncio.get_running_loop().sock_connect(sock, (LOOPBACK, port))
        except BaseException:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    async def listen(self, ports: Sequence[int]) -> Sequence[socket.socket]:
        """Sockets that listen at these ports of its loopback address; raises `OSError`."""
        return await self._inside(lambda: _listen(ports))

    async def _inside(self, make: Callable[[], Sequence[socket.socket]]) -> Sequence[socket.socket]:
        """What is made by a thread that enters the network and ends there: a socket stays where it was made."""
        loop = asyncio.get_running_loop()
        made: asyncio.Future[Sequence[socket.socket]] = loop.create_future()
        network = os.dup(self._network)

        def settle(sockets: Sequence[socket.socket], error: OSError | None) -> None:
            if made.done():
                for sock in sockets:
                    sock.close()
            elif error is not None:
                made.set_exception(error)
            else:
                made.set_result(sockets)

        def enter() -> None:
            sockets: Sequence[socket.socket] = ()
            failed: OSError | None = None
            try:
                if _libc.setns(network, NEW_NETWORK) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number))
                sockets = make()
            except OSError as error:
                failed = error
            finally:
                os.close(network)
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, sockets, failed)

        threading.Thread(target=enter, name="visp-network", daemon=True).start()
        return await made


def _endpoint() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    return sock


def _listen(ports: Sequence[int]) -> Sequence[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for port in ports:
            sock = _endpoint()
            sockets.append(sock)
            if len(sockets) == 1:
                fcntl.ioctl(sock, SET_FLAGS, struct.pack("16sh14x", b"lo", UP_AND_RUNNING))
            sock.bind((LOOPBACK, port))
            sock.listen(BACKLOG)
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _groups_of(pid: int, mark: str) -> dict[str, Path]:
    """The folders of its control groups that are named after `mark`, by controller; the second version's is empty."""
    found = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if mark not in path:
            continue
        for controller in controllers.split(","):
            places = (ROOT / controller, ROOT / controllers) if controller else (ROOT, ROOT / "unified")
            folder = next((place / path.lstrip("/") for place in places if _is_in(place / path.lstrip("/"), pid)), None)
            found[controller] = folder or ROOT / "nowhere"
    return found


def _is_in(folder: Path, pid: int) -> bool:
    try:
        return str(pid) in (folder / "cgroup.procs").read_text().split()
    except OSError:
        return False
