"""The thickest wall: gVisor, whose kernel of its own answers the code, so that the host's is not reached.

For code that is hostile: a container takes a third of a second to start and 50 MB beside its own memory. It runs
rootless, under the container's uid, in the server's control groups. It has no network at all, so no doors either:
actions that call the platform cannot run in it.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, ClassVar

import msgspec

from visp.container.cgroup import Limits
from visp.container.local import MIB, REPLIES, Launch
from visp.container.sandbox import BARE, INSIDE_UID, SEARCHED, SandboxDriver
from visp.container.view import ENVIRONMENT, WORKING, Bind, Link, Scratch, Seen, seen
from visp.errors import StartFailed
from visp.settings import runtimes_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from visp.container.base import ContainerSpec
    from visp.container.local import Place
    from visp.settings import Settings

FOLDER, PROGRAM = "runsc", "runsc"
"""Of the runtimes, and in it."""
OVERHEAD_MB = 96
"""Of the kernel and what serves its files, in the container's groups."""
OVERHEAD_PROCESSES = 512
"""Its threads, counted as processes too."""
WORDS = ("--rootless", "--platform=systrap", "--network=none", "--ignore-cgroups", "--overlay2=root:memory")
READ_ONLY = ("ro", "rbind", "nosuid", "nodev")
OWN_FOLDERS = ("action", "dev", "etc", "opt", "proc", "tmp", "visp")


class RunscDriver(SandboxDriver):
    """Containers by gVisor."""

    lacks = ("doors: actions cannot call the platform",)
    packages: ClassVar = {"setpriv": "util-linux", "sh": "dash"}
    must_be: ClassVar[Mapping[str, object]] = {
        name: BARE[name]
        for name in ("uid", "groups", "capabilities", "no_new_privileges", "descriptors", "writable", "interfaces")
    }
    leaves_open: ClassVar = ("call ", "other_family", "first_environ")
    """What gVisor's own kernel answers, which knows nothing of the host's."""

    def __init__(self, settings: Settings, data_dir: Path) -> None:
        super().__init__("runsc", settings, data_dir)
        self._runsc = ""

    async def start(self) -> None:
        self._runsc = find(self.settings)
        await super().start()

    def _compile_filter(self) -> bytes:
        """None: gVisor puts itself under one of its own."""
        return b""

    def _words(self) -> Sequence[str]:
        return (*WORDS, self._runsc)

    def _limits(self, spec: ContainerSpec) -> Limits:
        bare = super()._limits(spec)
        return Limits(memory_bytes=bare.memory_bytes + OVERHEAD_MB * MIB, processes=bare.processes + OVERHEAD_PROCESSES)

    def _wrap_command(self, spec: ContainerSpec, place: Place) -> Launch:
        folder = self.cells.make_scratch(place.name, place.uid)
        view = list(seen(self.view(spec.root, spec.scratch_bytes)))
        view += [Bind(str(place.code), "/action"), *(Bind(mount.host, mount.inside) for mount in spec.mounts)]
        _lay_out(folder / "rootfs", view)
        (folder / "state").mkdir(mode=0o700)
        if place.uid is not None:
            os.chown(folder / "state", place.uid, place.uid)
        (folder / "config.json").write_bytes(msgspec.json.encode(self._bundle(spec, place, view)))
        argv = [self._runsc, *WORDS, "--root", str(folder / "state"), "run", f"--pass-fd={REPLIES}:{REPLIES}"]
        argv += ("--bundle", str(folder), place.name)
        return Launch(self._as_its_uid(place, argv, "--pdeathsig", "KILL"), {}, {})

    def _bundle(self, spec: ContainerSpec, place: Place, view: Sequence[Seen]) -> dict[str, object]:
        """A container's description in the format of the Open Container Initiative."""
        limits = self.rlimits(place, spec.scratch_bytes)
        env = ENVIRONMENT | spec.env | {"PWD": WORKING}
        return {
            "ociVersion": "1.0.2",
            "hostname": "action",
            "root": {"path": "rootfs", "readonly": True},
            "process": {
                "user": {"uid": int(INSIDE_UID), "gid": int(INSIDE_UID)},
                "args": spec.argv,
                "env": [f"{name}={value}" for name, value in env.items()],
                "cwd": WORKING,
                "capabilities": {name: [] for name in ("bounding", "effective", "inheritable", "permitted", "ambient")},
                "noNewPrivileges": True,
                "rlimits": [
                    {"type": f"RLIMIT_{name.upper()}", "hard": value, "soft": value} for name, value in limits.items()
                ],
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["ro"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=0755"]},
                *(_mount(one) for one in view if not isinstance(one, Link)),
            ],
            "linux": {"namespaces": [{"type": name} for name in ("pid", "network", "ipc", "uts", "mount")]},
        }


def _mount(one: Bind | Scratch) -> dict[str, object]:
    if isinstance(one, Bind):
        return {"destination": one.inside, "type": "bind", "source": one.host, "options": READ_ONLY}
    options = [f"size={one.size_bytes}", "mode=1777", "nosuid", "nodev"]
    return {"destination": one.inside, "type": "tmpfs", "source": "tmpfs", "options": options}


def _lay_out(rootfs: Path, view: Sequence[Seen]) -> None:
    """The root that everything is mounted on: a point for each, and links."""
    for name in OWN_FOLDERS:
        (rootfs / name).mkdir(parents=True, exist_ok=True)
    for one in view:
        point = rootfs / one.inside.lstrip("/")
        if any((rootfs / bound.inside.lstrip("/")) in point.parents for bound in view if isinstance(bound, Bind)):
            continue  # it is there already, in what is mounted
        point.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(one, Link):
            point.symlink_to(one.target)
        elif isinstance(one, Scratch) or os.path.isdir(one.host):
            point.mkdir(exist_ok=True)
        else:
            point.touch()


def find(settings: Settings) -> str:
    """The program; raises `StartFailed` where there is none."""
    installed = runtimes_folder(settings) / FOLDER / PROGRAM
    program = str(installed) if os.access(installed, os.X_OK) else shutil.which(PROGRAM, path=SEARCHED)
    if program is None:
        raise StartFailed("driver runsc needs what is not installed: visp runtime install runsc")
    return program
