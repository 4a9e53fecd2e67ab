"""HTTP/2 over TLS: a real server, a real client (curl), and a rude one."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import shutil
import socket
import ssl
import subprocess
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests import certificates
from tests.http2 import Answer, Client
from tests.system import places
from tests.system.conftest import GUEST, has_sandbox
from tests.system.places import TRUSTING, Place
from tests.system.traces import until

from visp.api import frames
from visp.client.running import Server

pytestmark = pytest.mark.slow  # servers are started

KEY = ("authorization", "Basic " + base64.b64encode(GUEST.encode()).decode())
JSON = ("content-type", "application/json")
ACTIONS = "/api/v1/namespaces/_/actions"
WEB = "/api/v1/web/guest/default"
SLOW_S = 0.7
CODES = {
    "echo": "def main(p):\n  return {'length': len(p.get('text', '')), 'body': p.get('text', '')}",
    "parts": "import time\ndef main(p):\n  for n in range(3):\n    yield f'part {n} '\n    time.sleep(0.05)",
    "slow": f"import time\ndef main(p):\n  time.sleep({SLOW_S})\n  return {{'body': 'done'}}",
    "large": "def main(p):\n  return {'body': 'a' * 900000}",
}


class Wire:
    """A connection to a server."""

    def __init__(self, server: Server, *, protocols: Iterable[str] = ("h2",), takes: bool = True) -> None:
        parts = urlsplit(server.url)
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(list(protocols))
        plain = socket.create_connection((parts.hostname, parts.port), 20)
        self.socket = context.wrap_socket(plain)
        self.client = Client(takes=takes)
        self.is_closed = False

    def send(self, more: bytes = b"") -> None:
        with contextlib.suppress(OSError):  # a server that ends the connection is heard in what it sent before
            self.socket.sendall(self.client.h2.data_to_send() + more)

    def hear(self) -> None:
        try:
            data = self.socket.recv(1 << 16)
        except (ConnectionError, ssl.SSLError):
            data = b""
        if not data:
            self.is_closed = True
            return
        self.client.hear(data)
        if self.client.ended is None:
            self.send()

    def wait(self, *ids: int) -> list[Answer]:
        answers = [self.client.answers[id] for id in ids]
        while not all(answer.is_over for answer in answers) and not self.is_closed:
            self.hear()
        return answers

    def ask(self, path: str, method: str = "GET", headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> Answer:
        id = self.client.ask(path, method, headers, more=bool(body))
        at = 0
        while at < len(body) and not self.client.answers[id].is_over and not self.is_closed:
            piece = body[at : at + self.client.room(id)]
            at += len(piece)
            if piece:
                self.client.h2.send_data(id, piece, end_stream=at == len(body))
                self.send()
            else:
                self.hear()
        self.send()
        return self.wait(id)[0]

    def json(self, path: str, method: str, body: Any) -> Answer:
        return self.ask(path, method, [KEY, JSON], json.dumps(body).encode())

    def drain(self) -> None:
        """Until the server has closed."""
        while not self.is_closed:
            self.hear()


@contextlib.contextmanager
def connected(server: Server, **named: Any) -> Iterator[Wire]:
    wire = Wire(server, **named)
    try:
        wire.send()
        yield wire
    finally:
        wire.socket.close()


def start(place: Place, *flags: str, driver: tuple[str, ...] = TRUSTING, **settings: Any) -> Server:
    files = {"tls__certificate": place.folder / "certificate.pem", "tls__key": place.folder / "key.pem"}
    return place.start(*driver, *flags, **files, **settings)


def make(server: Server, *names: str) -> None:
    with connected(server) as wire:
        for name in names:
            action = {
                "exec": {"kind": "python:3.11", "code": CODES[name]},
                "annotations": [{"key": "web-export", "value": True}],
            }
            assert wire.json(f"{ACTIONS}/{name}?overwrite=true", "PUT", action).status == 200


@pytest.fixture
def place() -> Iterator[Place]:
    with places.opened(Place) as place:
        certificates.write(place.folder)
        yield place


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if not has_sandbox():
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    with places.opened(Place) as place:
        certificates.write(place.folder)
        server = start(place, driver=())
        make(server, *CODES)
        yield server


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    with connected(server) as wire:
        yield wire


def test_clients_choose_by_the_names_of_protocols(server: Server, place: Place) -> None:
    for protocols, chosen in ((("h2", "http/1.1"), "h2"), (("http/1.1",), "http/1.1"), ((), None)):
        with connected(server, protocols=protocols) as wire:
            assert wire.socket.selected_alpn_protocol() == chosen
    old = start(place, tls__http2=False)
    with connected(old, protocols=("h2", "http/1.1")) as wire:
        assert wire.socket.selected_alpn_protocol() == "http/1.1"


def curl(server: Server, path: str, *flags: str, body: bytes | None = None) -> tuple[int, bytes]:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: apt-get install curl")
    if "HTTP2" not in subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout:
        pytest.skip("curl speaks no HTTP/2 here")
    argv = ["curl", "-sSk", "--http2", "--max-time", "30", "-w", "\\n%{http_version} %{http_code}", *flags]
    done = subprocess.run([*argv, server.url + path], input=body, capture_output=True, check=True)
    got, _, told = done.stdout.rpartition(b"\n")
    version, status = told.split()
    assert version == b"2"
    return int(status), got


def test_curl_speaks_it(server: Server) -> None:
    assert curl(server, "/ping") == (200, b"pong")
    assert curl(server, "/ping", "-I")[0] == 405
    body = json.dumps({"text": "a" * 900_000}).encode()
    flags = ("-H", "Content-Type: application/json", "--data-binary", "@-")
    asked = (*flags, "-u", GUEST, "-X", "POST")
    status, got = curl(server, f"{ACTIONS}/echo?blocking=true&result=true", *asked, body=body)
    assert (status, json.loads(got)["length"]) == (200, 900_000)
    expecting = curl(server, f"{WEB}/echo.text", *flags, "-H", "Expect: 100-continue", body=body)
    assert expecting == (200, b"a" * 900_000)
    assert curl(server, f"{WEB}/echo.text", *flags, body=body * 3)[0] == 413
    assert curl(server, f"{WEB}/parts.http") == (200, b"part 0 part 1 part 2 ")
    assert curl(server, f"{ACTIONS}/echo")[0] == 401


def test_invocations_and_their_refusals(wire: Wire) -> None:
    answer = wire.json(f"{ACTIONS}/echo?blocking=true&result=true", "POST", {"text": "hello"})
    assert (answer.status, json.loads(answer.body)["body"]) == (200, "hello")
    assert answer.headers["x-openwhisk-activation-id"]
    assert wire.ask(f"{ACTIONS}/echo", "POST").status == 401
    assert wire.ask(f"{ACTIONS}/missing?blocking=true", "POST", [KEY]).status == 404
    assert wire.ask(f"{ACTIONS}/echo", "POST", [KEY, ("origin", "https://example.com")]).status == 401
    assert wire.ask("/" + "a" * 9000).status == 414


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(wire: Wire) -> None:
    id = wire.client.ask(f"{ACTIONS}/echo", "POST", [KEY, JSON, ("content-length", "60000000")], more=True)
    wire.send()
    assert wire.wait(id)[0].status == 413
    id = wire.client.ask(f"{ACTIONS}/echo", "POST", [JSON, ("content-length", "60000000")], more=True)
    wire.send()
    assert wire.wait(id)[0].status == 401


def test_web_actions_in_whole_and_in_parts(wire: Wire) -> None:
    answer = wire.ask(f"{WEB}/echo.text?text=hello")
    assert (answer.status, answer.body, answer.is_whole) == (200, b"hello", True)
    answer = wire.ask(f"{WEB}/parts.http")
    assert (answer.status, answer.body, answer.is_whole) == (200, b"part 0 part 1 part 2 ", True)
    assert "transfer-encoding" not in answer.headers
    assert wire.ask(f"{WEB}/large.text").body == b"a" * 900_000
    head = wire.ask(f"{WEB}/echo.text?text=hello", "HEAD")
    assert (head.status, head.body, head.is_whole) == (200, b"", True)
    packed = wire.ask(f"{WEB}/large.text", headers=[("accept-encoding", "gzip")])
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) < 10_000


def test_events_are_passed_on_and_a_reader_that_leaves_is_noticed(wire: Wire) -> None:
    answer = wire.ask(f"{ACTIONS}/parts?blocking=true", "POST", [KEY, ("accept", "text/event-stream")])
    assert answer.status == 200
    assert answer.body.count(b"event: part\n") == 3
    assert b"event: record\n" in answer.body
    id = wire.client.ask(f"{ACTIONS}/slow?blocking=true", "POST", [KEY, ("accept", "text/event-stream")])
    wire.send()
    while not wire.client.answers[id].body:
        wire.hear()
    wire.client.h2.reset_stream(id, frames.CANCEL)
    wire.send()
    assert wire.ask("/ping").body == b"pong"


def test_a_route_of_the_gateway(wire: Wire) -> None:
    action = {
        "name": "echo",
        "namespace": "guest",
        "backendMethod": "GET",
        "backendUrl": f"http://localhost{WEB}/echo.text",
        "authkey": GUEST,
    }
    document = {
        "namespace": "guest",
        "gatewayBasePath": "/shop",
        "gatewayPath": "/echo",
        "gatewayMethod": "GET",
        "id": "API:guest:/shop",
        "action": action,
    }
    query = "responsetype=json&accesstoken=x&spaceguid=" + GUEST.split(":")[0]
    made = wire.json(f"/api/v1/web/whisk.system/apimgmt/createApi.http?{query}", "POST", {"apidoc": document})
    assert made.status == 200, made
    url = json.loads(made.body)["gwApiUrl"]
    answer = wire.ask(urlsplit(url).path + "/echo?text=hello")
    assert (answer.status, json.loads(answer.body)["body"]) == (200, "hello")


def test_files_of_a_site_and_ranges_of_them(wire: Wire) -> None:
    assert wire.json("/api/v1/namespaces/_/packages/pages?overwrite=true", "PUT", {}).status == 200
    packed = io.BytesIO()
    content = bytes(range(256)) * 8192
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("data.bin", content)
    put = wire.ask(
        "/api/v1/namespaces/_/packages/pages/web", "PUT", [KEY, ("content-type", "application/zip")], packed.getvalue()
    )
    assert put.status == 200, put
    assert wire.ask("/api/v1/web/guest/pages/data.bin").body == content
    part = wire.ask("/api/v1/web/guest/pages/data.bin", headers=[("range", "bytes=100-199")])
    assert (part.status, part.body) == (206, content[100:200])
    known = wire.ask("/api/v1/web/guest/pages/data.bin", headers=[("if-none-match", part.headers["etag"])])
    assert (known.status, known.body, known.is_whole) == (304, b"", True)


def test_fifty_requests_at_once(wire: Wire) -> None:
    bodies = {wire.client.ask(f"{WEB}/echo.text?text=number{n}"): f"number{n}".encode() for n in range(50)}
    wire.send()
    wire.wait(*bodies)
    assert {id: wire.client.answers[id].body for id in bodies} == bodies


def test_large_bodies_both_ways(wire: Wire) -> None:
    code = "def main(p): return {}\n#" + "x" * 5_000_000
    made = wire.json(f"{ACTIONS}/big?overwrite=true", "PUT", {"exec": {"kind": "python:3.11", "code": code}})
    assert made.status == 200
    got = wire.ask(f"{ACTIONS}/big", headers=[KEY])
    assert json.loads(got.body)["exec"]["code"] == code


PING = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00aaaaaaaa"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
EMPTY = b"\x00\x00\x00\x00\x00\x00\x00\x00\x01"
CONTINUED = b"\x00\x00\x00\x01\x01\x00\x00\x00\x03" + b"\x00\x00\x00\x09\x00\x00\x00\x00\x03" * 1000


@pytest.mark.parametrize(
    "flood", [PING * 50_000, SETTINGS * 50_000, EMPTY * 50_000, CONTINUED], ids=["pings", "settings", "empty", "heads"]
)
def test_a_flood_ends_its_connection_and_no_other(flood: bytes, server: Server, wire: Wire) -> None:
    with connected(server) as rude:
        rude.client.ask(f"{ACTIONS}/echo", "POST", [KEY, JSON], more=True)
        rude.send(flood)
        rude.drain()
    assert wire.ask("/ping").body == b"pong"


def test_requests_that_are_given_up_at_once_end_the_connection(server: Server, wire: Wire) -> None:
    with connected(server) as rude:
        for _ in range(2_000):
            rude.client.h2.reset_stream(rude.client.ask(f"{WEB}/slow.text"), frames.CANCEL)
        rude.send()
        rude.drain()
    assert wire.ask("/ping").body == b"pong"


def test_slow_clients_are_sent_away_and_one_connection_too_many_is_closed(place: Place) -> None:
    bounds = {"head_timeout_s": 1.0, "body_timeout_s": 2.0, "keep_alive_s": 1.0, "send_timeout_s": 1.0}
    server = start(place, http__connections=4, **{f"http__{name}": value for name, value in bounds.items()})
    make(server, "large")
    with contextlib.ExitStack() as stack:
        silent, late, idle, stuck = (stack.enter_context(connected(server, takes=False)) for _ in range(4))
        assert not can_ask(server)
        assert idle.ask("/ping").body == b"pong"
        body = late.client.ask(f"{ACTIONS}/large", "POST", [KEY, JSON, ("content-length", "9")], more=True)
        late.send()
        answer = stuck.client.ask(f"{WEB}/large.text")
        stuck.send()
        assert late.wait(body)[0].status == 408
        assert stuck.wait(answer)[0].code == frames.CANCEL
        for each in (silent, late, idle, stuck):
            each.drain()
    until(lambda: can_ask(server))


def can_ask(server: Server) -> bool:
    try:
        with connected(server) as wire:
            return wire.ask("/ping").body == b"pong"
    except OSError:  # of TLS or of the socket, whichever sees it first
        return False


@pytest.mark.parametrize("is_replaced", [False, True], ids=["stop", "takeover"])
def test_what_is_under_way_is_answered_when_a_server_ends(is_replaced: bool, place: Place) -> None:
    server = start(place)
    make(server, "slow")
    with connected(server) as wire:
        assert wire.ask(f"{WEB}/slow.text").body == b"done"
        ids = [wire.client.ask(f"{WEB}/slow.text") for _ in range(3)]
        wire.send()
        until(lambda: in_flight(server) >= 3)
        if is_replaced:
            new = start(place, "--takeover")
        else:
            server.process.terminate()
        assert [answer.body for answer in wire.wait(*ids)] == [b"done"] * 3
        wire.drain()
        assert wire.client.ended == frames.NO_ERROR
    assert server.process.wait(20) == 0
    if is_replaced:
        assert can_ask(new)


def in_flight(server: Server) -> int:
    with connected(server) as wire:
        return int(json.loads(wire.ask("/activation/count").body))
