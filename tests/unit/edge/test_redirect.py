"""Who asks plainly is sent to https at the same host, and nothing that was sent is answered otherwise."""

from __future__ import annotations

import pytest

from visp.edge.redirect import answer

LEADS = {
    "to a port of its own": (b"GET /x?a=b HTTP/1.1\r\nHost: example.com:8080", 8443, "https://example.com:8443/x?a=b"),
    "to the usual port": (b"POST /x HTTP/1.1\r\nhost: example.com", 443, "https://example.com/x"),
    "an address of version 6": (b"GET / HTTP/1.1\r\nHost: [::1]:80", 3233, "https://[::1]:3233/"),
    "two slashes": (b"GET //evil.example/x HTTP/1.1\r\nHost: example.com", 443, "https://example.com//evil.example/x"),
}
REFUSED = {
    "no host": b"GET / HTTP/1.1\r\nAccept: */*",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b",
    "a host with a user": b"GET / HTTP/1.1\r\nHost: a@b",
    "a host with a path": b"GET / HTTP/1.1\r\nHost: a/b",
    "an absolute target": b"GET http://a/ HTTP/1.1\r\nHost: a",
    "a line feed": b"GET /\nX: y HTTP/1.1\r\nHost: a",
    "no http": b"\x16\x03\x01\x02\x00",
}


@pytest.mark.parametrize("name", LEADS)
def test_a_request_is_sent_to_https(name: str) -> None:
    head, port, location = LEADS[name]
    given = answer(head, port)
    assert given.startswith(b"HTTP/1.1 308 Permanent Redirect\r\n")
    assert f"\r\nLocation: {location}\r\n".encode() in given
    assert b"\r\nConnection: close\r\n" in given


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_request_is_refused(name: str) -> None:
    given = answer(REFUSED[name], 443)
    assert given.startswith(b"HTTP/1.1 400 ")
    assert b"Location" not in given
