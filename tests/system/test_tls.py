"""A server whose port speaks TLS: who may connect, what clients see of a new certificate, and of a new server."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests import certificates
from tests.ports import free_port
from tests.system import places
from tests.system.conftest import GUEST
from tests.system.places import TRUSTING, Place
from tests.system.traces import until
from websockets.sync.client import connect

from visp.client.running import NotReady, Server

pytestmark = pytest.mark.slow  # every test starts a server


SOCKET = ("web-export", "web-socket")


@pytest.fixture
def place() -> Iterator[Place]:
    with places.opened(Place) as place:
        certificates.write(place.folder)
        yield place


def start(place: Place, *flags: str, **settings: Any) -> Server:
    files = {"tls__certificate": place.folder / "certificate.pem", "tls__key": place.folder / "key.pem"}
    return place.start(*TRUSTING, *flags, **files, **settings)


def trusting(place: Place) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(place.folder / "certificate.pem"))


def careless() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.contextmanager
def connected(server: Server, context: ssl.SSLContext) -> Iterator[http.client.HTTPSConnection]:
    parts = urlsplit(server.url)
    connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=20, context=context)
    connection.connect()
    try:
        yield connection
    finally:
        connection.close()


def ask(connection: http.client.HTTPSConnection, path: str = "/ping") -> int:
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def serial(server: Server) -> bytes:
    """The certificate that a new connection is shown."""
    parts = urlsplit(server.url)
    with (
        socket.create_connection((parts.hostname, parts.port), 10) as plain,
        careless().wrap_socket(plain) as sealed,
    ):
        shown = sealed.getpeercert(binary_form=True)
        assert shown is not None
        return shown


def test_the_command_speaks_to_it_and_plain_http_is_no_answer(place: Place) -> None:
    server = start(place)
    assert server.url.startswith("https://127.0.0.1:")
    environ = os.environ | {"WHISK_APIHOST": server.url, "SSL_CERT_FILE": str(place.folder / "certificate.pem")}
    argv = [sys.executable, "-m", "visp", "action", "list"]
    assert subprocess.run(argv, env=environ, capture_output=True, check=False).returncode == 0
    del environ["SSL_CERT_FILE"]
    refused = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "is not trusted" in refused.stderr
    assert subprocess.run([*argv, "-i"], env=environ, capture_output=True, check=False).returncode == 0
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), 10) as plain:
        plain.sendall(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
        got = plain.recv(100)
        assert not got.startswith(b"HTTP/")


def test_a_websocket_is_encrypted_too(place: Place) -> None:
    server = start(place)
    code = "def main(p):\n  return {'body': 'you said ' + p['__ow_body']} if '__ow_body' in p else {}"
    body = {"exec": {"kind": "python:3.11", "code": code}, "annotations": [{"key": n, "value": True} for n in SOCKET]}
    with connected(server, trusting(place)) as connection:
        headers = {
            "Authorization": "Basic " + base64.b64encode(GUEST.encode()).decode(),
            "Content-Type": "application/json",
        }
        connection.request("PUT", "/api/v1/namespaces/_/actions/chat", json.dumps(body), headers)
        assert connection.getresponse().status == 200
    url = server.url.replace("https", "wss", 1) + "/api/v1/web/guest/default/chat"
    with connect(url, ssl=trusting(place), compression=None) as opened:
        opened.send("hello")
        assert opened.recv(20) == "you said hello"


def test_old_versions_of_tls_are_refused(place: Place) -> None:
    server = start(place)
    context = careless()
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)), connected(server, context):
        pass


@pytest.mark.parametrize("workers", [1, 2])
def test_a_new_certificate_is_shown_on_a_hangup_and_no_connection_ends(workers: int, place: Place) -> None:
    server = start(place, workers=workers)
    before = serial(server)
    with connected(server, trusting(place)) as old:
        assert ask(old) == 200
        certificates.write(place.folder)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.read_log().count("tls.reloaded") == workers)
        assert ask(old) == 200
        assert serial(server) != before
        certificates.put(place.folder / "key.pem", b"spoilt")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.read_log().count("tls.kept") == workers)
        assert ask(old) == 200
        assert serial(server) != before
    assert server.stop() == 0


def test_a_changed_file_is_found_without_a_hangup(place: Place) -> None:
    server = start(place)
    before = serial(server)
    certificates.write(place.folder)
    until(lambda: "tls.reloaded" in server.read_log())
    assert serial(server) != before


def test_bad_files_keep_it_from_starting(place: Place) -> None:
    certificates.put(place.folder / "certificate.pem", b"spoilt")
    with pytest.raises(NotReady, match="no certificate and its key"):
        start(place)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_new_server_takes_over_and_encrypted_connections_end_with_an_answer(workers: int, place: Place) -> None:
    server = start(place, workers=workers)
    with connected(server, trusting(place)) as connection:
        assert ask(connection) == 200
        new = start(place, "--takeover", workers=workers)
        assert server.process.wait(20) == 0
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError, ssl.SSLError)):
            ask(connection)
        with connected(new, trusting(place)) as again:
            assert ask(again) == 200
    assert new.url == server.url


def test_plain_http_is_sent_to_https(place: Place) -> None:
    port = free_port()
    server = start(place, tls__redirect_port=port)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/ping?a=b")
    answer = connection.getresponse()
    assert answer.status == 308
    assert answer.headers["Location"] == server.url + "/ping?a=b"
    connection.close()


def test_who_does_not_shake_hands_counts_as_a_connection_and_is_sent_away(place: Place) -> None:
    server = start(place, http__connections=3, http__head_timeout_s=1.0)
    parts = urlsplit(server.url)
    silent = [socket.create_connection((parts.hostname, parts.port), 10) for _ in range(3)]
    with pytest.raises((ssl.SSLError, ConnectionError)), connected(server, trusting(place)):
        pass
    for each in silent:
        each.settimeout(10)
        assert each.recv(1) == b""
        each.close()
    until(lambda: is_answered(server, place))
    with connected(server, trusting(place)) as connection:
        assert ask(connection, "/metrics") == 200


def is_answered(server: Server, place: Place) -> bool:
    try:
        with connected(server, trusting(place)) as connection:
            return ask(connection) == 200
    except (ssl.SSLError, ConnectionError):
        return False
