"""APIs at domains of their own, over the wire and by TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests import certificates
from tests.system.conftest import Answer
from tests.system.test_gateway import NOT_FOUND, PLAIN, WEB, Clients

from visp.client import running

DOMAINS = "shop.example.com guest; free.example.com guest; other.example.com bob"


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    with running.running({"gateway.domains": DOMAINS}) as server:
        clients = Clients(server.url)
        exported = [{"key": "web-export", "value": True}]
        clients.api.action("gw-plain", PLAIN, "python:3.11", annotations=exported)
        told = {"target": f"{WEB}/gw-plain.json"}
        domains = ["Shop.example.com", "other.example.com", "unknown.example.com"]
        clients.load("/my club", {"GET /books": told, "GET /books/docs": told}, **{"x-visp-domains": domains})
        clients.load("/", {"GET /all": told, "GET /": told})
        yield clients


def at(clients: Clients, host: str, path: str) -> Answer:
    """The second answer: the first request fills what that is answered from."""
    first = clients.anyone.request("GET", path, headers={"Host": host})
    second = clients.anyone.request("GET", path, headers={"Host": host})
    assert second.status == first.status
    return second


def once_at(clients: Clients, host: str, path: str) -> Answer:
    return clients.anyone.request("GET", path, headers={"Host": host})


def test_an_api_answers_at_its_domain(clients: Clients) -> None:
    for host in ("shop.example.com", "SHOP.example.com:443", "shop.example.com."):
        answer = at(clients, host, "/books/more?a=1")
        assert answer.status == 200, answer
        assert (answer.json["a"], answer.json["__ow_path"]) == ("1", "/more")
        assert answer.json["__ow_headers"]["x-forwarded-url"] == f"http://{host}/books/more?a=1"


@pytest.mark.parametrize(
    "path",
    [
        "/all",
        "/gw/guest/my%20club/books",
        "/api/v1/web/guest/default/gw-plain.json",
        "/api/v1/namespaces/_/actions",
        "/metrics",
        "/ping",
        "/docs",
    ],
)
def test_nothing_else_is_there(clients: Clients, path: str) -> None:
    answer = at(clients, "shop.example.com", path)
    assert (answer.status, answer.json) == (404, NOT_FOUND)


def test_a_domain_is_its_namespaces_alone(clients: Clients) -> None:
    assert at(clients, "other.example.com", "/books").status == 404
    assert at(clients, "free.example.com", "/books").status == 404
    assert at(clients, "unknown.example.com", "/books").status == 405  # it is no domain of an API
    assert at(clients, "localhost", "/gw/guest/my%20club/books").status == 200


ASKS = """
import os, socket
from urllib.parse import urlsplit
def main(p):
    at = urlsplit(os.environ["__OW_API_HOST"])
    with socket.create_connection((at.hostname, at.port), 10) as wire:
        wire.sendall(p["head"].encode())
        return {"status": wire.recv(12).decode()}
"""


def test_a_head_from_inside_means_another_thing_outside(clients: Clients) -> None:
    """And is not answered out of memory as the same bytes were there."""
    head = "GET /gw/guest/my%20club/books HTTP/1.1\r\nHost: shop.example.com\r\n\r\n"
    clients.api.action("asks", ASKS, "python:3.11")
    at = urlsplit(clients.api.url)
    for _ in range(2):
        assert clients.api.run("asks", {"head": head}) == {"status": "HTTP/1.1 200"}
    for _ in range(2):
        with socket.create_connection((at.hostname, at.port), 10) as wire:
            wire.sendall(head.encode())
            assert wire.recv(12) == b"HTTP/1.1 404"


def test_a_domain_that_a_document_takes_up(clients: Clients) -> None:
    told = {"GET /x": {"target": f"{WEB}/gw-plain.json"}}
    clients.load("/later", told, **{"x-visp-domains": ["free.example.com"]})
    assert at(clients, "free.example.com", "/x").status == 200
    clients.load("/later", told)
    assert once_at(clients, "free.example.com", "/x").status == 404


def test_a_domain_has_its_certificate(tmp_path: Path) -> None:
    further = tmp_path / "further"
    further.mkdir()
    certificates.write(tmp_path)
    certificates.write(further, "shop.example.com")
    (further / "certificate.pem").rename(further / "shop.example.com.crt")
    (further / "key.pem").rename(further / "shop.example.com.key")
    settings = {
        "tls.certificate": str(tmp_path / "certificate.pem"),
        "tls.key": str(tmp_path / "key.pem"),
        "tls.certificates": str(further),
    }
    with running.running(settings) as server:
        parts = urlsplit(server.url)
        for name, file in (
            ("shop.example.com", further / "shop.example.com.crt"),
            ("localhost", tmp_path / "certificate.pem"),
        ):
            context = ssl.create_default_context(cafile=str(file))
            with (
                socket.create_connection((parts.hostname, parts.port), 20) as plain,
                context.wrap_socket(plain, server_hostname=name) as sealed,
            ):
                assert sealed.version() in ("TLSv1.2", "TLSv1.3")
