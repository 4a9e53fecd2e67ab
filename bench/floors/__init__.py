"""The floors: what the same work costs without a platform. Each is a process of its own, beside its script."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.images.engine import MODES, PROXY, PYTHON, Engine

from bench import load
from bench.load import Broken, Load

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}
"""What a container has: a variable of the caller's can make the start of Node several times as long."""

CELL = ("bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev")
ANSWER_BYTES = 4096

RUN_BODY = {
    "value": {},
    "namespace": "guest",
    "action_name": "/guest/noop",
    "action_version": "0.0.1",
    "activation_id": "0123456789abcdef0123456789abcdef",
    "transaction_id": "0123456789abcdef0123456789abcdef",
    "deadline": "1700000000000",
}
"""What OpenWhisk sends to `/run`."""


class Direct:
    """A Node process that has one action: the floor of warm calls."""

    def __init__(self, url: str, pid: int) -> None:
        self._url = url
        self.pid = pid

    def load(self, *, clients: int, seconds: int) -> Load:
        return load.post(f"{self._url}/run", clients=clients, seconds=seconds, body=json.dumps(RUN_BODY))


@contextlib.contextmanager
def direct(node: str, code: str, server: str = "express") -> Iterator[Direct]:
    """The Node process, given its code, for the block; `server` is `express`, as in OpenWhisk's image, or `plain`."""
    if server == "express" and not (HERE.parent / "node_modules" / "express").is_dir():
        raise Broken("the floor needs express: npm ci --prefix bench")
    with _spawned([node, str(HERE / "direct.js"), server]) as process:
        url = f"http://127.0.0.1:{int(_next_line(process))}"
        connection = http.client.HTTPConnection(urlsplit(url).netloc)
        body = json.dumps({"value": {"main": "main", "code": code}})
        connection.request("POST", "/init", body, {"Content-Type": "application/json"})
        if connection.getresponse().status != 200:
            raise Broken("the plain Node process refused its code")
        connection.close()
        yield Direct(url, process.pid)


class Bare:
    """A bare HTTP protocol on visp's loop and parser: the floor of what a request costs the platform."""

    def __init__(self, url: str, pid: int) -> None:
        self._url = url
        self.pid = pid

    def load(self, *, clients: int, seconds: int) -> Load:
        return load.post(self._url, clients=clients, seconds=seconds)


@contextlib.contextmanager
def bare() -> Iterator[Bare]:
    """The bare protocol, for the block."""
    with _spawned([sys.executable, str(HERE / "bare.py")]) as process:
        yield Bare(f"http://127.0.0.1:{int(_next_line(process))}/", process.pid)


class ForkHello:
    """A prepared Python process that forks into fresh namespaces: the floor of cold Python starts."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start_s(self, code: str, value: dict[str, Any], expected: Any) -> float:
        """Seconds from the request to the result."""
        line = json.dumps({"code": code, "value": value}) + "\n"
        lines = self._process.stdin
        assert lines is not None
        began_s = time.perf_counter()
        lines.write(line)
        lines.flush()
        answer = _next_line(self._process)
        took_s = time.perf_counter() - began_s
        if not answer or json.loads(answer) != expected:
            raise Broken(f"the prepared Python process answered {answer!r}")
        return took_s


@contextlib.contextmanager
def fork_hello(python: str) -> Iterator[ForkHello]:
    """The prepared process, for the block."""
    with _spawned([python, "-s", str(HERE / "fork_hello.py")]) as process:
        yield ForkHello(process)


class Cell:
    """A prepared process in a sandbox of bubblewrap, which forks and executes a binary: the floor of cold binaries."""

    def __init__(self, process: subprocess.Popen[str], given: int, answers: int) -> None:
        self._process = process
        self._given = given
        self._answers = answers

    def start_s(self, line: bytes, expected: bytes) -> float:
        """Seconds from the request to what the binary answers to the line."""
        os.write(self._given, line)
        began_s = time.perf_counter()
        self._say()
        answer = os.read(self._answers, ANSWER_BYTES)
        took_s = time.perf_counter() - began_s
        self._say()
        _next_line(self._process)
        if answer != expected:
            raise Broken(f"the binary answered {answer!r}")
        return took_s

    def _say(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()


@contextlib.contextmanager
def cell(python: str, binary: str) -> Iterator[Cell]:
    """The prepared process, for the block."""
    inside, given = os.pipe()
    answers, outside = os.pipe()
    try:
        program = [python, "-S", "-s", str(HERE / "cell.py"), binary, str(inside), str(outside)]
        with _spawned([*CELL, *program], pass_fds=(inside, outside)) as process:
            yield Cell(process, given, answers)
    finally:
        for descriptor in (inside, given, answers, outside):
            os.close(descriptor)


class DockerRun:
    """A hello by `docker run`, each time in a new container."""

    def __init__(self, engine: Engine) -> None:
        self._argv = ["docker", "--host", engine.host, "run", "--rm", "--network", "none", f"{PROXY}:{MODES[0]}"]
        self._argv += [PYTHON, "-c"]

    def start_s(self, code: str, value: object, *, expected: object) -> float:
        """Seconds from the command to its end."""
        words = f"{code}\nimport json\nprint(json.dumps(main(json.loads({json.dumps(value)!r}))))"
        began_s = time.perf_counter()
        ended = subprocess.run([*self._argv, words], capture_output=True, check=False)
        took_s = time.perf_counter() - began_s
        if ended.returncode != 0 or json.loads(ended.stdout) != expected:
            raise Broken(f"docker run: {ended.stderr.decode()[-500:]}")
        return took_s


def node_start_s(node: str) -> float:
    """Seconds from the start of plain Node to the first byte that its script writes."""
    began_s = time.perf_counter()
    argv = [node, str(HERE / "start.js")]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        said = process.stdout.read(1)
        took_s = time.perf_counter() - began_s
    if said != b".":
        raise Broken("plain Node does not start")
    return took_s


@contextlib.contextmanager
def _spawned(argv: list[str], pass_fds: tuple[int, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """A process with its input and output as text; it is killed when the block is left."""
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, env=ENVIRONMENT, text=True, pass_fds=pass_fds) as process:
        try:
            yield process
        finally:
            process.kill()


def _next_line(process: subprocess.Popen[str]) -> str:
    """The next line that a process prints; empty when it has ended."""
    assert process.stdout is not None
    return process.stdout.readline()
