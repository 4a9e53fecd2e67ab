"""What drivers share that wall code off: filter, limits, a trial, doors, and what the escape probe must find.

A sandbox is a program of the host, started under the container's own uid, which becomes what should run inside.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import socket
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec

from visp.container import seccomp, spawn, watch
from visp.container.base import ContainerSpec
from visp.container.cgroup import joined
from visp.container.local import LocalDriver, close_pipes
from visp.container.template import CONTROL, ENCLOSURE, answer, door_sockets
from visp.container.view import KERNEL, RUNTIMES, SYSTEM
from visp.entity.relay import DOOR_NAME, DOOR_PORT, PROXY_PORT, parse_relays
from visp.errors import StartFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from visp.container.base import Pipes
    from visp.container.local import Launch, LocalContainer, Place
    from visp.container.spawn import Process
    from visp.settings import Settings

INSIDE_UID = "65534"
HOSTS = f"127.0.0.1 localhost {DOOR_NAME}\n::1 localhost\n"
STACK_BYTES = 8 * 1024 * 1024
LOCKED_BYTES = 64 * 1024
SHM_BYTES = 8 * 1024 * 1024
TRIAL_S = 10.0
SEARCHED = "/usr/local/bin:/usr/bin:/bin"

INIT = 'exec 4>&2 2>/dev/null; "$@" 2>&4 4>&-; exit $?'
"""For a shell that is the first process: it waits for orphans, is silent, and ends as what it runs. Fixed text."""

BARE: dict[str, object] = {
    "uid": [65534, 65534],
    "groups": [],
    "capabilities": ["", "", "", ""],
    "bounding": "",
    "no_new_privileges": "1",
    "seccomp": "2",
    "descriptors": [0, 1, 2, 3],
    "writable": ["/tmp", "/dev/shm"],
    "interfaces": ["lo"],
}
"""Facts that the escape probe finds inside namespaces of every sort."""


class SandboxDriver(LocalDriver):
    """A driver whose containers the escape probe must not leave."""

    nameserver: str | None = None
    """Whom containers ask what names mean, where they send packets of their own; set before `start`."""
    packages: ClassVar[Mapping[str, str]]
    """Programs of the host that it starts → what brings them."""
    must_be: ClassVar[Mapping[str, object]] = BARE
    """What the probe finds, by the names of its facts; what is not named may be anything."""
    leaves_open: ClassVar[tuple[str, ...]] = ()
    """Attempts of the probe that this sandbox does not refuse, by the beginnings of their names."""

    def __init__(self, name: str, settings: Settings, data_dir: Path) -> None:
        super().__init__(name, settings, data_dir, self._wrap_command)
        self._filter = b""
        self._programs: dict[str, str] = {}
        self.ports = (DOOR_PORT, PROXY_PORT, *parse_relays(settings.network.relays))
        """Of each container's loopback address, that lead out of it."""

    async def start(self) -> None:
        """Also runs a trial container: what keeps it from running is told here, not at the first invocation."""
        try:
            self._filter = self._compile_filter()
        except LookupError:
            raise StartFailed(
                f"driver {self.name} has no filter of system calls for {platform.machine()} "
                f"(only for {', '.join(seccomp.ARCHITECTURES)})"
            ) from None
        self._programs = find_programs(self.name, self.packages)
        await super().start()
        await self._try()

    def _compile_filter(self) -> bytes:
        return seccomp.program()

    def fingerprint(self) -> bytes:
        """What a verdict on this sandbox depends on: filter, arguments, limits, uid or not."""
        words = (*self._words(), *SYSTEM, *self.cgroups.hierarchies, str(os.geteuid() == 0))
        limits = msgspec.structs.replace(self.settings.container, cells_dir="")
        return self._filter + "\0".join(words).encode() + repr(limits).encode()

    def _words(self) -> Sequence[str]:
        """What of its arguments is always the same."""
        raise NotImplementedError

    def _wrap_command(self, spec: ContainerSpec, place: Place) -> Launch:
        raise NotImplementedError

    async def _try(self) -> None:
        container = await self.create(
            ContainerSpec(id=f"trial-{os.getpid()}", argv=("/usr/bin/true",), env={}, memory_mb=64)
        )
        try:
            done, _ = await asyncio.wait([container.exited], timeout=TRIAL_S)
            said = _read_all(container)
            if not done:
                raise StartFailed(explain(self.name, said or f"no end within {TRIAL_S} s"))
            status = container.exited.result().status
            if status != 0:
                raise StartFailed(explain(self.name, said or f"the trial ended with status {status}"))
        finally:
            await container.destroy()

    @cached_property
    def _hosts(self) -> Path:
        """What names mean inside."""
        return self.cells.install("hosts", HOSTS.encode())

    @cached_property
    def _enclosure(self) -> Path:
        """The program that opens the doors of a sandbox that stands."""
        return self.cells.install("enclosure.py", ENCLOSURE.read_bytes())

    def view(self, root: str | None = None, scratch_bytes: int | None = None) -> tuple[str, ...]:
        """bubblewrap's words for what every container sees, but its code and programs."""
        system = SYSTEM if root is None else ("--ro-bind", root, "/", *KERNEL)
        shared = ["--ro-bind-try", str(self.runtimes), RUNTIMES, "--ro-bind", str(self._hosts), "/etc/hosts"]
        if self.nameserver is not None:
            resolver = self.cells.install("resolv.conf", f"nameserver {self.nameserver}\n".encode())
            shared += ("--ro-bind", str(resolver), "/etc/resolv.conf")
        own = ("--size", str(scratch_bytes or self.settings.container.file_bytes), "--tmpfs", "/tmp")
        return (*system, *shared, *own, "--size", str(SHM_BYTES), "--tmpfs", "/dev/shm")

    def rlimits(self, place: Place, scratch_bytes: int | None = None) -> dict[str, int]:
        """What bounds each process, by the kernel's names."""
        limits = self.settings.container
        return {
            "nproc": place.processes,
            "nofile": limits.open_files,
            "core": 0,
            "fsize": scratch_bytes or limits.file_bytes,
            "data": place.data_bytes,
            "stack": STACK_BYTES,
            "memlock": LOCKED_BYTES,
            "msgqueue": 0,
        }

    def _limited(self, spec: ContainerSpec, place: Place) -> list[str]:
        """The command inside, by the program that sets its limits."""
        limits = self.rlimits(place, spec.scratch_bytes)
        return [self._programs["prlimit"], *(f"--{name}={value}" for name, value in limits.items())]

    def _as_its_uid(self, place: Place, argv: Sequence[str], *options: str) -> list[str]:
        """A host command in the container's groups, under its uid where it has one; `options` are setpriv's."""
        if place.uid is not None:
            uid = str(place.uid)
            options = (f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *options)
        argv = [self._programs["setpriv"], *options, *argv] if options else list(argv)
        return joined(self._programs["sh"], place.group_files, argv)

    async def _open(
        self, process: Process, wire: Pipes, first: Awaitable[int | None]
    ) -> tuple[Process, Pipes, Sequence[socket.socket]]:
        """A container that was begun, with the doors of the sandbox of which `first` becomes the first process."""
        try:
            pid = await first
            return process, wire, () if pid is None else await self._doors_of(pid)
        except BaseException:
            watch.end_tree(process.pid)
            close_pipes(wire)
            await asyncio.shield(process.exited)
            raise

    async def _doors_of(self, pid: int) -> Sequence[socket.socket]:
        """Opens the doors of a sandbox whose first process this is; none if it has ended meanwhile."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            ours.setblocking(False)
            argv = [sys.executable, "-I", "-S", str(self._enclosure), "doors", str(pid), *map(str, self.ports)]
            opener = spawn.start(argv, {}, {CONTROL: theirs.fileno()})
            theirs.close()
            try:
                _, doors = await answer(ours)
            except OSError:
                doors = ()
            await opener.exited
        return door_sockets(doors)


def find_programs(driver: str, packages: Mapping[str, str]) -> dict[str, str]:
    """The host's programs that a driver starts; raises `StartFailed` naming the package of what is missing."""
    found = {name: shutil.which(name, path=SEARCHED) for name in packages}
    missing = sorted({packages[name] for name, path in found.items() if path is None})
    if missing:
        raise StartFailed(f"driver {driver} needs what is not installed: apt-get install {' '.join(missing)}")
    return {name: path for name, path in found.items() if path is not None}


def explain(driver: str, said: str) -> str:
    """Why a sandbox does not work here, and what mends it."""
    if _is_set("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"):
        mend = "AppArmor refuses user namespaces: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    elif Path("/proc/sys/kernel/unprivileged_userns_clone").exists() and not _is_set(
        "/proc/sys/kernel/unprivileged_userns_clone"
    ):
        mend = "user namespaces are off: sysctl kernel.unprivileged_userns_clone=1"
    elif not _is_set("/proc/sys/user/max_user_namespaces"):
        mend = "user namespaces are off: sysctl user.max_user_namespaces=10000"
    elif "Permission denied" in said:
        mend = "its user cannot reach a folder: name another by [container] cells_dir"
    else:
        mend = "`visp doctor` looks further"
    return f"driver {driver} does not work here: {said.strip()} ({mend})"


def _is_set(path: str) -> bool:
    try:
        return Path(path).read_text().strip() != "0"
    except OSError:
        return False


def _read_all(container: LocalContainer) -> str:
    try:
        return os.read(container.wire.stderr, 4096).decode("utf-8", "replace")
    except BlockingIOError:
        return ""
