"""What proxies say of a request is believed of those that are named, as far as it can be read."""

from __future__ import annotations

import pytest

from visp.api.origin import Origin, in_own_host, is_among, told
from visp.entity.network import is_domain, parse_networks

TRUSTED = parse_networks("127.0.0.1 10.0.0.0/8 fd00::/8")
FOR, HOST, PROTO = b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"


@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        ([], Origin(None, "http")),
        ([(FOR, b"198.51.100.7")], Origin("198.51.100.7", "http")),
        ([(FOR, b"203.0.113.9, 198.51.100.7")], Origin("198.51.100.7", "http")),  # the first is what a client said
        ([(FOR, b"203.0.113.9"), (FOR, b"198.51.100.7, 10.1.2.3")], Origin("198.51.100.7", "http")),
        ([(FOR, b"198.51.100.7, evil, 10.1.2.3")], Origin(None, "http")),
        ([(FOR, b"10.1.2.3, 127.0.0.1")], Origin(None, "http")),
        ([(FOR, b"")], Origin(None, "http")),
        ([(FOR, b"[2001:db8::1]")], Origin("2001:db8::1", "http")),
        ([(FOR, b"::ffff:198.51.100.7")], Origin("198.51.100.7", "http")),
        ([(FOR, b"198.51.100.7," * 1000 + b"203.0.113.9")], Origin("203.0.113.9", "http")),
        ([(FOR, b"198.51.100.7" + b",10.0.0.1" * 100)], Origin(None, "http")),
        ([(PROTO, b"https")], Origin(None, "https")),
        ([(PROTO, b"http, HTTPS")], Origin(None, "https")),
        ([(PROTO, b"javascript")], Origin(None, "http")),
        ([(HOST, b"example.com:8443")], Origin(None, "http", b"example.com:8443")),
        ([(HOST, b"a.example, b.example")], Origin(None, "http", b"b.example")),
        ([(HOST, b"a.example/x")], Origin(None, "http")),
        ([(b"forwarded", b"for=1.2.3.4;proto=https;host=a"), (b"x-real-ip", b"1.2.3.4")], Origin(None, "http")),
    ],
)
def test_what_a_trusted_proxy_tells(headers: list[tuple[bytes, bytes]], origin: Origin) -> None:
    assert told("http", headers, TRUSTED) == origin


@pytest.mark.parametrize(
    ("peer", "is_it"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", False),
        ("10.9.8.7", True),
        ("::ffff:10.9.8.7", True),
        ("fd00::1", True),
        ("::1", False),
        ("", False),
        ("localhost", False),
    ],
)
def test_who_is_trusted(peer: str, is_it: bool) -> None:
    assert is_among(peer, TRUSTED) is is_it
    assert not is_among(peer, ())


@pytest.mark.parametrize("text", ["example.com", "10.0.0.1/8", "10.0.0.0/33", "1.2.3.4:80"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="network"):
        parse_networks(text)


@pytest.mark.parametrize(
    ("url", "host", "mapped"),
    [
        (b"/", b"guest.example.com", b"/api/v1/web/guest/public/index.html"),
        (b"/?a=b", b"guest.example.com:8080", b"/api/v1/web/guest/public/index.html?a=b"),
        (b"/x/y?a=/b", b"guest.example.com", b"/api/v1/web/guest/x/y?a=/b"),
        (b"/default/a.json/z%2f", b"Guest.Example.COM", b"/api/v1/web/guest/default/a.json/z%2f"),
        (b"/api/v1/namespaces", b"a-1.example.com", b"/api/v1/web/a-1/api/v1/namespaces"),
    ],
)
def test_a_namespaces_own_host(url: bytes, host: bytes, mapped: bytes) -> None:
    assert in_own_host(url, host, "example.com") == mapped


@pytest.mark.parametrize(
    "host",
    [
        b"example.com",
        b"a.b.example.com",
        b"a_b.example.com",
        b".example.com",
        b"guest.example.com.",
        b"guest.example.org",
        b"guest.example.com:x",
        b"guestexample.com",
        b"localhost",
        b"127.0.0.1",
        b"whisk.system.example.com",
    ],
)
def test_other_hosts_mean_what_they_say(host: bytes) -> None:
    assert in_own_host(b"/x/y", host, "example.com") is None


@pytest.mark.parametrize("url", [b"*", b"http://guest.example.com/x"])
def test_targets_that_are_no_paths_stay(url: bytes) -> None:
    assert in_own_host(url, b"guest.example.com", "example.com") is None


def test_domains() -> None:
    assert is_domain("example.com")
    assert not any(map(is_domain, ["", "Example.com", "*.example.com", "a b", "a/b", "example.com:80"]))
