"""A data folder over which servers come and go."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from visp.client import running
from visp.client.running import Server

TRUSTING = ("--driver", "process", "--i-trust-all-code")


class Place:
    """Every server that was started over it is ended with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.effects = folder / "effects"
        self.runtimes = folder / "runtimes"
        """What is installed for its servers: nothing, unless a test names another folder."""
        self._servers: list[Server] = []

    def start(self, *flags: str, **settings: Any) -> Server:
        """`pool__memory_mb=256` is the setting `pool.memory_mb`."""
        named = {name.replace("__", "."): value for name, value in settings.items()}
        named |= {"container.cells_dir": self.folder / "cells", "runtimes.folder": self.runtimes}
        server = running.start(self.data_dir, named, flags=flags)
        self._servers.append(server)
        return server

    def admin(self, *words: str | Path, **streams: Any) -> subprocess.CompletedProcess[Any]:
        """`visp admin` on the data folder; nobody asks here how it ended."""
        argv = [sys.executable, "-m", "visp", "admin", *map(str, words), "--data-dir", str(self.data_dir)]
        return subprocess.run(argv, **{"capture_output": True, "text": True, "timeout": 60} | streams, check=False)

    def told(self, *words: str) -> str:
        """What `visp admin` says, which must end well."""
        done = self.admin(*words)
        assert done.returncode == 0, done
        return str(done.stdout.strip())

    def counted(self) -> Counter[str]:
        """How often each effect was had."""
        return Counter(self.effects.read_text().split()) if self.effects.exists() else Counter()

    def close(self) -> None:
        for server in self._servers:
            server.stop(signal.SIGKILL)
            server.log.unlink(missing_ok=True)


P = TypeVar("P", bound=Place)


@contextmanager
def opened(make: Callable[[Path], P]) -> Iterator[P]:
    """A place in a folder that is thrown away."""
    with tempfile.TemporaryDirectory(prefix="visp-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # containers of a root server reach their code below it under uids of their own
        place = make(Path(folder))
        try:
            yield place
        finally:
            place.close()
