"""Results that come in parts: what is joined, and how far they may go."""

import base64
import json
from typing import Any

import msgspec
import pytest

from visp.invoker.streams import GRANT_BYTES, PART_BYTES, Joined, Stream
from visp.runtime.base import WINDOW_BYTES

LIMIT = 1000


def joined(*parts: bytes, limit: int = LIMIT) -> Any:
    held = Joined(limit)
    for part in parts:
        held.add(part)
    return msgspec.json.decode(held.result())


def raw(data: bytes) -> bytes:
    return b":" + base64.b64encode(data)


@pytest.mark.parametrize(
    ("parts", "result"),
    [
        ([], {"body": ""}),
        ([b'"a"', b'"\\n"', raw(b"b")], {"body": "a\nb"}),
        ([b'{"n":1}', b"[2]", b"3", b"null"], {"body": '{"n":1}\n[2]\n3\nnull\n'}),
        ([b'{"statusCode":201}', b'"a"'], {"statusCode": 201, "body": "a"}),
        ([b'{"headers":{"a":"b"}}'], {"headers": {"a": "b"}, "body": ""}),
        ([b'"a"', b'{"statusCode":201}'], {"body": 'a{"statusCode":201}\n'}),
        ([raw(b"\xff")], {"body": "/w==", "isBase64Encoded": True}),
        ([raw("é".encode()[:1]), raw("é".encode()[1:])], {"body": "é"}),
        ([b'"\\ud800"'], {"body": "?"}),
    ],
)
def test_parts_are_joined(parts: list[bytes], result: dict[str, Any]) -> None:
    assert joined(*parts) == result


@pytest.mark.parametrize("part", [b"", b"x", b'"', b":x", b":AB=C", b"{"])
def test_what_is_no_part_is_refused(part: bytes) -> None:
    stream = Stream(LIMIT, lambda _: None, is_read=False)
    assert not stream.take(part)


@pytest.mark.parametrize("text", ["x", '"', "é", "\x00"])
def test_the_record_is_no_longer_than_it_may_be(text: str) -> None:
    part = json.dumps(text * 100, ensure_ascii=False).encode()
    held = Joined(LIMIT)
    for _ in range(100):
        held.add(part)
    result = msgspec.json.decode(held.result())
    assert len(held.result()) <= LIMIT
    assert result["isTruncated"] is True
    assert set(result["body"]) <= {text}


def test_a_character_that_is_cut_through_is_left_out() -> None:
    whole = raw("é".encode() * 700 + b"x")
    assert set(joined(whole, b'"more"', limit=len(whole))["body"]) <= {"é", "x"}


def test_what_was_taken_is_granted_in_large_steps() -> None:
    granted: list[int] = []
    stream = Stream(LIMIT, granted.append, is_read=True)
    part = b'"%b"' % (b"x" * 1022)
    for _ in range(WINDOW_BYTES // 1024):
        assert stream.take(part)
    stream.taken(GRANT_BYTES - 1)
    assert granted == []
    stream.taken(1)
    assert granted == [GRANT_BYTES]
    stream.taken(10 * WINDOW_BYTES)
    assert granted == [GRANT_BYTES, WINDOW_BYTES - GRANT_BYTES], "no more than came"


def test_what_heeds_no_credit_is_refused() -> None:
    stream = Stream(LIMIT, lambda _: None, is_read=True)
    part = b'"%b"' % (b"x" * (PART_BYTES // 2 - 2))
    taken = [stream.take(part) for _ in range(4)]
    assert taken == [True, True, False, False]


def test_the_rest_is_granted_when_its_reader_is_gone() -> None:
    granted: list[int] = []
    stream = Stream(LIMIT, granted.append, is_read=True)
    part = b'"%b"' % (b"x" * (WINDOW_BYTES - 2))
    stream.take(part)
    stream.abandon()
    assert granted == [WINDOW_BYTES]
    assert not stream.is_read
