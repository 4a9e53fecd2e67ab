"""A launcher spoken to over pipes, as a container is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

READ_BYTES = 1 << 16


def launcher(name: str) -> str:
    """Where a launcher lies."""
    return str(resources.files("visp.runtime").joinpath(name))


class Wire:
    """A launcher that runs. `ask` gives its reply to a line, `logs` what it has printed since."""

    def __init__(self, argv: list[str], env: dict[str, str], folder: Path) -> None:
        replies, replies_inside = os.pipe()
        out, err = (folder.joinpath(name).open("w+b") for name in ("stdout", "stderr"))
        code = "import os, sys; own = int(sys.argv[1]); os.dup2(own, 3); own == 3 or os.close(own); "
        code += "os.execvpe(sys.argv[2], sys.argv[2:], os.environ)"
        self.process = subprocess.Popen(
            ["/usr/bin/python3", "-I", "-S", "-c", code, str(replies_inside), *argv],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            pass_fds=(replies_inside,),
            env=env,
            cwd="/tmp",
        )
        os.close(replies_inside)
        self._replies = os.fdopen(replies, "rb")
        self._logs = (out, err)

    def ask(self, message: Any) -> bytes:
        """The reply line; empty when it has ended without one."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()
        return self._replies.readline().rstrip(b"\n")

    def asked(self, message: Any) -> Any:
        """The reply as JSON; of a failure, its sentence after `!`."""
        reply = self.ask(message)
        return "!" + json.loads(reply[1:])["error"] if reply[:1] == b"!" else json.loads(reply)

    def logs(self) -> tuple[str, str]:
        """Standard output and error, from the beginning."""
        said = []
        for file in self._logs:
            file.seek(0)
            said.append(file.read().decode())
        return said[0], said[1]

    def end(self) -> int:
        """Its input ends; its exit status."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            return self.process.wait(10)
        finally:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGKILL)
                self.process.wait()
            self._replies.close()
            for file in self._logs:
                file.close()


@contextmanager
def wired(argv: list[str], folder: Path, env: dict[str, str] | None = None) -> Iterator[Wire]:
    """A launcher for the block."""
    wire = Wire(argv, {"PATH": "/usr/local/bin:/usr/bin:/bin"} | (env or {}), folder)
    try:
        yield wire
    finally:
        wire.end()


def init(folder: Path | None = None, code: str | None = None, main: str = "main", **env: str) -> dict[str, Any]:
    """An init line."""
    value: dict[str, Any] = {"name": "a", "main": main, "binary": folder is not None, "env": env}
    if folder is not None:
        value["folder"] = str(folder)
    if code is not None:
        value["code"] = code
    return {"value": value}


def run(value: Any, **fields: str) -> dict[str, Any]:
    """A run line."""
    return {"value": value, "activation_id": "1", **fields}
