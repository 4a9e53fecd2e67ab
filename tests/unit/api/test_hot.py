"""Which URLs the door answers itself: plain ones; whatever is odd or wrong is the application's to explain."""

import pytest

from visp.api.heads import HeadRefused
from visp.api.hot import CallTarget, Target, parse_head, parse_target

NS = b"/api/v1/namespaces/"


@pytest.mark.parametrize(
    ("url", "target"),
    [
        (NS + b"_/actions/a", Target("_", False, "a", None, False)),
        (NS + b"guest/triggers/t", Target("guest", True, "t", None, False)),
        (NS + b"_/actions/a.b-c@d&e", Target("_", False, "a.b-c@d&e", None, False)),
        (NS + b"_/actions/a?", Target("_", False, "a", None, False)),
        (NS + b"_/actions/a?blocking=true", Target("_", False, "a", 60_000, False)),
        (NS + b"_/actions/a?blocking=yes&result=1", Target("_", False, "a", 60_000, True)),
        (NS + b"_/actions/a?blocking=true&timeout=5", Target("_", False, "a", 5, False)),
        (NS + b"_/actions/a?timeout=5&result=true", Target("_", False, "a", None, True)),
        (NS + b"_/actions/a?unknown=1", Target("_", False, "a", None, False)),
    ],
)
def test_hot_urls(url: bytes, target: Target) -> None:
    assert parse_target(url, 60_000) == target


@pytest.mark.parametrize(
    "url",
    [
        b"/",
        b"/api/v1",
        NS,
        NS + b"_/actions",
        NS + b"_/actions/",
        NS + b"_/actions/a/",
        NS + b"_/actions/pkg/",
        NS + b"_/actions/pkg/a/b",
        NS + b"_/actions/$/a",
        NS + b"_/triggers/pkg/t",
        NS + b"_/triggers/t?keyed=true",
        NS + b"_/triggers/t?batch=a/1",
        NS + b"_/rules/r",
        NS + b"_/packages/p",
        NS + b"/actions/a",
        NS + b"_//a",
        NS + b"_/actions/$",
        NS + b"_/actions/a%20b",
        NS + b"_/actions/\xe9",
        NS + b"$/actions/a",
        NS + b"_/actions/a?blocking=maybe",
        NS + b"_/actions/a?blocking=tru%65",
        NS + b"_/actions/a?timeout=0",
        NS + b"_/actions/a?timeout=60001",
        NS + b"_/actions/a?x=a+b",
        NS + b"_/actions/a?" + b"&".join(b"f%d" % number for number in range(101)),
        b"/api/v2/namespaces/_/actions/a",
        b"http://localhost" + NS + b"_/actions/a",
    ],
)
def test_urls_for_the_application(url: bytes) -> None:
    assert parse_target(url, 60_000) is None


HEADERS = (
    (b"host", b"127.0.0.1:3233"),
    (b"authorization", b"Basic x"),
    (b"content-type", b"application/json; charset=utf-8"),
    (b"content-length", b"7"),
)
URL = b"/api/v1/namespaces/_/actions/a?blocking=true"


def test_a_plain_head_is_read() -> None:
    head = parse_head(b"POST", URL, HEADERS, 60_000)
    assert head is not None
    assert (head.target.name, head.authorization, head.body_bytes, head.is_from_here) == ("a", b"Basic x", 7, True)
    assert (head.request_id, head.shown) == (None, {})


def test_a_fire_shows_its_headers() -> None:
    head = parse_head(b"POST", b"/api/v1/namespaces/_/triggers/t", HEADERS, 60_000)
    assert head is not None
    assert head.shown["content-length"] == "7"


@pytest.mark.parametrize(
    "more",
    [
        (b"transfer-encoding", b"chunked"),
        (b"expect", b"100-continue"),
        (b"upgrade", b"websocket"),
        (b"authorization", b"Basic y"),
        (b"content-length", b"7"),
    ],
)
def test_a_head_that_asks_for_more_is_the_applications(more: tuple[bytes, bytes]) -> None:
    headers = [header for header in HEADERS if more[0] != b"transfer-encoding" or header[0] != b"content-length"]
    assert parse_head(b"POST", URL, [*headers, more], 60_000) is None


@pytest.mark.parametrize("length", [b"x", b"-1", b"1" * 13])
def test_a_length_that_is_none_is_the_applications(length: bytes) -> None:
    headers = [(name, length if name == b"content-length" else value) for name, value in HEADERS]
    assert parse_head(b"POST", URL, headers, 60_000) is None


def test_a_body_of_another_type_is_the_applications() -> None:
    headers = [(name, b"text/plain" if name == b"content-type" else value) for name, value in HEADERS]
    assert parse_head(b"POST", URL, headers, 60_000) is None


def test_no_lines_are_no_fire_of_nothing() -> None:
    url = NS + b"_/triggers/t"
    empty = [(b"host", b"localhost"), (b"content-length", b"0")]
    assert parse_head(b"POST", url, empty, 60_000) is not None
    for kind in (b"application/x-ndjson", b"Application/X-NDJSON; charset=utf-8"):
        assert parse_head(b"POST", url, [*empty, (b"content-type", kind)], 60_000) is None


@pytest.mark.parametrize(
    "headers",
    [[(b"host", b"example.com"), *HEADERS[1:]], [*HEADERS, (b"origin", b"http://localhost")]],
    ids=["another host", "a web page"],
)
def test_what_may_come_through_a_browser_is_not_from_here(headers: list[tuple[bytes, bytes]]) -> None:
    head = parse_head(b"POST", URL, headers, 60_000)
    assert head is not None
    assert not head.is_from_here


@pytest.mark.parametrize("path", ["/books?a=1", "/api/v1/web/guest/default/a", "/api/v1/namespaces/_/actions/a"])
def test_at_a_domain_every_path_is_its_apis(path: str) -> None:
    head = parse_head(b"GET", path.encode(), [(b"host", b"shop.example.com")], 60_000, "shop.example.com")
    assert head is not None
    assert isinstance(head.target, CallTarget)
    assert (head.target.domain, head.target.place.rest) == ("shop.example.com", path.partition("?")[0])


def test_a_head_without_a_host_is_refused() -> None:
    with pytest.raises(HeadRefused):
        parse_head(b"POST", URL, HEADERS[1:], 60_000)
