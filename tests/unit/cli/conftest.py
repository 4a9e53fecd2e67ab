"""An API that answers what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from click.testing import CliRunner, Result

from visp.cli.main import root

AUTH = "some-uuid:" + "k" * 64


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class FakeApi:
    """`answers` maps `"GET /namespaces/_/actions"` to status, body and headers; several are given one after another."""

    url: str = ""
    answers: dict[str, list[tuple[int, bytes, dict[str, str]]]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    answerers: dict[str, Callable[[Request], tuple[int, bytes, dict[str, str]]]] = field(default_factory=dict)
    """By route: what answers in place of `answers`."""

    def answer(self, route: str, status: int = 200, body: Any = None, headers: dict[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        self.answers.setdefault(route, []).append((status, raw, headers or {}))

    def refuse(self, route: str, status: int, error: str) -> None:
        self.answer(route, status, {"error": error, "code": "tid7"})

    @property
    def routes(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.requests]

    def take(self, request: Request) -> tuple[int, bytes, dict[str, str]]:
        self.requests.append(request)
        if answerer := self.answerers.get(f"{request.method} {request.path}"):
            return answerer(request)
        known = self.answers.get(f"{request.method} {request.path}")
        if not known:
            return 404, b'{"error":"The requested resource does not exist.","code":"tid404"}', {}
        return known.pop(0) if len(known) > 1 else known[0]


def _value(raw: bytes, kind: str) -> Any:
    if kind == "application/x-ndjson":
        return [json.loads(line) for line in raw.splitlines()]
    return json.loads(raw) if raw else None


def _handler(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Two writes for an answer, held back by the kernel, would make each test 40 ms slower.
        wbufsize = -1

        def _serve(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = urlsplit(self.path)
            status, body, headers = api.take(
                Request(
                    self.command,
                    parts.path.removeprefix("/api/v1"),
                    dict(parse_qsl(parts.query)),
                    {name.lower(): value for name, value in self.headers.items()},
                    _value(raw, self.headers.get("Content-Type", "")),
                )
            )
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = _serve

        def log_message(self, format: str, *arguments: Any) -> None:
            """A test that fails shows its requests; the rest is noise."""

    return Handler


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake))
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


Visp = Callable[..., Result]


@pytest.fixture
def visp(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Visp:
    """Runs `visp` in an empty folder against the fake API."""
    monkeypatch.chdir(tmp_path)
    settings = {"WHISK_APIHOST": api.url, "WHISK_AUTH": AUTH, "WSK_CONFIG_FILE": str(tmp_path / "wskprops")}

    def run(*arguments: str, input: str | None = None, **environ: str) -> Result:
        return CliRunner().invoke(root, arguments, input=input, env=settings | environ, prog_name="visp")

    return run
