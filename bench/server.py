"""A visp to measure: a server of its own, and what benchmarks ask of it."""

from __future__ import annotations

import base64
import contextlib
import time
from typing import TYPE_CHECKING, Any

import msgspec

from bench import load
from bench.load import Broken, Load
from visp.client.connection import Connection
from visp.client.credentials import GUEST_AUTH, Credentials
from visp.client.running import running

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from visp.client.connection import Answer

NODE_KIND, PYTHON_KIND = "nodejs:20", "python:3.11"
NOOP = "function main() { return {} }"
HELLO_NODE = "function main(args) { return { greeting: 'Hello, ' + args.name } }"
HELLO_PYTHON = "def main(args):\n    return {'greeting': 'Hello, ' + args['name']}\n"
NAME = {"name": "World"}
GREETING = {"greeting": "Hello, World"}

SETTLE_S = 300.0
POLL_S = 0.02

_HERE = "/api/v1/namespaces/_"
_AUTHORIZATION = "Basic " + base64.b64encode(GUEST_AUTH.encode()).decode()


class Platform:
    """A server with one keep-alive connection to it, as its guest. Whatever is refused raises `Broken`."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.pid = pid
        self._connection = Connection(Credentials(apihost=url, auth=GUEST_AUTH))

    def close(self) -> None:
        self._connection.close()

    # ── one request ─────────────────────────────────────────────────────────────────────────────────────────────

    def put(self, collection: str, name: str, document: dict[str, Any]) -> None:
        path = f"{_HERE}/{collection}/{name}?overwrite=true"
        _value(self._connection.request("PUT", path, msgspec.json.encode(document)))

    def put_action(self, name: str, code: str, kind: str = NODE_KIND) -> None:
        self.put("actions", name, {"exec": {"kind": kind, "code": code}})

    def delete_action(self, name: str) -> None:
        _value(self._connection.request("DELETE", f"{_HERE}/actions/{name}"))

    def run(self, name: str, value: dict[str, Any]) -> Any:
        """The result of a blocking invocation."""
        path = f"{_HERE}/actions/{name}?blocking=true&result=true"
        return _value(self._connection.request("POST", path, msgspec.json.encode(value)))

    def in_flight(self) -> int:
        """How many activations wait or run."""
        count: int = _value(self._connection.request("GET", "/activation/count"))
        return count

    def records(self) -> int:
        """How many activations are stored."""
        count: int = _value(self._connection.request("GET", f"{_HERE}/activations?count=true"))["activations"]
        return count

    def settle(self) -> None:
        """Until nothing is in flight and every record is indexed."""
        until_s = time.monotonic() + SETTLE_S
        while left := self.in_flight():
            if time.monotonic() > until_s:
                raise Broken(f"{left} activations are in flight {SETTLE_S} s after the load has ended")
            time.sleep(POLL_S)
        _value(self._connection.request("GET", f"{_HERE}/activations?limit=1"))  # a list first indexes what waits

    # ── load ────────────────────────────────────────────────────────────────────────────────────────────────────

    def load(
        self, target: str, *, clients: int, seconds: int, query: str = "blocking=true", may_refuse: bool = False
    ) -> Load:
        """POSTs to `actions/NAME` or `triggers/NAME`."""
        return load.finish(self.begin_load(target, clients=clients, seconds=seconds, query=query), may_refuse)

    def begin_load(
        self, target: str, *, clients: int, seconds: int, query: str = "blocking=true"
    ) -> subprocess.Popen[str]:
        """The same, going on beside what the caller does; `load.finish` waits for its end."""
        url = f"{self.url}{_HERE}/{target}?{query}"
        return load.begin(url, clients=clients, seconds=seconds, authorization=_AUTHORIZATION)


@contextlib.contextmanager
def platform(settings: dict[str, Any] | None = None) -> Iterator[Platform]:
    """A server for the block, on a free port and with a folder that is thrown away."""
    with running({"log_level": "warning", **(settings or {})}) as server:
        platform = Platform(server.url, server.pid)
        try:
            yield platform
        finally:
            platform.close()


def _value(answer: Answer) -> Any:
    if not answer.is_success:
        raise Broken(f"HTTP {answer.status}: {answer.body[:500].decode('utf-8', 'replace')}")
    return msgspec.json.decode(answer.body)
