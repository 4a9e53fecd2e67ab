"""A real server for the tests of a worker, and a plain HTTP client to it."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from visp.client import running
from visp.entity.subject import GUEST_KEY, GUEST_UUID

if TYPE_CHECKING:
    from collections.abc import Iterator

GUEST = f"{GUEST_UUID}:{GUEST_KEY}"


class Answer:
    """What came back: status, headers by lower-case name, body."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:300]!r}>"


class Api:
    """Requests to one server, by default as the guest; paths are relative to its own namespace."""

    def __init__(self, url: str, auth: str | None = GUEST) -> None:
        self.url = url
        self.auth = auth
        self._host = urlsplit(url).netloc

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 90.0,
    ) -> Answer:
        sent = {} if self.auth is None else {"Authorization": "Basic " + base64.b64encode(self.auth.encode()).decode()}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            sent["Content-Type"] = "application/json"
        target = path if path.startswith("/") else f"/api/v1/namespaces/_/{path}"
        connection = http.client.HTTPConnection(self._host, timeout=timeout_s)
        try:
            connection.request(method, target, body, sent | (headers or {}))
            got = connection.getresponse()
            return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def delete(self, path: str) -> Answer:
        return self.request("DELETE", path)

    def action(self, name: str, code: str, kind: str = "nodejs:20", **fields: Any) -> None:
        """Creates or replaces an action."""
        body = {"exec": {"kind": kind, "code": code, **fields.pop("exec", {})}, **fields}
        answer = self.request("PUT", f"actions/{name}?overwrite=true", body)
        assert answer.status == 200, answer

    def invoke(self, name: str, payload: Any = None, query: str = "blocking=true") -> Answer:
        return self.request("POST", f"actions/{name}?{query}", {} if payload is None else payload)

    def run(self, name: str, payload: Any = None) -> Any:
        """The result of a blocking invocation that must succeed."""
        answer = self.invoke(name, payload, "blocking=true&result=true")
        assert answer.status == 200, answer
        return answer.json

    def record(self, id: str) -> Any:
        """The stored record, with its logs."""
        answer = self.get(f"activations/{id}")
        assert answer.status == 200, answer
        return answer.json


def has_sandbox() -> bool:
    return shutil.which("bwrap") is not None


@pytest.fixture(scope="session")
def server() -> Iterator[running.Server]:
    if not has_sandbox():
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    with running.running() as server:
        yield server


@pytest.fixture(scope="session")
def modules() -> Iterator[Path]:
    """A folder of runtimes as `visp runtime install nodejs` leaves it."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: apt-get install npm")
    with tempfile.TemporaryDirectory(prefix="visp-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        _install(Path(folder))
        yield Path(folder)


def _install(runtimes: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "visp", "runtime", "install", "nodejs", "--set", f"runtimes.folder={runtimes}"],
        env=os.environ | {"npm_config_prefer_offline": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "cannot reach its registry" in done.stderr:
        pytest.skip("npm cannot reach its registry, and has not kept the modules")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def api(server: running.Server) -> Api:
    return Api(server.url)
