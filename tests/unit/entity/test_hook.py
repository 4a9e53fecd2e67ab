from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from visp.entity.activation import ActivationHead, ActivationRecord, Status
from visp.entity.hook import Hook, body_of, headers_of, parse_hook
from visp.errors import BadRequest

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
WELL: dict[str, Any] = {"url": "https://example.com:8443/done?x=1", "secret": SECRET}


def parsed(**changes: Any) -> Hook | None:
    return parse_hook(json.dumps(WELL | changes).encode())


def test_all_outcomes_are_heard_unless_some_are_named() -> None:
    whole, some = parsed(), parsed(on=["internal", "developer"])
    assert whole is not None
    assert some is not None
    assert [whole.hears_of(status) for status in Status] == [True] * 4
    assert [some.hears_of(status) for status in Status] == [False, False, True, True]


@pytest.mark.parametrize("value", [b"null", b"false"])
def test_none_is_asked_for(value: bytes) -> None:
    assert parse_hook(value) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com",
        "file:///etc/passwd",
        "http://",
        "http:///path",
        "http://user:key@example.com",
        "http://example.com/#part",
        "http://example.com:0",
        "http://example.com:99999",
        "http://[::1",
        "http://example.com/a b",
        "http://example.com/\r\nx: y",
        "http://exämple.com",
        "http://example.com/" + "a" * 2_000,
    ],
)
def test_url_that_cannot_be_called_is_refused(url: str) -> None:
    with pytest.raises(BadRequest, match="`url` is an http"):
        parsed(url=url)


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "whsec_!!!!", SECRET.removeprefix("whsec_"), "whsec_" + base64.b64encode(bytes(23)).decode()],
)
def test_secret_that_cannot_sign_is_refused_without_being_repeated(secret: str) -> None:
    with pytest.raises(BadRequest, match="`secret` is whsec_ and the Base64 of 24 to 64 random bytes") as refused:
        parsed(secret=secret)
    assert len(secret) < 8 or secret not in str(refused.value)


@pytest.mark.parametrize(
    "value", [b"7", b'"https://example.com"', b"{}", b'{"url": "http://x"}', b"[" * 100_000, b'{"url":"\xff"}']
)
def test_other_forms_are_refused(value: bytes) -> None:
    with pytest.raises(BadRequest, match="'completion-hook' must be an object like"):
        parse_hook(value)


def test_it_never_shows_its_secret() -> None:
    assert SECRET not in repr(parsed())


def test_signature_is_that_of_the_standard() -> None:
    hook = parsed()
    assert hook is not None
    body = b'{"a":1}'
    headers = headers_of(hook, "msg_1", 1_700_000_000, body)
    expected = hmac.new(bytes(range(24)), b'msg_1.1700000000.{"a":1}', hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("msg_1", "1700000000")


def test_body_is_the_record_as_a_blocking_caller_sees_it() -> None:
    head = ActivationHead(
        id="a" * 32, namespace="guest", subject="guest", name="hello", version="0.0.1", start_ms=1, status=0
    )
    told = json.loads(body_of(ActivationRecord(head=head, result=b'{"x":"y"}'), "2030-01-01T00:00:00+00:00"))
    assert (told["type"], told["timestamp"]) == ("activation.completed", "2030-01-01T00:00:00+00:00")
    assert told["data"]["activationId"] == "a" * 32
    assert told["data"]["response"]["result"] == {"x": "y"}
