"""The driver without a sandbox: a plain process with limits. Only where every action's author is trusted.

Code can read and do whatever the server can. It exists for machines that have no sandbox, and for tests.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from visp.container import watch
from visp.container.base import Mount
from visp.container.bwrap import RUNTIMES
from visp.container.cgroup import joined
from visp.container.local import Launch, LocalDriver
from visp.errors import StartFailed
from visp.telemetry import log

if TYPE_CHECKING:
    from pathlib import Path

    from visp.container.base import ContainerSpec
    from visp.container.local import Place
    from visp.settings import Settings

SHELL = "/bin/sh"
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}


class ProcessDriver(LocalDriver):
    """Containers that contain nothing."""

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
        argv = [self._on_host(word, spec) for word in spec.argv]
        argv = joined(SHELL, place.group_files, [self._setpriv, "--pdeathsig", "KILL", *argv])
        env = {name: self._on_host(value, spec) for name, value in spec.env.items()}
        return Launch(argv, _ENVIRONMENT | env | {watch.MARK: place.name}, {})

    def _on_host(self, word: str, spec: ContainerSpec) -> str:
        """A path inside as it is called outside."""
        for mount in (*spec.mounts, Mount(str(self.runtimes), RUNTIMES)):
            if word == mount.inside or word.startswith(mount.inside + "/"):
                return mount.host + word[len(mount.inside) :]
        return word
