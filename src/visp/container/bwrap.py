"""The default driver: bubblewrap under a uid of its own, a seccomp filter, limits on the whole tree.

Inside there is `/usr` read-only, an own `/tmp`, the action's code at `/action` and nothing of the host: no file, no
process, no network, no other user. Options travel in a descriptor, so that no host path shows in the sandbox's own
`/proc/1/cmdline`; the environment is empty, for what bubblewrap is given stands in `/proc/1/environ`.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, ClassVar

import msgspec

from visp.container import spawn
from visp.container.local import Launch
from visp.container.sandbox import INSIDE_UID, SandboxDriver
from visp.container.view import ENVIRONMENT, WORKING

if TYPE_CHECKING:
    import io
    import socket
    from collections.abc import Sequence
    from pathlib import Path

    from visp.container.base import ContainerSpec, Pipes
    from visp.container.local import Place
    from visp.container.spawn import Process
    from visp.settings import Settings

SECCOMP, ARGUMENTS, INFORMATION = 9, 10, 11
DOOR_S = 10.0

NAMESPACES = (
    *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
    *("--uid", INSIDE_UID, "--gid", INSIDE_UID, "--hostname", "action", "--die-with-parent", "--new-session"),
    *("--cap-drop", "ALL", "--clearenv"),
)


class BwrapDriver(SandboxDriver):
    """Containers by bubblewrap."""

    has_doors = True
    packages: ClassVar = {"bwrap": "bubblewrap", "prlimit": "util-linux", "setpriv": "util-linux", "sh": "dash"}

    def __init__(self, settings: Settings, data_dir: Path, name: str = "bwrap") -> None:
        super().__init__(name, settings, data_dir)

    def _words(self) -> Sequence[str]:
        return NAMESPACES

    def _wrap_command(self, spec: ContainerSpec, place: Place) -> Launch:
        options = [*NAMESPACES]
        for name, value in (ENVIRONMENT | spec.env).items():
            options += ("--setenv", name, value)
        options += self.view(spec.root, spec.scratch_bytes)
        options += ("--perms", "0555", "--dir", "/action", "--ro-bind", str(place.code), "/action")
        for mount in spec.mounts:
            options += ("--ro-bind", mount.host, mount.inside)
        options += ("--remount-ro", "/dev", "--disable-userns", "--seccomp", str(SECCOMP), "--remount-ro", "/")
        options += ("--chdir", WORKING)
        argv = [self._programs["bwrap"], "--args", str(ARGUMENTS), "--info-fd", str(INFORMATION), "--"]
        argv += (*self._limited(spec, place), *spec.argv)
        data = b"".join(option.encode() + b"\0" for option in options)
        descriptors = {SECCOMP: spawn.memory_file(self._filter), ARGUMENTS: spawn.memory_file(data)}
        return Launch(self._as_its_uid(place, argv), {}, descriptors)

    async def _begin(self, launch: Launch) -> tuple[Process, Pipes, Sequence[socket.socket]]:
        told, told_inside = os.pipe2(os.O_CLOEXEC)
        information = os.fdopen(told, "rb")
        descriptors = launch.descriptors | {INFORMATION: told_inside}
        try:
            process, wire = self._start(msgspec.structs.replace(launch, descriptors=descriptors))
        except BaseException:
            information.close()
            raise
        return await self._open(process, wire, _child_of(information))


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
