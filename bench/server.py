"""A visp to measure: a server of its own, and what benchmarks ask of it."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from bench import load, profile
from bench.load import Broken, Load
from visp.client.connection import Connection
from visp.client.credentials import GUEST_AUTH, Credentials
from visp.client.running import start

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping

    from visp.client.connection import Answer

NODE_KIND, PYTHON_KIND = "nodejs:20", "python:3.11"
NOOP = "function main() { return {} }"
HELLO_NODE = "function main(args) { return { greeting: 'Hello, ' + args.name } }"
HELLO_PYTHON = "def main(args):\n    return {'greeting': 'Hello, ' + args['name']}\n"
NAME = {"name": "World"}
GREETING = {"greeting": "Hello, World"}

SETTLE_S = 300.0
POLL_S = 0.02
PIECE_BYTES = 64 * 1024

_HERE = "/api/v1/namespaces/_"


class Platform:
    """A server with one keep-alive connection to it, as its guest unless a key is given.

    Whatever is refused raises `Broken`.
    """

    def __init__(self, url: str, pid: int, auth: str = GUEST_AUTH) -> None:
        self.url = url
        self.pid = pid
        self._authorization = "Basic " + base64.b64encode(auth.encode()).decode()
        self._connection = Connection(Credentials(apihost=url, auth=auth))

    def close(self) -> None:
        self._connection.close()

    # ── one request ─────────────────────────────────────────────────────────────────────────────────────────────

    def put(self, collection: str, name: str, document: dict[str, Any]) -> None:
        path = f"{_HERE}/{collection}/{name}?overwrite=true"
        _value(self._connection.request("PUT", path, msgspec.json.encode(document)))

    def put_action(
        self,
        name: str,
        code: str,
        kind: str = NODE_KIND,
        *,
        main: str | None = None,
        memory_mb: int = 256,
        annotations: Mapping[str, Any] | None = None,
    ) -> None:
        exec = {"kind": kind, "code": code} | ({} if main is None else {"main": main})
        document: dict[str, Any] = {"exec": exec, "limits": {"memory": memory_mb}}
        if annotations is not None:
            document["annotations"] = [{"key": key, "value": value} for key, value in annotations.items()]
        self.put("actions", name, document)

    def delete_action(self, name: str) -> None:
        _value(self._connection.request("DELETE", f"{_HERE}/actions/{name}"))

    def run(self, name: str, value: dict[str, Any]) -> Any:
        """The result of a blocking invocation."""
        path = f"{_HERE}/actions/{name}?blocking=true&result=true"
        return _value(self._connection.request("POST", path, msgspec.json.encode(value)))

    @contextlib.contextmanager
    def ready_to_run(self, name: str, value: dict[str, Any]) -> Iterator[Callable[[], tuple[float, Any]]]:
        """What makes a blocking invocation, for the block: its seconds, from the request's first byte to the answer's
        last, without what a client makes of them; and its result.
        """
        address, body = urlsplit(self.url), msgspec.json.encode(value)
        lines = (
            f"POST {_HERE}/actions/{name}?blocking=true&result=true HTTP/1.1",
            f"Authorization: {self._authorization}",
            f"Host: {address.netloc}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        request = "\r\n".join((*lines, "", "")).encode() + body
        with socket.create_connection((address.hostname, address.port)) as connection:

            def run() -> tuple[float, Any]:
                began_s = time.perf_counter()
                connection.sendall(request)
                head, _, answer = connection.recv(PIECE_BYTES).partition(b"\r\n\r\n")
                (size,) = map(int, re.findall(rb"(?i)content-length: (\d+)", head))
                while len(answer) < size and (piece := connection.recv(PIECE_BYTES)):
                    answer += piece
                took_s = time.perf_counter() - began_s
                if b" 200 " not in head:
                    raise Broken(f"{head!r}: {answer[:500]!r}")
                return took_s, msgspec.json.decode(answer)

            yield run

    def get(self, path: str) -> bytes:
        """The answer's body, unread."""
        answer = self._connection.request("GET", path)
        if not answer.is_success:
            raise _refused(answer)
        return answer.body

    def newest(self, name: str, limit: int) -> list[dict[str, Any]]:
        """The newest records of an action, newest first, with all that is in them."""
        path = f"{_HERE}/activations?name={name}&limit={limit}&docs=true"
        found: list[dict[str, Any]] = _value(self._connection.request("GET", path))
        return found

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

    def load_web(self, name: str, *, clients: int, seconds: int) -> Load:
        """GETs of a web action in no package, by nobody known."""
        url = f"{self.url}/api/v1/web/guest/default/{name}"
        return load.finish(load.begin(url, clients=clients, seconds=seconds, method="GET", body=""))

    def load_api(self, path: str, key: str, *, clients: int, seconds: int) -> Load:
        """GETs of an API's operation, below the gateway's path of the namespace, with a client's key."""
        url = f"{self.url}/gw/guest{path}"
        return load.finish(load.begin(url, clients=clients, seconds=seconds, method="GET", body="", key=key))

    def put_api(self, document: dict[str, Any], *, client: str) -> None:
        """An API of a Swagger document, with one client that has a key."""
        asked = {"apidoc": {"namespace": "_", "swagger": document}}
        path = "/api/v1/web/whisk.system/apimgmt/createApi"
        _value(self._connection.request("POST", path, msgspec.json.encode(asked)))
        subscribed = {"artifact_id": document["basePath"], "client_id": client}
        _value(self._connection.request("POST", "/v2/_/subscriptions", msgspec.json.encode(subscribed)))

    def begin_load(
        self,
        target: str,
        *,
        clients: int,
        seconds: int,
        query: str = "blocking=true",
        method: str = "POST",
        body: str = "{}",
    ) -> subprocess.Popen[str]:
        """The same, going on beside what the caller does; `load.finish` waits for its end."""
        url = f"{self.url}{_HERE}/{target}?{query}"
        return load.begin(
            url, clients=clients, seconds=seconds, method=method, authorization=self._authorization, body=body
        )


@contextlib.contextmanager
def platform(
    settings: Mapping[str, Any] | None = None,
    *,
    data_dir: Path | None = None,
    python: str = sys.executable,
    module: str = "visp",
    env: Mapping[str, str] | None = None,
) -> Iterator[Platform]:
    """A server for the block, on a free port; its folders are thrown away, save a `data_dir` that is given.

    `module` is what is run as a program.
    """
    with tempfile.TemporaryDirectory(prefix="visp-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # containers of a root server reach their code below it under uids of their own
        settings = {"container.cells_dir": f"{folder}/cells", "log_level": "warning", **(settings or {})}
        server = start(data_dir or Path(folder) / "data", settings, python=python, module=module, env=env)
        try:
            with profile.attached(server.pid), contextlib.closing(Platform(server.url, server.pid)) as platform:
                yield platform
        finally:
            server.stop()
            server.log.unlink(missing_ok=True)


def _value(answer: Answer) -> Any:
    if not answer.is_success:
        raise _refused(answer)
    return msgspec.json.decode(answer.body)


def _refused(answer: Answer) -> Broken:
    return Broken(f"HTTP {answer.status}: {answer.body[:500].decode('utf-8', 'replace')}")
