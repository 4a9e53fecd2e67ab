"""A server behind a proxy: whom it believes, who its guest is, and that nobody is given what is another's."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.system import nginx, places
from tests.system.conftest import GUEST, Api
from tests.system.nginx import FORWARDING
from tests.system.places import TRUSTING, Place
from tests.system.test_apis import Apis
from tests.system.test_smuggling import IN_STEP, REFUSED, SMUGGLED
from tests.system.traces import until
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from visp.client.running import Server

pytestmark = pytest.mark.slow  # it starts servers

SHOWN = """
def main(p):
    seen = p['__ow_headers']
    return {'body': {'host': seen['host'], 'path': p['__ow_path'], 'q': p.get('q'), 'url': seen.get('x-forwarded-url')}}
"""
KINDS = "python:3.11"


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with places.opened(Place) as place:
        yield place


@pytest.fixture(scope="module")
def server(place: Place) -> Server:
    """It trusts an address from which the proxy comes, and not that of the tests' own connections."""
    server = place.start(*TRUSTING, http__trusted_proxies="127.0.0.2", http__domain="example.com", log_level="debug")
    api = Api(server.url)
    assert api.request("PUT", "packages/public", {}).status == 200
    api.action("shown", SHOWN, KINDS, annotations=[{"key": "web-export", "value": True}])
    return server


def ask(server: Server, path: str, headers: dict[str, str], *, source: str = "127.0.0.1") -> tuple[int, Any]:
    """From an address of this machine, which is a proxy's or nobody's."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30, source_address=(source, 0))
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        with contextlib.suppress(ValueError):
            return answer.status, json.loads(body)
        return answer.status, body
    finally:
        connection.close()


PROXY = "127.0.0.2"
SHOWN_AT = "/api/v1/web/guest/default/shown.json"


def guest() -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(GUEST.encode()).decode()}


LISTS = "/api/v1/namespaces/_/actions"
INVOKES = "/api/v1/namespaces/_/actions/shown"


@pytest.mark.parametrize("times", range(3))  # heads that are known mean the same
def test_the_forwarded_host_is_believed_of_a_trusted_proxy_alone(server: Server, times: int) -> None:
    headers = {"Host": "inner", "X-Forwarded-Host": "outer.example:8443"}
    assert ask(server, SHOWN_AT, headers, source=PROXY)[1]["body"]["host"] == "outer.example:8443"
    assert ask(server, SHOWN_AT, headers)[1]["body"]["host"] == "inner"


@pytest.mark.parametrize("times", range(3))
def test_a_namespace_has_a_host_of_its_own(server: Server, times: int) -> None:
    status, got = ask(server, "/default/shown.json/a/b?q=1", {"Host": "guest.example.com:80"})
    assert (status, got["body"]["path"], got["body"]["q"]) == (200, "/a/b", "1")
    forwarded = {"Host": "inner", "X-Forwarded-Host": "guest.example.com"}
    assert ask(server, "/default/shown.json", forwarded, source=PROXY)[0] == 200
    assert ask(server, "/default/shown.json", forwarded)[0] == 405
    assert ask(server, "/ping", {"Host": "example.com"})[0] == 200
    assert ask(server, LISTS, {"Host": "guest.example.com"} | guest())[0] == 404


def test_the_root_of_a_namespaces_host_is_its_page(server: Server) -> None:
    page = "def main(p):\n  return {'html': '<p>' + p['__ow_path'] + '</p>'}"
    Api(server.url).action("public/index", page, KINDS, annotations=[{"key": "web-export", "value": True}])
    assert ask(server, "/", {"Host": "guest.example.com"}) == (200, b"<p></p>")


@pytest.mark.parametrize("path", [LISTS, "/metrics"])
@pytest.mark.parametrize(
    ("headers", "source", "is_let_in"),
    [
        ({}, "127.0.0.1", True),
        ({}, PROXY, False),
        ({"X-Forwarded-For": "127.0.0.1"}, PROXY, False),
        ({"X-Forwarded-For": "127.0.0.1"}, "127.0.0.1", False),
        ({"X-Forwarded-Host": "localhost"}, PROXY, False),
        ({"Forwarded": "for=127.0.0.1"}, "127.0.0.1", False),
        ({"X-Real-IP": "127.0.0.1"}, "127.0.0.1", False),
        ({"Via": "1.1 proxy"}, "127.0.0.1", False),
    ],
)
def test_the_well_known_key_is_not_good_through_a_proxy(
    server: Server, path: str, headers: dict[str, str], source: str, is_let_in: bool
) -> None:
    given = {"Host": "localhost"} | headers | guest()
    assert (ask(server, path, given, source=source)[0] == 200) is is_let_in


def test_nor_is_it_where_the_action_is_in_memory(server: Server) -> None:
    where = urlsplit(server.url)
    for more, status in (("", 200), ("", 200), ("Via: 1.1 proxy\r\n", 401), ("X-Forwarded-For: 127.0.0.1\r\n", 401)):
        with socket.create_connection((where.hostname, where.port), 20) as connection:
            key = guest()["Authorization"]
            body = '{"__ow_headers": {"host": "x"}, "__ow_path": ""}'
            connection.sendall(
                f"POST {INVOKES}?blocking=true HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\n{more}"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            assert connection.recv(12) == f"HTTP/1.1 {status}".encode()


def test_the_client_that_a_trusted_proxy_names_is_the_one_of_the_log(server: Server) -> None:
    forwarded = {"X-Forwarded-For": "203.0.113.9, 198.51.100.7", "X-Request-ID": "named-by-a-proxy"}
    ask(server, "/ping", forwarded, source=PROXY)
    ask(server, "/ping", forwarded | {"X-Request-ID": "named-by-anyone"})
    until(lambda: "named-by-anyone" in server.read_log())
    lines = [line for line in server.read_log().splitlines() if "named-by" in line]
    assert ["client=198.51.100.7" in line for line in lines] == [True, False]


ECHO = "def main(p):\n  return {'body': 'you said ' + p['__ow_body']} if '__ow_body' in p else {}"


@pytest.fixture(scope="module")
def chat(server: Server) -> str:
    """A WebSocket that wants a key."""
    annotations = [{"key": name, "value": True} for name in ("web-export", "web-socket", "require-whisk-auth")]
    Api(server.url).action("chat", ECHO, KINDS, annotations=annotations)
    return "/default/chat"


def said(server: Server, path: str, *, source: str, host: str = "localhost") -> str:
    where = urlsplit(server.url)
    plain = socket.create_connection((where.hostname, where.port), 20, (source, 0))
    with connect(f"ws://{host}{path}", sock=plain, compression=None, additional_headers=guest()) as opened:
        opened.send("hello")
        return str(opened.recv(20))


def test_nor_is_it_for_a_websocket(server: Server, chat: str) -> None:
    path = f"/api/v1/web/guest{chat}"
    assert said(server, path, source="127.0.0.1") == "you said hello"
    with pytest.raises(InvalidStatus) as refused:
        said(server, path, source=PROXY)
    assert refused.value.response.status_code == 401


def test_a_websocket_is_had_at_its_namespaces_host(server: Server, chat: str) -> None:
    Api(server.url).action(
        "open", ECHO, KINDS, annotations=[{"key": n, "value": True} for n in ("web-export", "web-socket")]
    )
    assert said(server, "/default/open", source="127.0.0.1", host="guest.example.com") == "you said hello"


@pytest.fixture(scope="module")
def club(place: Place, server: Server) -> dict[str, str]:
    """Headers of the owner of an API, who may come through a proxy."""
    key = place.told("user", "create", "owner")
    api = Api(server.url, key)
    until(lambda: api.get("actions").status == 200)
    api.action("shown", SHOWN, KINDS, annotations=[{"key": "web-export", "value": True}])
    assert Apis(api).add("/club", "/books", "GET", "shown").status == 200
    return {"Authorization": "Basic " + base64.b64encode(key.encode()).decode()}


FORWARDED = {"Host": "inner", "X-Forwarded-Host": "outer.example:8443", "X-Forwarded-Proto": "https"}


def test_an_api_is_shown_where_a_trusted_proxy_says_it_was_asked(server: Server, club: dict[str, str]) -> None:
    path = "/api/v1/web/whisk.system/apimgmt/getApi.http?basepath=/club"
    for source, url in ((PROXY, "https://outer.example:8443"), ("127.0.0.1", "http://inner")):
        status, told = ask(server, path, FORWARDED | club, source=source)
        assert (status, told["apis"][0]["value"]["gwApiUrl"]) == (200, f"{url}/gw/owner/club")


def test_an_api_tells_its_action_where_a_trusted_proxy_was_asked(server: Server, club: dict[str, str]) -> None:
    for source, url in ((PROXY, "https://outer.example:8443"), ("127.0.0.1", "http://inner")):
        status, told = ask(server, "/gw/owner/club/books?q=1", FORWARDED, source=source)
        assert status == 200
        assert told["body"]["url"] == f"{url}/gw/owner/club/books?q=1"


def test_the_page_of_an_api_leads_where_it_was_asked(server: Server, club: dict[str, str]) -> None:
    """It and the document name paths alone, which are right at whatever host, port and scheme a reader has come to."""
    for source in (PROXY, "127.0.0.1"):
        status, page = ask(server, "/gw/owner/club/docs", FORWARDED, source=source)
        assert (status, b"inner" in page, b"http://" in page) == (200, False, False)
        assert b'href="/gw/owner/club/openapi.json"' in page
        assert ask(server, "/gw/owner/club/openapi.json", FORWARDED, source=source)[1]["servers"] == [
            {"url": "/gw/owner/club"}
        ]


# ── behind nginx ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def behind(place: Place) -> Iterator[str]:
    with places.opened(Place) as place:
        server = place.start(*TRUSTING, http__trusted_proxies="127.0.0.1", http__domain="example.com")
        with nginx.before(server.url, FORWARDING) as url:
            yield url


@pytest.fixture(scope="module")
def behind_plain() -> Iterator[str]:
    """An nginx as it is without any configuration of headers: its backend's own host, and no word of the client."""
    with places.opened(Place) as place:
        server = place.start(*TRUSTING, http__trusted_proxies="127.0.0.1")
        with nginx.before(server.url) as url:
            yield url


def test_no_guest_comes_through_nginx(behind: str, behind_plain: str) -> None:
    for url in (behind, behind_plain):
        assert Api(url).get("actions").status == 401
        assert Api(url).request("GET", "/ping").body == b"pong"


def read_to_end(connection: socket.socket) -> bytes:
    got = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        while part := connection.recv(65536):
            got += part
    return got


BROKEN = REFUSED | {name: request for name, (request, _) in IN_STEP.items()}


@pytest.mark.parametrize("name", BROKEN)
def test_nobody_is_given_anothers_answer_behind_nginx(behind: str, name: str) -> None:
    """nginx has one connection to the server: an answer too many, or one too few, would be the next client's."""
    where = urlsplit(behind)
    marked = SMUGGLED.replace(b"\r\n\r\n", b"\r\nX-Request-ID: smuggled\r\nConnection: close\r\n\r\n")
    with socket.create_connection((where.hostname, where.port), timeout=0.7) as attacker:
        attacker.sendall(BROKEN[name] + marked)
        read_to_end(attacker)
    for number in range(4):
        id = f"honest-{number}"
        with contextlib.closing(http.client.HTTPConnection(where.netloc, timeout=10)) as client:
            client.request("GET", f"/nowhere-{number}" if number % 2 else "/ping", headers={"X-Request-ID": id})
            answer = client.getresponse()
            assert (answer.status, answer.headers["X-Request-ID"]) == (405 if number % 2 else 200, id)
            answer.read()


def test_the_limits_hold_behind_nginx(behind: str) -> None:
    api = Api(behind)
    assert api.request("GET", "/ping?" + "a" * 8200).status == 414
    assert api.request("GET", "/ping", headers={f"X-{n}": "a" * 8000 for n in range(9)}).status == 431
    assert api.request("GET", "/ping").status == 200
