"""Heads that two servers might read differently are refused."""

import pytest

from visp.api.heads import HEAD_LIMIT_BYTES, HeadRefused, check_head, check_head_size

HOST = (b"host", b"localhost:3233")
CHUNKED = (b"transfer-encoding", b"chunked")


@pytest.mark.parametrize(
    ("url", "headers", "version"),
    [
        (b"/", [HOST], "1.1"),
        (b"/", [], "1.0"),
        (b"//a/%2e%2e?x=http://y", [HOST], "1.1"),
        (b"/", [(b"host", b"[::1]:80")], "1.1"),
        (b"/", [HOST, CHUNKED], "1.1"),
        (b"/", [HOST, (b"transfer-encoding", b"Chunked")], "1.1"),
        (b"/", [HOST, (b"content-length", b"5")], "1.1"),
    ],
)
def test_heads_that_are_plain(url: bytes, headers: list[tuple[bytes, bytes]], version: str) -> None:
    check_head(url, headers, version)


@pytest.mark.parametrize(
    ("url", "headers", "version"),
    [
        (b"http://localhost/", [HOST], "1.1"),
        (b"*", [HOST], "1.1"),
        (b"localhost:80", [HOST], "1.1"),
        (b"/\xc3\xa9", [HOST], "1.1"),
        (b"/#a", [HOST], "1.1"),
        (b"/", [], "1.1"),
        (b"/", [(b"host", b"")], "1.1"),
        (b"/", [HOST, HOST], "1.1"),
        (b"/", [HOST, HOST], "1.0"),
        (b"/", [(b"host", b"a/b")], "1.1"),
        (b"/", [(b"host", b"a b")], "1.1"),
        (b"/", [HOST, (b"transfer-encoding", b"gzip, chunked")], "1.1"),
        (b"/", [HOST, (b"transfer-encoding", b"identity")], "1.1"),
        (b"/", [HOST, CHUNKED, CHUNKED], "1.1"),
        (b"/", [HOST, CHUNKED, (b"content-length", b"5")], "1.1"),
        (b"/", [HOST, CHUNKED], "1.0"),
        (b"/", [HOST], "0.9"),
        (b"/", [HOST], "2.0"),
    ],
)
def test_heads_that_are_not(url: bytes, headers: list[tuple[bytes, bytes]], version: str) -> None:
    with pytest.raises(HeadRefused) as raised:
        check_head(url, headers, version)
    assert raised.value.status == 400


def test_the_size_of_a_head() -> None:
    check_head_size(b"/", [(b"a", b"b" * (HEAD_LIMIT_BYTES - 6))])
    with pytest.raises(HeadRefused) as raised:
        check_head_size(b"/", [(b"a", b"b" * (HEAD_LIMIT_BYTES - 5))])
    assert raised.value.status == 431
