"""A server of one's own, for as long as a block lasts: what tests, the demo and benchmarks speak to.

It is started like any other, by its command, on a free port and with a data folder that is thrown away.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

READY_S = 30.0
STOP_S = 20.0


class NotReady(Exception):
    """The server did not come up; the text is what it printed."""


class Server:
    """A running server. `url` is its base URL; `log` the file with what it prints to standard error."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, data_dir: Path, log: Path) -> None:
        self.process = process
        self.url = url
        self.data_dir = data_dir
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def read_log(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and waits for the end; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def start(
    data_dir: Path,
    settings: Mapping[str, Any] | None = None,
    *,
    flags: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    user: int | None = None,
    python: str = sys.executable,
    module: str = "visp",
) -> Server:
    """A server with this data folder, ready for work. `settings` maps dotted names to values.

    `user` runs it under another uid and gid, `python` by another interpreter, `module` as another program.
    Raises `NotReady` with what the server said.
    """
    argv = [python, "-m", module, "start", "--port", "0", "--data-dir", str(data_dir), *flags]
    variables = {f"VISP_{name.replace('.', '__').upper()}": str(value) for name, value in (settings or {}).items()}
    environ = os.environ | variables | dict(env or {})
    log = Path(tempfile.mkstemp(prefix="visp-", suffix=".log")[1])
    with log.open("wb") as errors:
        process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            env=environ,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
    assert process.stdout is not None
    line = _first_line(process)
    if line is None:
        process.kill()
        process.wait()
        process.stdout.close()
        said = log.read_text(errors="replace")
        log.unlink()
        raise NotReady(said)
    process.stdout.close()
    return Server(process, line["url"], data_dir, log)


@contextlib.contextmanager
def running(settings: Mapping[str, Any] | None = None, *, flags: Sequence[str] = ()) -> Iterator[Server]:
    """A server for the block, with folders of its own."""
    with tempfile.TemporaryDirectory(prefix="visp-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # containers of a root server reach their code below it under uids of their own
        settings = {"container.cells_dir": f"{folder}/cells", **(settings or {})}
        server = start(Path(folder) / "data", settings, flags=flags)
        try:
            yield server
        finally:
            server.stop()
            server.log.unlink(missing_ok=True)


def _first_line(process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
    """The line that a server prints when it is ready; None when it ends or takes too long."""
    assert process.stdout is not None
    data, until = b"", time.monotonic() + READY_S
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while b"\n" not in data:
            if not selector.select(max(0.0, until - time.monotonic())):
                return None
            got = os.read(process.stdout.fileno(), 65536)
            if not got:
                return None
            data += got
    line: dict[str, Any] = json.loads(data.partition(b"\n")[0])
    return line
