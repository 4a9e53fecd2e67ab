"""The last wall, where user namespaces are refused: Landlock, a filter of system calls, limits, and a watch.

No namespaces: code shares the host's network stack (but reaches nothing save the platform's own port), has no /tmp, of
/proc its own map of memory alone, and its scratch folder has no size. It is told apart from others by its uid, and
where the server is not root by nothing: so one namespace alone is served, unless the operator allows more.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from importlib import resources
from typing import TYPE_CHECKING, ClassVar

import msgspec

from visp import wording
from visp.container import seccomp, spawn, watch
from visp.container.base import Mount
from visp.container.local import Launch
from visp.container.nsjail import assignments
from visp.container.sandbox import SEARCHED, SandboxDriver
from visp.container.template import limits_of
from visp.container.view import ENVIRONMENT, RUNTIMES, WORKING, Bind, on_host, seen
from visp.errors import StartFailed
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from visp.container.base import ContainerSpec
    from visp.container.local import Place
    from visp.settings import Settings

CONFINE = resources.files("visp.container").joinpath("confine.py")
PLAN = 4
ABI, ABI_OF_ONE_USER = 4, 6
"""The least that will do; where all containers have the server's own uid, signals must be refused too."""
ABI_S = 10.0
REMINDED_S = 3600.0
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
WARNING = (
    "the sandbox is WEAK: this machine refuses user namespaces, so code shares the host's network stack and process "
    "table, its scratch folder has no bound, and one namespace is served, unless weak sandboxes are allowed"
)


class _Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What `confine.py` is told."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    ports: tuple[int, ...]
    limits: tuple[tuple[int, int], ...]
    filter: str
    argv: list[str]
    env: dict[str, str]


class LandlockDriver(SandboxDriver):
    """Containers by Landlock."""

    lacks = ("namespaces", "a bound of what is written", "a network of its own")
    kills_tree = True
    packages: ClassVar = {"python3": "python3", "setpriv": "util-linux", "sh": "dash", "env": "coreutils"}
    must_be: ClassVar[Mapping[str, object]] = {
        "groups": [],
        "capabilities": [""] * 6,
        "no_new_privileges": "1",
        "seccomp": "2",
        "descriptors": [0, 1, 2, 3],
        "writable": [],
    }

    def __init__(self, settings: Settings, data_dir: Path) -> None:
        super().__init__("landlock", settings, data_dir)
        self._namespace: str | None = None
        self._reminding: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self.settings.workers > 1 and not self.settings.allow_weak_sandbox:
            raise StartFailed(
                "driver landlock serves one namespace, which several shards cannot tell: "
                "--workers 1, or --allow-weak-sandbox"
            )
        await self._check_kernel()
        await super().start()
        self._reminding = asyncio.ensure_future(self._remind())

    async def _check_kernel(self) -> None:
        python = shutil.which("python3", path=SEARCHED)
        if python is None:
            return  # told with the other programs
        await asyncio.to_thread(self.cells.prepare)
        asked = [python, "-I", "-S", str(self._confine), "abi"]
        said = await asyncio.to_thread(
            subprocess.run, asked, capture_output=True, timeout=ABI_S, check=False, env={}, stdin=subprocess.DEVNULL
        )
        abi = int(said.stdout) if said.stdout.strip().isdigit() else 0
        least = ABI if os.geteuid() == 0 else ABI_OF_ONE_USER
        if abi < least:
            raise StartFailed(
                f"driver landlock needs Landlock ABI {least} of the kernel, which has {abi or 'none'} "
                "(Linux 6.7 brings 4, Linux 6.12 brings 6; `lsm=` of the kernel's command line must name landlock)"
            )

    async def _remind(self) -> None:
        while True:
            log.warning("driver.landlock", warning=WARNING)
            await asyncio.sleep(REMINDED_S)

    def admit(self, namespace: str) -> None:
        """A container of this namespace is wanted; raises `StartFailed` for a second one, unless that is allowed."""
        if self._namespace is None:
            self._namespace = namespace
        if namespace != self._namespace and not self.settings.allow_weak_sandbox:
            raise StartFailed("driver landlock serves one namespace", wording.WEAK_SANDBOX)

    @property
    def _confine(self) -> Path:
        return self.cells.install("confine.py", CONFINE.read_bytes())

    def _compile_filter(self) -> bytes:
        return seccomp.program(confined=True)

    def _words(self) -> Sequence[str]:
        return (CONFINE.read_text(), *map(str, self._open_ports))

    @property
    def _open_ports(self) -> tuple[int, ...]:
        """TCP that may be reached: a rule names ports, not addresses."""
        return (self.settings.port,) if self.settings.port else ()

    def rlimits(self, place: Place, scratch_bytes: int | None = None) -> dict[str, int]:
        """Where all have the server's own uid the kernel counts what that user runs elsewhere, too."""
        limits = super().rlimits(place, scratch_bytes)
        if place.uid is None:
            limits["nproc"] += watch.tasks_of(os.geteuid())
        return limits

    def code_at(self, code: Path) -> str:
        return str(code)

    def _wrap_command(self, spec: ContainerSpec, place: Place) -> Launch:
        if spec.root is not None:
            raise StartFailed("driver landlock has no root file system but the host's", wording.NO_ROOT)
        programs = self._programs
        scratch = str(self.cells.make_scratch(place.name, place.uid))
        cells = str(self.cells.folder)  # which may lie below the host's own /tmp
        own = (
            Mount(cells, cells),
            Mount(str(self.runtimes), RUNTIMES),
            Mount(str(place.code), "/action"),
            Mount(scratch, WORKING),
        )
        mounts = (*spec.mounts, *own)
        env = ENVIRONMENT | {name: on_host(value, mounts) for name, value in spec.env.items()}
        env |= {"HOME": scratch, "TMPDIR": scratch, "PWD": scratch, watch.MARK: place.name}
        argv = [on_host(word, mounts) for word in spec.argv]
        shown = [one.host for one in seen(self.view()) if isinstance(one, Bind)]
        shown += [folder for folder in ("/lib", "/lib64") if os.path.isdir(folder) and not os.path.islink(folder)]
        plan = _Plan(
            reads=(*shown, str(self.cells.launchers), str(place.code), *(mount.host for mount in spec.mounts)),
            writes=(scratch, *DEVICES),
            ports=self._open_ports,
            limits=limits_of(self.rlimits(place, spec.scratch_bytes)),
            filter=self._filter.hex(),
            argv=[programs["env"], "-i", *assignments(env), *argv],
            env={watch.MARK: place.name},
        )
        command = [programs["python3"], "-I", "-S", str(self._confine)]
        options = ["--pdeathsig", "KILL"]
        if place.uid is not None:
            options += ("--bounding-set=-all", "--inh-caps=-all")
        launched = self._as_its_uid(place, command, *options)
        return Launch(launched, {watch.MARK: place.name}, {PLAN: spawn.memory_file(msgspec.json.encode(plan))})

    async def close(self) -> None:
        if self._reminding is not None:
            self._reminding.cancel()
            await asyncio.gather(self._reminding, return_exceptions=True)
        await super().close()
