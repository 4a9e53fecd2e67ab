"""Request smuggling: what two servers might read differently ends the connection, and is never two requests to one and
one to the other.
"""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from visp.client import running
from visp.entity.subject import GUEST_KEY, GUEST_UUID

KEY = base64.b64encode(f"{GUEST_UUID}:{GUEST_KEY}".encode())
ACTIONS = b"/api/v1/namespaces/_/actions"
SMUGGLED = b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"
"""Hidden behind the broken request: an answer to it is a desync."""


INVOKE = b"POST " + ACTIONS + b"/smuggling HTTP/1.1"


def head(*lines: bytes, first: bytes = INVOKE, host: bytes = b"localhost") -> bytes:
    every = [first, *([b"Host: " + host] if host else []), b"Authorization: Basic " + KEY]
    every += [b"Content-Type: application/json", *lines]
    return b"\r\n".join(every) + b"\r\n\r\n"


CHUNKED = b"Transfer-Encoding: chunked"
EMPTY = b"0\r\n\r\n"

REFUSED = {
    # lengths
    "length and chunked": head(b"Content-Length: 5", CHUNKED) + EMPTY,
    "chunked and length": head(CHUNKED, b"Content-Length: 5") + EMPTY,
    "two lengths that differ": head(b"Content-Length: 0", b"Content-Length: 2") + b"{}",
    "two lengths alike": head(b"Content-Length: 2", b"Content-Length: 2") + b"{}",
    "a list of lengths": head(b"Content-Length: 2, 2") + b"{}",
    "a length with a sign": head(b"Content-Length: +2") + b"{}",
    "a negative length": head(b"Content-Length: -1"),
    "a hexadecimal length": head(b"Content-Length: 0x2") + b"{}",
    "a length with a point": head(b"Content-Length: 2.0") + b"{}",
    "a length with a space in it": head(b"Content-Length: 1 1") + b"{}",
    "an empty length": head(b"Content-Length: "),
    "a length beyond 64 bits": head(b"Content-Length: 18446744073709551618") + b"{}",
    "a length that is none": head(b"Content-Length: abc"),
    # transfer codings
    "chunked then another": head(b"Transfer-Encoding: chunked, gzip") + EMPTY,
    "chunked, then nothing": head(b"Transfer-Encoding: chunked ,") + EMPTY,
    "chunked, then x": head(b"Transfer-Encoding: chunked ,x") + EMPTY,
    "a coding before chunked": head(b"Transfer-Encoding: gzip, chunked") + EMPTY,
    "identity": head(b"Transfer-Encoding: identity"),
    "an unknown coding": head(b"Transfer-Encoding: xchunked") + EMPTY,
    "chunked twice": head(CHUNKED, CHUNKED) + EMPTY,
    "chunked with a vertical tab": head(b"Transfer-Encoding: \x0bchunked") + EMPTY,
    "chunked in quotes": head(b'Transfer-Encoding: "chunked"') + EMPTY,
    "chunked in HTTP/1.0": head(CHUNKED, first=b"POST /ping HTTP/1.0") + EMPTY,
    # chunks
    "a chunk size that overflows": head(CHUNKED) + b"10000000000000002\r\n{}\r\n" + EMPTY,
    "a chunk size with a sign": head(CHUNKED) + b"+2\r\n{}\r\n" + EMPTY,
    "a chunk size with 0x": head(CHUNKED) + b"0x2\r\n{}\r\n" + EMPTY,
    "a chunk size that is none": head(CHUNKED) + b"zz\r\n{}\r\n" + EMPTY,
    "a chunk without its line end": head(CHUNKED) + b"2\r\n{}0\r\n\r\n",
    "a chunk longer than its size": head(CHUNKED) + b"2\r\n{}}\r\n" + EMPTY,
    "a chunk size ended by a bare line feed": head(CHUNKED) + b"2\n{}\r\n" + EMPTY,
    "a chunk size with a space before": head(CHUNKED) + b" 2\r\n{}\r\n" + EMPTY,
    "a length in a trailer": head(CHUNKED) + b"2\r\n{}\r\n0\r\nContent-Length: 9\r\n\r\n",
    # lines and fields
    "bare line feeds": b"GET /ping HTTP/1.1\nHost: localhost\n\n",
    "a bare line feed in a header": head(b"X-A: b\nX-C: d"),
    "a bare carriage return in a header": head(b"X-A: b\rX-C: d"),
    "a folded header": head(b"X-A: b\r\n c"),
    "a folded length": head(b"Content-Length:\r\n 2") + b"{}",
    "a NUL in a header": head(b"X-A: b\x00c"),
    "a NUL in the name of a header": head(b"X-\x00A: b"),
    "a space before the colon": head(b"Content-Length : 2") + b"{}",
    "a tab before the colon": head(b"Transfer-Encoding\t: chunked") + EMPTY,
    "a header without a colon": head(b"X-A"),
    "a header without a name": head(b": b"),
    "a space at the start of the first header": b"GET /ping HTTP/1.1\r\n Host: localhost\r\n\r\n",
    # the request line
    "absolute form": head(first=b"GET http://localhost/ping HTTP/1.1"),
    "authority form": head(first=b"CONNECT localhost:80 HTTP/1.1"),
    "asterisk form": head(first=b"OPTIONS * HTTP/1.1"),
    "a target without a slash": head(first=b"GET ping HTTP/1.1"),
    "a fragment": head(first=b"GET /ping#x HTTP/1.1"),
    "bytes beyond ASCII in the target": head(first=b"GET /p\xc3\xafng HTTP/1.1"),
    "a NUL in the target": head(first=b"GET /ping\x00 HTTP/1.1"),
    "a space in the target": head(first=b"GET /ping /pong HTTP/1.1"),
    "HTTP/0.9": b"GET /ping\r\n\r\n",
    "HTTP/2 in plain text": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": head(first=b"GET /ping HTTP/1.2"),
    "an unknown method": head(first=b"SMUGGLE /ping HTTP/1.1"),
    "a method in lower case": head(first=b"get /ping HTTP/1.1"),
    "no version": head(first=b"GET /ping HTTP/"),
    # the host
    "no host": head(first=b"GET /ping HTTP/1.1", host=b""),
    "two hosts": head(b"Host: example.com", first=b"GET /ping HTTP/1.1"),
    "a host with a path": head(first=b"GET /ping HTTP/1.1", host=b"localhost/x"),
    "a host with a user": head(first=b"GET /ping HTTP/1.1", host=b"user@localhost"),
    "a list of hosts": head(first=b"GET /ping HTTP/1.1", host=b"localhost, example.com").replace(b", e", b" e"),
}

IN_STEP = {
    "two slashes": (head(first=b"GET //ping HTTP/1.1"), 405),
    "two slashes within": (head(first=b"GET " + ACTIONS + b"//x HTTP/1.1"), 404),
    "dots": (head(first=b"GET " + ACTIONS + b"/../actions HTTP/1.1"), 400),
    "encoded dots": (head(first=b"GET " + ACTIONS + b"/%2e%2e HTTP/1.1"), 400),
    "an encoded slash in a name": (head(first=b"GET " + ACTIONS + b"/a%2fb HTTP/1.1"), 400),
    "an encoded slash in the path": (head(first=b"GET /api%2fv1 HTTP/1.1"), 405),
    "an encoded NUL": (head(first=b"GET " + ACTIONS + b"/a%00 HTTP/1.1"), 400),
    "an encoded line break": (head(first=b"GET " + ACTIONS + b"/a%0d%0aX-A:%20b HTTP/1.1"), 400),
    "a broken percent sign": (head(first=b"GET " + ACTIONS + b"/a%zz HTTP/1.1"), 400),
    "a body with GET": (head(b"Content-Length: 2", first=b"GET /ping HTTP/1.1") + b"{}", 200),
    "chunks with an extension": (head(CHUNKED) + b"2;a=b\r\n{}\r\n" + EMPTY, 404),
    "chunks with a trailer": (head(CHUNKED) + b"2\r\n{}\r\n0\r\nX-Request-ID: trailer\r\n\r\n", 404),
    "chunked in upper case": (head(b"TRANSFER-ENCODING: CHUNKED") + b"2\r\n{}\r\n" + EMPTY, 404),
    "a length with zeros": (head(b"Content-Length: 0002") + b"{}", 404),
    "a method to override": (head(b"X-HTTP-Method-Override: PUT", b"Content-Length: 2") + b"{}", 404),
    "empty lines before": (b"\r\n\r\n" + head(first=b"GET /ping HTTP/1.1"), 200),
}


@pytest.fixture
def connection(server: running.Server) -> Iterator[socket.socket]:
    where = urlsplit(server.url)
    with socket.create_connection((where.hostname, where.port), timeout=5.0) as connection:
        yield connection


def read_to_end(connection: socket.socket) -> bytes:
    got = b""
    while part := connection.recv(65536):
        got += part
    return got


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d\d\d) ", answers)]


@pytest.mark.parametrize("name", REFUSED)
def test_ambiguous_requests_end_the_connection(connection: socket.socket, name: str) -> None:
    connection.sendall(REFUSED[name] + SMUGGLED)
    answers = read_to_end(connection)
    assert statuses(answers) == [400]
    assert b"\r\nConnection: close\r\n" in answers
    assert b"access-control-allow-origin" not in answers.lower()


@pytest.mark.parametrize("name", IN_STEP)
def test_odd_requests_leave_the_next_one_where_it_is(connection: socket.socket, name: str) -> None:
    request, status = IN_STEP[name]
    last = SMUGGLED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    connection.sendall(request + last)
    answers = read_to_end(connection)
    assert statuses(answers) == [status, 200]
    assert answers.endswith(b"pong")


def test_an_answer_that_is_owed_goes_before_the_refusal(connection: socket.socket) -> None:
    connection.sendall(head(b"Content-Length: 2") + b"{}" + b"GET /ping HTTP/1.1\r\nbroken\r\n\r\n" + SMUGGLED)
    assert statuses(read_to_end(connection)) == [404, 400]


def test_a_broken_body_behind_an_answer_that_is_owed(connection: socket.socket) -> None:
    connection.sendall(head(b"Content-Length: 2") + b"{}" + head(CHUNKED) + b"zz\r\n" + SMUGGLED)
    assert statuses(read_to_end(connection)) == [404, 400]


def test_a_trailer_is_no_header(connection: socket.socket) -> None:
    keyless = head(CHUNKED, b"Connection: close").replace(b"Authorization", b"X-Authorization")
    connection.sendall(keyless + b"2\r\n{}\r\n0\r\nAuthorization: Basic " + KEY + b"\r\n\r\n")
    assert statuses(read_to_end(connection)) == [401]


def test_nothing_is_done_after_connection_close(connection: socket.socket) -> None:
    last = head(b"Content-Length: 2", b"Connection: close") + b"{}"
    put = head(b"Content-Length: 2", first=b"PUT /api/v1/namespaces/_/triggers/smuggled HTTP/1.1") + b"{}"
    connection.sendall(last + put)
    assert statuses(read_to_end(connection)) == [404]


def test_an_upgrade_that_is_not_offered_ends_the_connection(connection: socket.socket) -> None:
    asked = head(b"Upgrade: h2c", b"Connection: Upgrade", b"Content-Length: 2") + b"{}"
    connection.sendall(asked + SMUGGLED)
    answers = read_to_end(connection)
    assert statuses(answers) == [404]
    assert b"connection: close" in answers.lower()


def test_pipelined_requests_are_answered_in_order(connection: socket.socket) -> None:
    names = [f"pipelined-{number}" for number in range(30)]
    gets = [head(first=f"GET /api/v1/namespaces/{name}/actions HTTP/1.1".encode()) for name in names]
    connection.sendall(b"".join(gets) + SMUGGLED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    answers = read_to_end(connection).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"403"] * len(names) + [b"200"]
    assert [name for name, answer in zip(names, answers, strict=False) if f"'{name}'".encode() in answer] == names


def test_a_head_of_a_mebibyte_is_refused(connection: socket.socket) -> None:
    try:
        connection.sendall(head(*(b"X-%d: %s" % (number, b"a" * 1000) for number in range(1024))))
    except ConnectionError:
        pass  # the server has read enough
    assert statuses(read_to_end(connection)) == [431]


def test_a_head_just_over_the_limit_is_refused_though_it_comes_at_once(connection: socket.socket) -> None:
    connection.sendall(head(b"X-A: " + b"a" * 65536, first=b"GET /ping HTTP/1.1") + SMUGGLED)
    assert statuses(read_to_end(connection)) == [431]


def test_a_large_body_in_the_same_packet_is_no_large_head(connection: socket.socket) -> None:
    body = b'{"a":"%s"}' % (b"a" * 100_000)
    connection.sendall(head(b"Content-Length: %d" % len(body), b"Connection: close") + body)
    assert statuses(read_to_end(connection)) == [404]


@pytest.mark.parametrize("method", [b"GET /ping?", b"POST " + ACTIONS + b"/x?"])
def test_a_uri_over_eight_kibibytes_is_refused(connection: socket.socket, method: bytes) -> None:
    connection.sendall(head(b"Connection: close", first=method + b"a" * 8200 + b" HTTP/1.1"))
    assert statuses(read_to_end(connection)) == [414]


def test_a_body_is_asked_for_before_it_is_sent(connection: socket.socket) -> None:
    connection.sendall(head(b"Expect: 100-continue", b"Content-Length: 2", b"Connection: close"))
    assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(b"{}")
    assert statuses(read_to_end(connection)) == [404]


def test_a_body_that_would_be_refused_is_not_asked_for(connection: socket.socket) -> None:
    connection.sendall(head(b"Expect: 100-continue", b"Content-Length: 99999999", b"Connection: close"))
    assert statuses(read_to_end(connection)) == [413]
