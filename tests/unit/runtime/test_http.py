"""The HTTP contract without I/O: requests to write, responses to read."""

import pytest

from visp.runtime.base import Gone, Reply
from visp.runtime.http import HEAD_LIMIT_BYTES, ResponseReader, render

LIMIT = 20


def response(body: bytes = b"{}", *headers: str, status: str = "200 OK", version: str = "1.1") -> bytes:
    lines = [f"HTTP/{version} {status}", *(headers or (f"Content-Length: {len(body)}",))]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_a_request_is_a_post_of_json() -> None:
    head, _, body = render("/run", "10.0.0.2", 8080, b'{"value":{}}').partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /run HTTP/1.1",
        b"Host: 10.0.0.2:8080",
        b"Content-Type: application/json",
        b"Accept: application/json",
        b"Content-Length: 12",
    ]
    assert body == b'{"value":{}}'


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_response_however_it_comes(step: int) -> None:
    reader, data = ResponseReader(LIMIT), response(b'{"a":1}', status="502 Bad Gateway")
    replies = [reader.feed(data[at : at + step]) for at in range(0, len(data), step)]
    assert replies[-1] == Reply(502, b'{"a":1}', 7)
    assert set(replies[:-1]) <= {None}


def test_one_response_after_the_other() -> None:
    reader = ResponseReader(LIMIT)
    assert reader.feed(response(b"1")) == Reply(200, b"1", 1)
    assert reader.feed(response(b"")) == Reply(200, b"", 0)
    assert reader.feed(response(b"3")) == Reply(200, b"3", 1)
    assert reader.keeps_alive


@pytest.mark.parametrize(
    "data",
    [
        response(b"{}", "X: y"),
        response(b"2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
        response(b"{}", "Content-Length: 2", "Transfer-Encoding: chunked"),
        response(b"", "Content-Length: 0", status="204 No Content"),
        response(b"", "Upgrade: x", status="101 Switching Protocols"),
        response(b"{}", "Content-Length: two"),
        response(b"{}", "Content-Length: -2"),
        response(b"{}", "Content-Length: " + "9" * 5000),
        response(b"{}", "Content-Length: 2", "Content-Length: 3"),
        response(b"{}x", "Content-Length: 2"),
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"x" * (HEAD_LIMIT_BYTES + 1),
    ],
    ids=[
        "no length",
        "chunked",
        "length and chunked",
        "no content",
        "another protocol",
        "length no number",
        "length negative",
        "length absurd",
        "two lengths",
        "more than announced",
        "no HTTP",
        "status no number",
        "head without end",
    ],
)
def test_what_cannot_be_an_answer_counts_as_none(data: bytes) -> None:
    assert ResponseReader(LIMIT).feed(data) == Gone()


def test_an_interim_response_is_passed_over() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    assert ResponseReader(LIMIT).feed(interim + response(b"{}")) == Reply(200, b"{}", 2)
    reader = ResponseReader(LIMIT)
    assert reader.feed(interim) is None
    assert reader.feed(response(b"{}")) == Reply(200, b"{}", 2)


def test_over_the_limit_it_is_read_no_further() -> None:
    reader = ResponseReader(LIMIT)
    assert reader.feed(response(b"x" * LIMIT, "Content-Length: 1000000")) is None
    assert reader.feed(b"xxxx") == Reply(200, b"x" * (LIMIT + 1), 1_000_000)
    assert not reader.keeps_alive


def test_over_the_limit_and_complete_the_connection_stays() -> None:
    reader = ResponseReader(LIMIT)
    assert reader.feed(response(b"x" * 30)) == Reply(200, b"x" * (LIMIT + 1), 30)
    assert reader.keeps_alive


@pytest.mark.parametrize(
    "data",
    [response(b"{}", "Content-Length: 2", "Connection: Close"), response(b"{}", version="1.0")],
    ids=["said so", "HTTP/1.0"],
)
def test_a_connection_that_ends_is_known(data: bytes) -> None:
    reader = ResponseReader(LIMIT)
    assert reader.feed(data) == Reply(200, b"{}", 2)
    assert not reader.keeps_alive
