"""APIs whose targets are elsewhere, over the wire."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from tests.system.test_gateway import Clients

from visp.client import running

LONG = b"0123456789abcdef" * 64 * 1024


class Target:
    """Answers with what it was sent; `/long` in parts, `/cut` breaks off, `/moved` elsewhere."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        target = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                path = urlsplit(self.path).path
                if path == "/long":
                    self.send_response(200)
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    self._chunk(b"first")
                    target.go_on.wait(30)
                    self._chunk(LONG)
                    self._chunk(b"")
                elif path == "/cut":
                    self.send_response(200)
                    self.send_header("Content-Length", "1000000")
                    self.end_headers()
                    self.wfile.write(b"a part")
                    self.close_connection = True
                else:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    told = {"method": self.command, "path": self.path, "headers": headers, "body": body.decode()}
                    shown = json.dumps(told).encode()
                    self.send_response(302 if path == "/moved" else 203)
                    for pair in (("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Own", "1"), ("Keep-Alive", "x")):
                        self.send_header(*pair)
                    self.send_header("Access-Control-Allow-Origin", "mine")
                    self.send_header("Location", "http://127.0.0.1:1/")
                    self.send_header("Content-Length", str(len(shown)))
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(shown)

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = answer

            def _chunk(self, data: bytes) -> None:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.close()


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    with running.running({"hooks.reach": "any"}) as server:
        yield Clients(server.url)


CORS = {"cors": {"enabled": True}}


def test_the_request_as_the_target_sees_it(clients: Clients, target: Target) -> None:
    operations = {
        "POST /fixed": {"target": f"{target.url}/v1/thing?key=k"},
        "GET /put": {"target": f"{target.url}/put", "verb": "put"},
    }
    url = clients.load("/out", operations)
    headers = {
        "Authorization": "Bearer of the target's own",
        "Connection": "close, x-hop",
        "X-Hop": "1",
        "X-Own": "v",
        "Cookie": "c=1",
        "X-Forwarded-For": "6.6.6.6",
        "X-Request-Id": "mine-1",
    }
    answer = clients.anyone.request("POST", f"{url}/fixed/and%2Fmore?a=%20b", b'{"x":1}', headers)
    assert answer.status == 203
    seen = answer.json
    assert (seen["method"], seen["path"], seen["body"]) == ("POST", "/v1/thing/and%2Fmore?key=k&a=%20b", '{"x":1}')
    told = seen["headers"]
    assert told["host"] == urlsplit(target.url).netloc
    assert (told["authorization"], told["x-own"], told["cookie"]) == ("Bearer of the target's own", "v", "c=1")
    assert (told["x-forwarded-for"], told["x-request-id"]) == ("127.0.0.1", "mine-1")
    assert told["x-forwarded-url"] == f"{clients.url}{url}/fixed/and%2Fmore?a=%20b"
    assert "x-hop" not in told
    assert (answer.headers["x-own"], answer.headers["x-request-id"]) == ("1", "mine-1")
    assert "keep-alive" not in answer.headers
    assert clients.anyone.get(f"{url}/put").json["method"] == "PUT"


def test_the_whole_path_goes_on_where_it_is_asked_for(clients: Clients, target: Target) -> None:
    url = clients.load("/whole", {"GET /x": {"target": f"{target.url}/v1$(request.path)"}})
    assert clients.anyone.get(f"{url}/x/y?q=1").json["path"] == "/v1/whole/x/y?q=1"
    assert clients.anyone.get(f"{url}/x/%2e%2e/%2e%2e/admin").status == 404


def test_a_key_of_the_platform_is_not_passed_on(clients: Clients, target: Target) -> None:
    url = clients.load("/keys", {"GET /x": {"target": f"{target.url}/x"}})
    assert "authorization" not in clients.api.get(f"{url}/x").json["headers"]
    answer = clients.anyone.request("GET", f"{url}/x", headers={"X-Require-Whisk-Auth": "s"})
    assert "x-require-whisk-auth" not in answer.json["headers"]


def test_headers_and_mapping(clients: Clients, target: Target) -> None:
    steps = [{"set-variable": {"actions": [{"set": "message.headers.X-Key", "value": "secret"}]}}]
    mapping = [
        {"action": "transform", "from": {"location": "query", "name": "q"}, "to": {"location": "header", "name": "X-Q"}}
    ]
    url = clients.load(
        "/mappedout", {"GET /x": {"target": f"{target.url}/x", "steps": steps, "x-visp-mapping": mapping}}
    )
    seen = clients.anyone.get(f"{url}/x?q=1&r=2").json
    assert (seen["path"], seen["headers"]["x-key"], seen["headers"]["x-q"]) == ("/x?r=2", "secret", "1")


def test_cors_redirects_and_head(clients: Clients, target: Target) -> None:
    operations = {"GET /moved": {"target": f"{target.url}/moved"}, "HEAD /x": {"target": f"{target.url}/x"}}
    url = clients.load("/corsout", operations, configuration=CORS)
    assert clients.anyone.request("OPTIONS", f"{url}/moved").status == 200
    answer = clients.anyone.request("GET", f"{url}/moved", headers={"Origin": "http://page"})
    assert (answer.status, answer.headers["location"]) == (302, "http://127.0.0.1:1/")
    assert answer.headers["access-control-allow-origin"] == "http://page"
    answer = clients.anyone.request("HEAD", f"{url}/x")
    assert (answer.status, answer.body) == (203, b"")
    assert int(answer.headers["content-length"]) > 0


def test_an_answer_comes_as_it_is_made(clients: Clients, target: Target) -> None:
    url = clients.load("/longout", {"GET /long": {"target": f"{target.url}/long"}})
    connection = http.client.HTTPConnection(urlsplit(clients.url).netloc, timeout=60)
    connection.request("GET", f"{url}/long")
    got = connection.getresponse()
    assert got.read(5) == b"first"
    target.go_on.set()
    assert got.read() == LONG
    connection.close()


def test_an_answer_that_breaks_off_is_not_taken_for_whole(clients: Clients, target: Target) -> None:
    url = clients.load("/cutout", {"GET /cut": {"target": f"{target.url}/cut"}})
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        clients.anyone.get(f"{url}/cut")


def test_failures(clients: Clients, target: Target) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    operations = {"GET /closed": {"target": f"http://127.0.0.1:{port}/"}, "POST /x": {"target": f"{target.url}/x"}}
    url = clients.load("/failingout", operations)
    answer = clients.anyone.get(f"{url}/closed")
    message = "Oops. Something went wrong. Check your URI and try again."
    assert (answer.status, answer.json) == (500, {"code": 502, "message": message})
    assert {"x-request-id", "x-gateway-host"} <= answer.headers.keys()
    assert clients.anyone.request("POST", f"{url}/x", b"x" * (5 * 1024 * 1024 + 1)).status == 413


def test_an_api_that_calls_itself_comes_to_an_end(clients: Clients) -> None:
    url = clients.load("/circle", {"GET /x": {"target": f"{clients.url}/gw/guest/circle/x"}})
    answer = clients.anyone.get(f"{url}/x")
    assert (answer.status, answer.json["code"]) == (500, 500)


def test_private_addresses_are_closed(server: running.Server) -> None:
    clients = Clients(server.url)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        url = clients.load("/private", {"GET /x": {"target": f"http://localhost:{listener.getsockname()[1]}/"}})
        assert clients.anyone.get(f"{url}/x").json["code"] == 502
        with pytest.raises(BlockingIOError):
            listener.accept()
    clients.delete("/private")


def test_a_request_names_its_target_where_a_document_lets_it(clients: Clients, target: Target) -> None:
    routing = {"x-visp-backend-routing": {"whitelist": ["127.0.0.1"]}}
    url = clients.load("/routed", {"GET /x": {"target": f"{target.url}/own"} | routing})
    assert clients.anyone.get(f"{url}/x/more").json["path"] == "/own/more"
    headers = {"X-Cf-Forwarded-Url": f"{target.url}/other?b=1"}
    assert clients.anyone.request("GET", f"{url}/x/more?a=1", headers=headers).json["path"] == "/other/more?b=1&a=1"
    answer = clients.anyone.request("GET", f"{url}/x", headers={"X-Cf-Forwarded-Url": "http://elsewhere/"})
    refused = {"status": 403, "message": "Error: Dynamic backend host not part of whitelist."}
    assert (answer.status, answer.json) == (403, refused)


def test_keys_of_scopes(clients: Clients, target: Target) -> None:
    told = {"target": f"{target.url}/x"}
    security = {
        scope: {"x-visp-security": [{"type": "apiKey", "scope": scope}]} for scope in ("api", "resource", "tenant")
    }
    url = clients.load("/scopes", {f"GET /{scope}": told | own for scope, own in security.items()})
    bodies = {
        "api": {"artifact_id": "/scopes"},
        "resource": {"artifact_id": "/scopes", "scope": "resource", "resource": "/resource"},
        "tenant": {"scope": "tenant"},
    }
    for scope, body in bodies.items():
        made = clients.api.request("POST", "/v2/_/subscriptions", body | {"client_id": f"k-{scope}"})
        assert made.status == 200, made

    def statuses() -> list[list[int]]:
        return [
            [clients.anyone.request("GET", f"{url}/{path}", headers={"X-Api-Key": f"k-{key}"}).status for key in bodies]
            for path in security
        ]

    assert statuses() == [[203, 401, 401], [401, 203, 401], [401, 401, 203]]
    listed = clients.api.get("/v2/_/subscriptions?artifact_id=/scopes&scope=resource&resource=/resource")
    assert listed.json == ["k-resource"]
    assert clients.api.get("/v2/_/subscriptions?artifact_id=/scopes&resource=/none").status == 404
    assert clients.api.get("/v2/_/subscriptions?artifact_id=/scopes&scope=other").status == 400
    assert clients.api.delete("/v2/_/subscriptions/k-tenant?scope=tenant").status == 204
    assert statuses()[2] == [401, 401, 401]
