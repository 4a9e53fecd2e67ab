"""The driver without a sandbox: a plain process with limits. Only where every action's author is trusted.

Code can read and do whatever the server can. It exists for machines that have no sandbox, and for tests.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from visp import wording
from visp.container import watch
from visp.container.base import Mount
from visp.container.cgroup import joined
from visp.container.local import Launch, LocalDriver
from visp.container.view import ENVIRONMENT, RUNTIMES, WORKING, on_host
from visp.errors import StartFailed
from visp.telemetry import log

if TYPE_CHECKING:
    from pathlib import Path

    from visp.container.base import ContainerSpec
    from visp.container.local import Place
    from visp.settings import Settings

SHELL = "/bin/sh"


class ProcessDriver(LocalDriver):
    """Containers that contain nothing."""

    lacks = ("any wall",)
    kills_tree = True

    def __init__(self, settings: Settings, data_dir: Path) -> None:
        super().__init__("process", settings, data_dir, self._wrap_command)
        self._setpriv: str | None = None

    async def start(self) -> None:
        self._setpriv = shutil.which("setpriv")
        if self._setpriv is None:
            raise StartFailed("driver process needs what is not installed: apt-get install util-linux")
        log.warning("driver.process", warning="actions are NOT isolated: they can do whatever this server can")
        await super().start()

    def code_at(self, code: Path) -> str:
        return str(code)

    def _wrap_command(self, spec: ContainerSpec, place: Place) -> Launch:
        assert self._setpriv is not None
        if spec.root is not None:
            raise StartFailed("driver process has no root file system but the host's", wording.NO_ROOT)
        mounts, own = [*spec.mounts, Mount(str(self.runtimes), RUNTIMES), Mount(str(place.code), "/action")], {}
        if spec.scratch_bytes is not None:  # a build: what it leaves is gone with it
            scratch = str(self.cells.make_scratch(place.name, place.uid))
            mounts.append(Mount(scratch, WORKING))
            own = {"HOME": scratch, "TMPDIR": scratch}
        argv = [self._setpriv, "--pdeathsig", "KILL", *(on_host(word, mounts) for word in spec.argv)]
        env = {name: on_host(value, mounts) for name, value in spec.env.items()} | own
        argv = joined(SHELL, place.group_files, argv)
        return Launch(argv, ENVIRONMENT | env | {watch.MARK: place.name}, {})
