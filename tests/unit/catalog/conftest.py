"""Actions of the catalog run here, as in a container but for its walls; and a server that hears what they ask."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from visp import catalog

Json = Any


class Heard:
    """One request."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        parts = urlsplit(target)
        self.method, self.path, self.headers, self.body = method, parts.path, headers, body
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))

    @property
    def json(self) -> Json:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode()))


class StandIn:
    """Answers what `answer` makes of a request: status and JSON, or bytes; and keeps all that it heard."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.answer: Callable[[Heard], tuple[int, Json]] = lambda _: (200, {"ok": True})
        self.headers: dict[str, str] = {}
        self.url = ""

    @property
    def one(self) -> Heard:
        (heard,) = self.heard
        return heard

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port


@pytest.fixture
def standin() -> Iterator[StandIn]:
    told = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            heard = Heard(self.command, self.path, {key.lower(): value for key, value in self.headers.items()}, body)
            told.heard.append(heard)
            status, answer = told.answer(heard)
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            if not any(name.lower() == "content-type" for name in told.headers):
                self.send_header("Content-Type", "application/json")
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(0 if status == 204 else len(content)))
            self.end_headers()
            if status != 204:
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield told
        server.shutdown()
        thread.join()


def loaded(name: str) -> dict[str, Any]:
    """What an action's text defines; `name` is `package/action`."""
    package, _, action = name.partition("/")
    entry = next(entry for entry in catalog.read(package).actions if entry.name == action)
    space: dict[str, Any] = {"__name__": "main__"}
    exec(compile(entry.body["exec"]["code"], f"{name}.py", "exec"), space)
    space["main"] = space[entry.body["exec"].get("main", "main")]
    return space


Run = Callable[..., Json]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs an action of Python; `env` has no `__OW_` before its names."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)

    def run(name: str, args: dict[str, Json], **env: str) -> Json:
        known = {"ACTION_NAME": f"/whisk.system/{name}", "NAMESPACE": "guest"}
        for key, value in (known | env).items():
            monkeypatch.setenv(f"__OW_{key}", value)
        result = loaded(name)["main"](args)
        json.dumps(result)
        return result

    return run
