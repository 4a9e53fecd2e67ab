"""What every benchmark stands on: a server with a client to it, the floors' processes, and how long to measure."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from bench import load
from bench.load import Broken, Load
from visp.client.connection import Connection
from visp.client.credentials import GUEST_AUTH, Credentials
from visp.client.running import Server, running
from visp.entity.runtime_manifest import Manifest, parse_manifest
from visp.runtime import local

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE_KIND, PYTHON_KIND = "nodejs:20", "python:3.11"
NOOP = "function main() { return {} }"
HELLO_NODE = "function main(args) { return { greeting: 'Hello, ' + args.name } }"
HELLO_PYTHON = "def main(args):\n    return {'greeting': 'Hello, ' + args['name']}\n"
NAME = {"name": "World"}
GREETING = {"greeting": "Hello, World"}

FLOORS = Path(__file__).with_name("floors")
AUTHORIZATION = "Basic " + base64.b64encode(GUEST_AUTH.encode()).decode()
DRAIN_S = 300.0
POLL_S = 0.02


class Platform:
    """A visp to measure, with one keep-alive connection to it."""

    def __init__(self, server: Server) -> None:
        self.url = server.url
        self.pid = server.pid
        self._connection = connection(server.url)

    def put(self, collection: str, name: str, document: dict[str, Any]) -> None:
        path = f"/api/v1/namespaces/_/{collection}/{name}?overwrite=true"
        _ok(self._connection.request("PUT", path, msgspec.json.encode(document)))

    def action(self, name: str, code: str, kind: str = NODE_KIND) -> None:
        self.put("actions", name, {"exec": {"kind": kind, "code": code}})

    def delete_action(self, name: str) -> None:
        _ok(self._connection.request("DELETE", f"/api/v1/namespaces/_/actions/{name}"))

    def run(self, name: str, value: dict[str, Any]) -> Any:
        """The result of a blocking invocation."""
        path = f"/api/v1/namespaces/_/actions/{name}?blocking=true&result=true"
        return _ok(self._connection.request("POST", path, msgspec.json.encode(value)))

    def load(
        self,
        target: str,
        *,
        clients: int,
        seconds: int,
        query: str = "blocking=true",
        may_refuse: bool = False,
    ) -> Load:
        """POSTs to `actions/NAME` or `triggers/NAME`."""
        url = self.address(target, query)
        return load.post(
            url, clients=clients, seconds=seconds, authorization=AUTHORIZATION, may_refuse=may_refuse
        )

    def address(self, target: str, query: str) -> str:
        return f"{self.url}/api/v1/namespaces/_/{target}?{query}"

    def settle(self) -> None:
        """Until nothing is in flight and every record is indexed. Raises `Broken` when that takes too long."""
        until_s = time.monotonic() + DRAIN_S
        while _ok(self._connection.request("GET", "/activation/count")) != 0:
            if time.monotonic() > until_s:
                raise Broken(f"activations are in flight {DRAIN_S} s after the load has ended")
            time.sleep(POLL_S)
        _ok(self._connection.request("GET", "/api/v1/namespaces/_/activations?limit=1"))  # a list indexes what waits

    def records(self) -> int:
        """How many activations are stored."""
        count: int = _ok(self._connection.request("GET", "/api/v1/namespaces/_/activations?count=true"))["activations"]
        return count

    def close(self) -> None:
        self._connection.close()


class Direct:
    """A plain Node process that has one action: the floor of warm calls."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self.pid = process.pid
        self.url = f"http://127.0.0.1:{port}/run"

    def init(self, code: str) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc)
        connection.request("POST", "/init", json.dumps({"value": {"main": "main", "code": code}}))
        if connection.getresponse().status != 200:
            raise Broken("the plain Node process refused its code")
        connection.close()

    def load(self, *, clients: int, seconds: int) -> Load:
        body = {
            "value": {},
            "namespace": "guest",
            "action_name": "/guest/noop",
            "action_version": "0.0.1",
            "activation_id": "0123456789abcdef0123456789abcdef",
            "transaction_id": "0123456789abcdef0123456789abcdef",
            "deadline": "1700000000000",
        }
        return load.post(self.url, clients=clients, seconds=seconds, body=json.dumps(body))


class Rig(msgspec.Struct, frozen=True):
    """How much to measure, and with which programs."""

    rounds: int
    seconds: int
    starts: int
    """Cold starts in a round."""
    launches: int
    """Launches of a server, of each sort."""
    node: str
    python: str

    @contextlib.contextmanager
    def platform(self, settings: dict[str, Any] | None = None) -> Iterator[Platform]:
        """A server for the block, on a free port and with a folder that is thrown away."""
        with running({"log_level": "warning", **(settings or {})}) as server:
            platform = Platform(server)
            try:
                yield platform
            finally:
                platform.close()

    @contextlib.contextmanager
    def direct(self, code: str) -> Iterator[Direct]:
        """The plain Node process with this action, for the block."""
        with spawned([self.node, str(FLOORS / "direct.js")]) as process:
            direct = Direct(process, int(_pipe(process.stdout).readline()))
            direct.init(code)
            yield direct

    @contextlib.contextmanager
    def fork_hello(self) -> Iterator[ForkHello]:
        """The prepared interpreter, for the block."""
        with spawned([self.python, "-s", str(FLOORS / "fork_hello.py")]) as process:
            yield ForkHello(process)


class ForkHello:
    """A prepared Python process that forks into fresh namespaces: the floor of cold Python starts."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._in, self._out = _pipe(process.stdin), _pipe(process.stdout)

    def start_s(self, code: str, value: dict[str, Any]) -> float:
        """Seconds from the request to the result."""
        line = json.dumps({"code": code, "value": value}) + "\n"
        began_s = time.perf_counter()
        self._in.write(line)
        self._in.flush()
        answer = self._out.readline()
        took_s = time.perf_counter() - began_s
        if not answer or json.loads(answer) != GREETING:
            raise Broken("the floor script cannot make namespaces here")
        return took_s


def rig(*, rounds: int | None, is_quick: bool) -> Rig:
    """The usual amount, or one that only shows that everything works. Raises `Broken` where a program is missing."""
    manifest = parse_manifest(local.read_launcher_manifest()) if False else _manifest()
    if not load.is_installed():
        raise Broken(load.MISSING)
    return Rig(
        rounds=rounds or (2 if is_quick else 7),
        seconds=1 if is_quick else 3,
        starts=3 if is_quick else 10,
        launches=2 if is_quick else 7,
        node=_program(manifest, NODE_KIND),
        python=_program(manifest, PYTHON_KIND),
    )
