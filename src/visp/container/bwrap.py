"""The default driver: bubblewrap under a uid of its own, a seccomp filter, limits on the whole tree.

Inside there is `/usr` read-only, an own `/tmp`, the action's code at `/action` and nothing of the host: no file, no
process, no network, no other user. Options travel in a descriptor, so that no host path shows in the sandbox's own
`/proc/1/cmdline`; the environment is empty, for what bubblewrap is given stands in `/proc/1/environ`.
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
from typing import TYPE_CHECKING

import msgspec

from visp.container import seccomp, spawn, watch
from visp.container.base import ContainerSpec
from visp.container.cgroup import joined
from visp.container.local import Launch, LocalDriver, close_pipes
from visp.container.template import CONTROL, ENCLOSURE, answer
from visp.entity.relay import DOOR_NAME, DOOR_PORT, PROXY_PORT, parse_relays
from visp.errors import StartFailed

if TYPE_CHECKING:
    import io
    from collections.abc import Sequence

    from visp.container.base import Pipes
    from visp.container.local import LocalContainer, Place
    from visp.container.spawn import Process
    from visp.settings import Settings

INSIDE_UID = "65534"
SECCOMP, ARGUMENTS, INFORMATION = 9, 10, 11
DOOR_S = 10.0
HOSTS = f"127.0.0.1 localhost {DOOR_NAME}\n::1 localhost\n"
STACK_BYTES = 8 * 1024 * 1024
LOCKED_BYTES = 64 * 1024
SHM_BYTES = 8 * 1024 * 1024
TRIAL_S = 10.0
WORKING = "/tmp"
"""The folder that a container starts in."""

NAMESPACES = (
    *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
    *("--uid", INSIDE_UID, "--gid", INSIDE_UID, "--hostname", "action", "--die-with-parent", "--new-session"),
    *("--cap-drop", "ALL", "--clearenv"),
)
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}
HOST = (
    *("--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"),
    *("--symlink", "usr/lib64", "/lib64", "--symlink", "usr/sbin", "/sbin"),
    *("--symlink", "visp/node_modules", "/node_modules"),
    *("--ro-bind-try", "/etc/ssl", "/etc/ssl", "--ro-bind-try", "/etc/ca-certificates", "/etc/ca-certificates"),
    *("--ro-bind-try", "/etc/alternatives", "/etc/alternatives"),
    *("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", "--ro-bind-try", "/etc/localtime", "/etc/localtime"),
)
"""What of the host is seen inside, where no other root file system is."""
KERNEL = ("--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev")
SYSTEM = (*HOST, *KERNEL)
RUNTIMES = "/opt/visp"
"""Where what visp installs is seen."""


class BwrapDriver(LocalDriver):
    """Containers by bubblewrap."""

    has_doors = True

    def __init__(self, settings: Settings, data_dir: Path, name: str = "bwrap") -> None:
        super().__init__(name, settings, data_dir, self._wrap_command)
        self._filter = b""
        self._programs: dict[str, str] = {}
        self.ports = (DOOR_PORT, PROXY_PORT, *parse_relays(settings.network.relays))
        """Of each container's loopback address, that lead out of it."""

    async def start(self) -> None:
        """Also runs a trial container: what keeps it from running is told here, not at the first invocation."""
        try:
            self._filter = seccomp.program()
        except LookupError:
            raise StartFailed(
                f"driver bwrap has no filter of system calls for {platform.machine()} "
                f"(only for {', '.join(seccomp.ARCHITECTURES)})"
            ) from None
        self._programs = find_programs()
        await super().start()
        await self._try()

    def fingerprint(self) -> bytes:
        """What a verdict on this sandbox depends on: filter, arguments, limits, uid or not."""
        words = (*NAMESPACES, *SYSTEM, *self.cgroups.hierarchies, str(os.geteuid() == 0))
        return self._filter + "\0".join(words).encode() + repr(self.settings.container).encode()

    async def _try(self) -> None:
        container = await self.create(
            ContainerSpec(id=f"trial-{os.getpid()}", argv=("/usr/bin/true",), env={}, memory_mb=64)
        )
        try:
            done, _ = await asyncio.wait([container.exited], timeout=TRIAL_S)
            said = _read_all(container)
            if not done or container.exited.result().status != 0:
                raise StartFailed(explain(said or f"no answer within {TRIAL_S} s"))
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
        shared = ("--ro-bind-try", str(self.runtimes), RUNTIMES, "--ro-bind", str(self._hosts), "/etc/hosts")
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

    def _wrap_command(self, spec: ContainerSpec, place: Place) -> Launch:
        programs = self._programs
        options = [*NAMESPACES]
        for name, value in (ENVIRONMENT | spec.env).items():
            options += ("--setenv", name, value)
        options += self.view(spec.root, spec.scratch_bytes)
        options += ("--perms", "0555", "--dir", "/action", "--ro-bind", str(place.code), "/action")
        for mount in spec.mounts:
            options += ("--ro-bind", mount.host, mount.inside)
        options += ("--remount-ro", "/dev", "--disable-userns", "--seccomp", str(SECCOMP), "--remount-ro", "/")
        options += ("--chdir", WORKING)
        argv = [programs["bwrap"], "--args", str(ARGUMENTS), "--info-fd", str(INFORMATION), "--", programs["prlimit"]]
        argv += (f"--{name}={value}" for name, value in self.rlimits(place, spec.scratch_bytes).items())
        argv += spec.argv
        if place.uid is not None:
            uid = str(place.uid)
            argv = [programs["setpriv"], f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *argv]
        argv = joined(programs["sh"], place.group_files, argv)
        data = b"".join(option.encode() + b"\0" for option in options)
        descriptors = {SECCOMP: spawn.memory_file(self._filter), ARGUMENTS: spawn.memory_file(data)}
        return Launch(argv, {}, descriptors)

    async def _begin(self, launch: Launch) -> tuple[Process, Pipes, Sequence[socket.socket]]:
        told, told_inside = os.pipe2(os.O_CLOEXEC)
        information = os.fdopen(told, "rb")
        descriptors = launch.descriptors | {INFORMATION: told_inside}
        try:
            process, wire = self._start(msgspec.structs.replace(launch, descriptors=descriptors))
        except BaseException:
            information.close()
            raise
        try:
            pid = await _child_of(information)
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
        return doors


async def _child_of(information: io.BufferedReader) -> int | None:
    """The host's number of a sandbox's first process; None for one that was not made."""
    said = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(said), information)
    try:
        async with asyncio.timeout(DOOR_S):
            return msgspec.json.decode(await said.read(), type=_Information).child_pid
    except (TimeoutError, msgspec.DecodeError):
        return None
    finally:
        transport.close()


class _Information(msgspec.Struct, rename="kebab"):
    """What bubblewrap tells of itself."""

    child_pid: int


def find_programs() -> dict[str, str]:
    """The host's programs that the driver starts; raises `StartFailed` naming the package of what is missing."""
    packages = {"bwrap": "bubblewrap", "prlimit": "util-linux", "setpriv": "util-linux", "sh": "dash"}
    found = {name: shutil.which(name, path="/usr/local/bin:/usr/bin:/bin") for name in packages}
    missing = sorted({packages[name] for name, path in found.items() if path is None})
    if missing:
        raise StartFailed(f"driver bwrap needs what is not installed: apt-get install {' '.join(missing)}")
    return {name: path for name, path in found.items() if path is not None}


def explain(said: str) -> str:
    """Why bubblewrap does not work here, and what mends it."""
    if _is_set("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"):
        mend = "AppArmor refuses user namespaces: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    elif Path("/proc/sys/kernel/unprivileged_userns_clone").exists() and not _is_set(
        "/proc/sys/kernel/unprivileged_userns_clone"
    ):
        mend = "user namespaces are off: sysctl kernel.unprivileged_userns_clone=1"
    elif "Permission denied" in said:
        mend = "its user cannot reach a folder: name another by [container] cells_dir"
    else:
        mend = "`visp doctor` looks further"
    return f"driver bwrap does not work here: {said.strip()} ({mend})"


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
