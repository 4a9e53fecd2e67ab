"""Clients that take their time: each is sent away within its bound, and leaves nothing behind.

These tests take seconds: what they wait for are the bounds themselves, set to the shortest.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.system import places
from tests.system.conftest import Api
from tests.system.places import TRUSTING, Place
from tests.system.traces import until

from visp.client.running import Server

pytestmark = pytest.mark.slow

COUNT = 300
HEAD_S, BODY_S, IDLE_S, SEND_S = 1.0, 2.0, 1.0, 1.0
LATE_S = 3.0
"""How much later than its bound a connection may end: the sweep's second, and a machine that is busy."""
GET = b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"
LARGE, BODIES = 900_000, 1_500_000
LISTENS = "0A"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with places.opened(Place) as place:
        yield place.start(
            *TRUSTING,
            http__head_timeout_s=HEAD_S,
            http__body_timeout_s=BODY_S,
            http__keep_alive_s=IDLE_S,
            http__send_timeout_s=SEND_S,
            http__connections=COUNT + 10,
            http__bodies_bytes=BODIES,
        )


@contextlib.contextmanager
def many(server: Server, count: int, first: bytes) -> Iterator[list[socket.socket]]:
    where = urlsplit(server.url)
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(socket.create_connection((where.hostname, where.port), 10)) for _ in range(count)]
        for each in made:
            each.sendall(first)
            each.setblocking(False)
        yield made


def drip(connections: list[socket.socket], drop: bytes, within_s: float) -> list[bytes]:
    """Sends a byte now and then until every connection has ended; what each was answered."""
    answers = dict.fromkeys(connections, b"")
    until_s = time.monotonic() + within_s
    with selectors.DefaultSelector() as selector:
        for each in connections:
            selector.register(each, selectors.EVENT_READ)
        while selector.get_map():
            assert time.monotonic() < until_s, f"{len(selector.get_map())} are still open"
            for key, _ in selector.select(0.2):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                try:
                    got = connection.recv(65536)
                except ConnectionError:
                    got = b""
                answers[connection] += got
                if not got:
                    selector.unregister(connection)
            for key in list(selector.get_map().values()):
                with contextlib.suppress(OSError):
                    os.write(key.fd, drop)
    return list(answers.values())


def sockets_of(server: Server) -> list[list[str]]:
    """Lines of `/proc/net/tcp`, in words, for each connection to the server."""
    port = urlsplit(server.url).port
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [line for line in lines if int(line[1].partition(":")[2], 16) == port and line[3] != LISTENS]


def unread_bytes(server: Server) -> int:
    """What was sent to the server, and is on its way still."""
    return sum(int(line[4].partition(":")[2], 16) for line in sockets_of(server))


def connections_of(server: Server) -> int:
    """How many of its own the server has open: none but those of tests, and perhaps one that is about to end."""
    folder = f"/proc/{server.pid}/fd"
    of_port = {line[9] for line in sockets_of(server)}
    found = 0
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):
            found += os.readlink(f"{folder}/{name}")[len("socket:[") : -1] in of_port
    return found


@pytest.mark.parametrize(
    ("first", "drop", "bound_s"),
    [
        (b"GET /ping HTTP/1.1\r\nHost: localhost\r\nX-A: ", b"a", HEAD_S),
        (b"G", b"E", HEAD_S),
        (
            b"PUT /api/v1/namespaces/_/actions/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n",
            b"a",
            BODY_S,
        ),
        (b"POST /ping HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", b"0", BODY_S),
    ],
    ids=["a head", "a method", "a body", "a chunk's size"],
)
def test_a_byte_now_and_then_keeps_no_connection(server: Server, first: bytes, drop: bytes, bound_s: float) -> None:
    with many(server, COUNT, first) as connections:
        api = Api(server.url)
        assert api.request("GET", "/ping", timeout_s=5.0).status == 200
        answers = drip(connections, drop, bound_s + LATE_S)
    told = {re.match(rb"HTTP/1\.1 (\d+) |\Z", answer) for answer in answers}
    assert {match and (match[1] or b"") for match in told} <= {b"408", b"400", b"401", b"405", b""}
    until(lambda: connections_of(server) == 0)


def test_bodies_that_are_being_received_are_bounded_together(server: Server) -> None:
    api = Api(server.url)
    api.action("taken", "def main(p):\n  return {}", "python:3.11", annotations=[{"key": "web-export", "value": True}])
    path, body = "/api/v1/web/guest/default/taken.json", b'"%s"' % (b"a" * LARGE)
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body))
    for _ in range(3):
        assert api.request("POST", path, body).status == 200
        with many(server, 1, head) as (held,):
            held.setblocking(True)
            held.sendall(body[:-1])
            until(lambda: unread_bytes(server) == 0)
            until(lambda: api.request("POST", path, body).status == 503)
            held.sendall(body[-1:])
            assert held.recv(12) == b"HTTP/1.1 200"
    assert api.request("POST", path, body).status == 200


def test_idle_connections_end_and_one_too_many_is_closed_at_once(server: Server) -> None:
    with many(server, COUNT + 10, GET) as connections:
        where = urlsplit(server.url)
        one_more = socket.create_connection((where.hostname, where.port), 5.0)
        with one_more, contextlib.suppress(ConnectionError):
            one_more.sendall(GET)
            assert one_more.recv(100) == b""
        assert drip(connections, b"", IDLE_S + LATE_S)
    until(lambda: connections_of(server) == 0)
    assert Api(server.url).request("GET", "/ping").status == 200


def test_who_does_not_take_an_answer_is_cut_off(server: Server) -> None:
    code = f"def main(p):\n  return {{'body': 'a' * {LARGE}}}"
    Api(server.url).action("large", code, "python:3.11", annotations=[{"key": "web-export", "value": True}])
    asked = b"GET /api/v1/web/guest/default/large.text HTTP/1.1\r\nHost: localhost\r\n\r\n"
    where = urlsplit(server.url)
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stuck = stack.enter_context(socket.socket())
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.connect((where.hostname, where.port))
            stuck.sendall(asked * 5)
        until(lambda: connections_of(server) >= 5)
        until(lambda: connections_of(server) == 0, SEND_S + IDLE_S + 2 * LATE_S)
