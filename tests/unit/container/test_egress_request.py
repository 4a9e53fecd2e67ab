"""What a client asks the proxy for: a table, and whatever may come."""

from __future__ import annotations

import contextlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visp.container.egress.request import Malformed, closing, parse

END = b"\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "target"),
    [
        (b"CONNECT a.b:443 HTTP/1.1\r\nHost: a.b:443", "a.b:443"),
        (b"CONNECT A.B.:443 HTTP/1.0", "a.b:443"),
        (b"CONNECT [2001:db8::1]:443 HTTP/1.1", "[2001:db8::1]:443"),
        (b"GET http://a.b/x HTTP/1.1", "a.b:80"),
        (b"GET HTTP://a.b:81?q HTTP/1.1", "a.b:81"),
        (b"GET http://198.51.100.7 HTTP/1.1", "198.51.100.7:80"),
    ],
)
def test_whereto(head: bytes, target: str) -> None:
    assert parse(head + END).target == target


def test_an_address_is_one() -> None:
    assert parse(b"CONNECT 127.0.0.1:1 HTTP/1.1" + END).host == ipaddress.ip_address("127.0.0.1")


def test_what_is_passed_on() -> None:
    asked = parse(
        b"POST http://a.b/x?y#z HTTP/1.1\r\nhost: other\r\nproxy-connection: keep-alive\r\n"
        b"Connection: close, x-mine\r\nX-Mine: 1\r\nX-Kept: 2\r\nProxy-Authorization: secret\r\n"
        b"Content-Length: 3\r\n\r\n"
    )
    assert asked.head == (
        b"POST /x?y HTTP/1.1\r\nHost: a.b\r\nX-Kept: 2\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
    )
    assert parse(b"CONNECT a.b:1 HTTP/1.1\r\nX: 1" + END).head is None


@pytest.mark.parametrize(
    "head",
    [
        *(b"", b"GET / HTTP/1.1", b"GET https://a.b/ HTTP/1.1", b"GET ftp://a.b/ HTTP/1.1", b"CONNECT a.b HTTP/1.1"),
        *(
            b"CONNECT a.b:443 HTTP/2",
            b"CONNECT  a.b:443 HTTP/1.1",
            b"CONNECT u@a.b:443 HTTP/1.1",
            b"CONNECT :1 HTTP/1.1",
        ),
        *(b"CONNECT a.b:0 HTTP/1.1", b"CONNECT a.b:65536 HTTP/1.1", b"CONNECT 127.1:80 HTTP/1.1"),
        *(b"CONNECT 2130706433:80 HTTP/1.1", b"CONNECT ::1:80 HTTP/1.1", b"CONNECT [fe80::1%25lo]:80 HTTP/1.1"),
        *(b"GET http://a.b@c.d/ HTTP/1.1", b"GET http://a.b\\c/ HTTP/1.1", b"GET http:///x HTTP/1.1"),
        *(
            b"GET http://a.b/ HTTP/1.1\r\nA : 1",
            b"GET http://a.b/ HTTP/1.1\r\n A: 1",
            b"GET http://a.b/ HTTP/1.1\nA: 1",
        ),
        *(
            b"GET http://a.b/ HTTP/1.1\r\nA: \x00",
            b"GET http://a.b/ HTTP/1.1\r\nA: 1\r2",
            b"GET http://a.b/ HTTP/1.1\r\n:",
        ),
        b"GET http://a.b/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1",
        b"GET http://a.b/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"GET http://a.b/ HTTP/1.1\r\nTransfer-Encoding: gzip, chunked",
        b"GET http://a.b/ HTTP/1.1\r\nContent-Length: +1",
        b"GET http://a.b/ HTTP/1.1" + b"\r\nA: 1" * 101,
    ],
)
def test_what_is_malformed(head: bytes) -> None:
    with pytest.raises(Malformed):
        parse(head + END)


def test_the_length_of_a_body_cannot_be_hidden() -> None:
    head = parse(b"POST http://a.b/ HTTP/1.1\r\nConnection: content-length\r\nContent-Length: 3" + END).head
    assert head is not None
    assert b"Content-Length: 3" in head


def test_an_answer_ends_its_connection() -> None:
    assert closing(b"HTTP/1.1 200 OK\r\nA: 1\r\nConnection: keep-alive\r\nKeep-Alive: 5\r\n\r\n") == (
        200,
        b"HTTP/1.1 200 OK\r\nA: 1\r\nConnection: close\r\n\r\n",
    )
    assert closing(b"HTTP/1.1 100 Continue\r\n\r\n") == (100, b"HTTP/1.1 100 Continue\r\n\r\n")
    for head in (b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 99 x\r\n\r\n", b"HTTP/2 200\r\n\r\n", END):
        with pytest.raises(Malformed):
            closing(head)


PIECES = [
    b"GET ",
    b"CONNECT ",
    b"http://",
    b"a.b",
    b":",
    b"80",
    b"/",
    b" HTTP/1.1",
    b"\r\n",
    b"Host: x",
    b"[::1]",
    b"\n",
]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=6)), max_size=12))
def test_whatever_comes_is_read_or_refused_and_nothing_slips_in(pieces: list[bytes]) -> None:
    with contextlib.suppress(Malformed):
        asked = parse(b"".join(pieces) + END)
        assert 1 <= asked.port <= 65535
        if asked.head is not None:
            head, _, rest = asked.head.partition(END)
            assert not rest
            assert b"\n" not in head.replace(b"\r\n", b"")
            assert head.lower().count(b"\r\nhost: ") == 1
