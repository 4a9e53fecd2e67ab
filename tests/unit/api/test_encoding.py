"""Which answers are compressed, for whom, and that nothing else of them changes."""

from __future__ import annotations

import zlib

import pytest

from visp.api import encoding
from visp.api.encoding import accepts_gzip, compressed, encoded, may_vary
from visp.api.errors import JSON, HttpAnswer

BODY = b'{"a":"%s"}' % (b"abc" * 1000)


def answer(kind: str | None = JSON, body: bytes = BODY, status: int = 200, *headers: tuple[str, str]) -> HttpAnswer:
    return HttpAnswer(status, body, kind, headers=headers)


@pytest.mark.parametrize(
    "header", ["gzip", "gzip, deflate, br", "GZIP", "br;q=1.0, gzip;q=0.2", "*", "identity;q=0, *;q=0.1", "x-gzip"]
)
def test_clients_that_read_gzip(header: str) -> None:
    assert accepts_gzip(header)


@pytest.mark.parametrize(
    "header", ["", "identity", "br", "gzip;q=0", "gzip;q=0.000, *", "*;q=0", "gzip;q=x", "gzipped"]
)
def test_clients_that_do_not(header: str) -> None:
    assert not accepts_gzip(header)


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "text/html; charset=UTF-8",
        "image/svg+xml",
        "application/vnd.api+json",
        "text/css",
        "text/csv",
        "application/javascript",
        "application/x-own; charset=UTF-8",
        "application/problem+json",
    ],
)
def test_text_is_compressed(kind: str) -> None:
    assert may_vary(answer(kind), 1024)


@pytest.mark.parametrize(
    "other",
    [
        answer(None),
        answer("image/png"),
        answer("application/octet-stream"),
        answer("application/zip"),
        answer(JSON, b"a" * 1023),
        answer(JSON, BODY, 204),
        answer(JSON, BODY, 304),
        answer(JSON, BODY, 206),
        answer(JSON, BODY, 200, ("Content-Encoding", "br")),
        answer(JSON, BODY, 200, ("cache-control", "private, No-Transform")),
    ],
)
def test_other_answers_are_not(other: HttpAnswer) -> None:
    assert not may_vary(other, 1024)


async def test_what_is_compressed_is_the_same_and_says_so() -> None:
    given = answer(JSON, BODY, 200, ("X-A", "b"), ("ETag", '"1"'))
    made = await encoded(given, "gzip", 1024)
    assert zlib.decompress(made.body, 31) == BODY
    assert made.headers == (
        ("X-A", "b"),
        ("ETag", 'W/"1"'),
        ("Content-Encoding", "gzip"),
        ("Vary", "Accept-Encoding"),
    )
    assert (made.status, made.content_type) == (200, JSON)


async def test_ranges_are_of_other_bytes_and_nothing_is_said_twice() -> None:
    given = answer(JSON, BODY, 200, ("Accept-Ranges", "bytes"), ("vary", "Origin, accept-encoding"))
    assert (await encoded(given, "gzip", 1024)).headers == (
        ("vary", "Origin, accept-encoding"),
        ("Content-Encoding", "gzip"),
    )
    assert (await encoded(given, "", 1024)).headers == given.headers


@pytest.mark.parametrize(("header", "is_head"), [("", False), ("br", False), ("gzip", True)])
async def test_caches_are_told_that_it_might_have_been(header: str, is_head: bool) -> None:
    made = await encoded(answer(), header, 1024, is_head=is_head)
    assert (made.body, made.headers) == (BODY, (("Vary", "Accept-Encoding"),))


async def test_long_answers_are_compressed_too() -> None:
    body = BODY * 100
    assert len(body) > encoding.AT_ONCE_BYTES
    made = await encoded(answer(JSON, body), "gzip", 1024)
    assert zlib.decompress(made.body, 31) == body


def test_what_grows_stays_as_it_is() -> None:
    noise = bytes(range(256)) * 4
    assert compressed(answer("text/plain", noise[:300])).headers[-1] == ("Vary", "Accept-Encoding")
    grown = compressed(answer("text/plain", b"ab"))
    assert (grown.body, grown.headers) == (b"ab", (("Vary", "Accept-Encoding"),))
